"""A plan's cost: its chips' prices and power, laid on what it serves by the formulas of `simulator.cost.money`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.errors import SpecError
from ..hardware_specs.prices import Payment, chip_price
from ..simulator.cost.money import Offer, co2e_g, month_usd, spent_usd, split_usd, usd_per_mtok
from .result import PhasePlan, Plan, PlanCost, PlanResult, WorkloadShape


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTerms:
    """What a cost depends on beside prices.

    Parameters
    ----------
    utilization : mean load over the hours paid for, as a share of the rate planned for or of the full throughput
    power_w : of one chip, measured or allowed; None for the rated one
    grid_g_per_kwh : carbon intensity of the grid in gCO2e/kWh; None leaves carbon out
    pue : energy of the building over that of its machines; 1 counts the machines alone
    """

    utilization: float = 1.0
    power_w: float | None = None
    grid_g_per_kwh: float | None = None
    pue: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what nothing can be."""
        if not 0.0 < self.utilization <= 1.0:
            raise SpecError(
                f"utilization {self.utilization} must lie in (0, 1]: the mean load over the load planned for"
            )
        if self.power_w is not None and not 0.0 < self.power_w < 1e5:
            raise SpecError(f"a power of {self.power_w:g} W a chip must be positive, e.g. 700 W")
        if self.grid_g_per_kwh is not None and not 0.0 <= self.grid_g_per_kwh < 1e4:
            raise SpecError(f"a grid of {self.grid_g_per_kwh} gCO2e/kWh must lie between 0 and 10,000")
        if not 1.0 <= self.pue < 10.0:
            raise SpecError(f"PUE {self.pue} must be at least 1: energy of the building over that of its machines")


def with_cost(plan: Plan, shape: WorkloadShape, payment: Payment, terms: CostTerms | None = None) -> Plan:
    """The plan with its chips paid for: prices of its phases, and its cost.

    Raises
    ------
    SpecError : a price was asked for that is not known of one of its chips
    """
    prefill, decode = (_with_price(phase, payment) for phase in (plan.prefill, plan.decode))
    priced = plan.model_copy(update={"prefill": prefill, "decode": decode})
    cost = plan_cost(priced, shape, terms or CostTerms())
    usd, load = cost.usd_per_request, plan.under_load
    output = None if usd is None or not shape.output_tokens else usd_per_mtok(usd, shape.output_tokens)
    changes: dict[str, object] = {"cost": cost, "usd_per_mtok_output": output}
    if load is not None:
        changes["under_load"] = load.model_copy(update={"usd_per_mtok": output})
    return priced.model_copy(update=changes)


def _with_price(phase: PhasePlan, payment: Payment) -> PhasePlan:
    price, chip_s = chip_price(phase.chip, payment), phase.cost_chip_s_per_token
    per_mtok = None if price is None or chip_s is None else usd_per_mtok(spent_usd(price.usd_per_h, chip_s), 1.0)
    return phase.model_copy(update={"price": price, "usd_per_mtok": per_mtok})


def plan_cost(plan: Plan, shape: WorkloadShape, terms: CostTerms) -> PlanCost:
    """What a plan with prices costs on the terms given."""
    served = planned_per_s(plan, shape) * terms.utilization
    share = _input_share(plan, shape)
    usd_per_h, power_w = _sum(plan, _usd_per_h), _sum(plan, lambda phase: _power_w(phase, terms))
    usd = None if usd_per_h is None else float(spent_usd(usd_per_h, 1.0 / served))
    energy = None if power_w is None else power_w / served
    carbon = (
        None
        if energy is None or terms.grid_g_per_kwh is None
        else float(co2e_g(energy, terms.grid_g_per_kwh, terms.pue))
    )
    usd_in, usd_out = _by_token(usd, share, shape)
    energy_in, energy_out = _by_token(energy, share, shape)
    carbon_in, carbon_out = _by_token(carbon, share, shape)
    return PlanCost(
        requests_per_s=served,
        utilization=terms.utilization,
        input_share=share,
        usd_per_h=usd_per_h,
        usd_per_month=None if usd_per_h is None else float(month_usd(usd_per_h)),
        usd_per_request=usd,
        usd_per_mtok=None if usd is None else float(usd_per_mtok(usd, shape.input_tokens + shape.output_tokens)),
        usd_per_mtok_input=_million(usd_in),
        usd_per_mtok_output=_million(usd_out),
        power_w=power_w,
        power_is_rated=terms.power_w is None,
        energy_j_per_request=energy,
        energy_j_per_input_token=energy_in,
        energy_j_per_output_token=energy_out,
        grid_g_per_kwh=terms.grid_g_per_kwh,
        pue=terms.pue,
        co2e_g_per_request=carbon,
        co2e_g_per_mtok_input=_million(carbon_in),
        co2e_g_per_mtok_output=_million(carbon_out),
    )


def planned_per_s(plan: Plan, shape: WorkloadShape) -> float:
    """Requests a second a plan was made for: the rate asked for, else its full throughput."""
    if plan.under_load is not None:
        return plan.under_load.rate_per_s
    if not shape.output_tokens:  # nothing is generated, and one slice reads
        return plan.n_chips / plan.chip_s_per_request
    return plan.output_tokens_per_s / shape.output_tokens


def offer_of(result: PlanResult, rank: int = 1) -> Offer:
    """One plan as a pool that can be bought as often as the traffic needs.

    It carries the highest rate that keeps the limits where one was simulated, else its full throughput.

    Raises
    ------
    SpecError : no such plan, or no price of its chips
    """
    plan = result.of_rank(rank)
    usd_per_h = _sum(plan, _usd_per_h)
    name = " + ".join(phase.slice for phase in _paid(plan))
    if usd_per_h is None:
        raise SpecError(f"no price of {name} is known; say one, e.g. --price 2.5")
    load = plan.under_load
    capacity = planned_per_s(plan, result.workload) if load is None else load.highest_rate_per_s
    return Offer(name=f"{result.model} on {name}", capacity_per_s=capacity, usd_per_h=usd_per_h)


def _paid(plan: Plan) -> tuple[PhasePlan, ...]:
    """The phases whose chips are paid for; on one slice they are the same chips."""
    return (plan.decode,) if plan.shared else (plan.prefill, plan.decode)


def _sum(plan: Plan, of: Callable[[PhasePlan], float | None]) -> float | None:
    """A figure of all chips of a plan; None where one is unknown."""
    parts = [of(phase) for phase in _paid(plan)]
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def _usd_per_h(phase: PhasePlan) -> float | None:
    return None if phase.price is None else phase.n_chips * phase.price.usd_per_h


def _power_w(phase: PhasePlan, terms: CostTerms) -> float | None:
    rated = get_chip(phase.chip).tdp_w
    if terms.power_w is not None:
        return phase.n_chips * terms.power_w
    return None if rated is None else phase.n_chips * rated.value


def _input_share(plan: Plan, shape: WorkloadShape) -> float:
    """Prefill's part of a request: of the chip time on one slice, of the price (or the chips) on two."""
    prefill, decode = plan.prefill, plan.decode
    if plan.shared:
        reading = (prefill.cost_chip_s_per_token or 0.0) * shape.input_tokens
        writing = (decode.cost_chip_s_per_token or 0.0) * shape.output_tokens
        return reading / (reading + writing)
    paid = _usd_per_h(prefill), _usd_per_h(decode)
    if paid[0] is None or paid[1] is None:
        return prefill.n_chips / (prefill.n_chips + decode.n_chips)
    return paid[0] / (paid[0] + paid[1])


def _by_token(value: float | None, share: float, shape: WorkloadShape) -> tuple[float | None, float | None]:
    """A request's figure laid on each input and each output token."""
    if value is None:
        return None, None
    reading, writing = split_usd(value, share)
    return float(reading) / shape.input_tokens, float(writing) / max(shape.output_tokens, 1)


def _million(value: float | None) -> float | None:
    return None if value is None else float(usd_per_mtok(value, 1.0))
