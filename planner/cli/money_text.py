"""Costs as lines of text: what is paid, what for, and on which assumption."""

from ...hardware_specs.prices import KIND_NAMES, ChipPrice
from ..result import Plan, PlanCost


def usd(value: float) -> str:
    """Dollars with cents, without them from a thousand on.

    >>> usd(0.01234), usd(3.5), usd(1165080.2)
    ('$0.0123', '$3.50', '$1,165,080')
    """
    if value >= 1000.0:
        return f"${value:,.0f}"
    return f"${value:.2f}" if value >= 0.1 else f"${value:.3g}"


def cost_lines(cost: PlanCost) -> list[tuple[str, str]]:
    """(what, figures) of a cost."""
    lines = [("cost", _kept(cost)), ("a token costs", _tokens(cost))]
    if cost.energy_j_per_request is not None:
        lines.append(("energy", _energy(cost)))
    if cost.co2e_g_per_request is not None:
        lines.append(("carbon", _carbon(cost)))
    return lines


def _kept(cost: PlanCost) -> str:
    if cost.usd_per_h is None or cost.usd_per_month is None:
        return "no price of these chips is known; say one, e.g. --price 2.5"
    return f"{usd(cost.usd_per_h)} an hour, {usd(cost.usd_per_month)} a month of 730 hours"


def _tokens(cost: PlanCost) -> str:
    served = f"at {cost.requests_per_s:.4g} requests/s"
    if cost.utilization < 1.0:
        served += f", which is {cost.utilization:.2f} of what it is planned for"
    if cost.usd_per_mtok_input is None or cost.usd_per_mtok_output is None or cost.usd_per_mtok is None:
        return f"nothing is known; {served}"
    return (
        f"{usd(cost.usd_per_mtok_input)} per million input and {usd(cost.usd_per_mtok_output)} per million output tokens "
        f"(a request split by chip time, {cost.input_share:.2f} on its input), {usd(cost.usd_per_mtok)} over both; {served}"
    )


def _energy(cost: PlanCost) -> str:
    assert cost.energy_j_per_input_token is not None
    assert cost.energy_j_per_output_token is not None
    assert cost.power_w is not None
    power = "their rated power" if cost.power_is_rated else "the power said"
    return (
        f"{cost.energy_j_per_input_token:.3g} J an input and {cost.energy_j_per_output_token:.3g} J an output token, "
        f"the chips alone, at {power} all the time ({cost.power_w / 1e3:.3g} kW)"
    )


def _carbon(cost: PlanCost) -> str:
    assert cost.co2e_g_per_mtok_input is not None
    assert cost.co2e_g_per_mtok_output is not None
    return (
        f"{cost.co2e_g_per_mtok_input:.3g} g CO2e per million input and {cost.co2e_g_per_mtok_output:.3g} g per million "
        f"output tokens, at {cost.grid_g_per_kwh:g} g/kWh and PUE {cost.pue:g}"
    )


def price_lines(plan: Plan) -> list[tuple[str, str]]:
    """Where the price of each chip comes from."""
    prices = {phase.chip: phase.price for phase in (plan.prefill, plan.decode)}
    return [("price", _price(chip, price)) for chip, price in prices.items() if price is not None]


def _price(chip: str, price: ChipPrice) -> str:
    if price.kind == "own":
        return f"{usd(price.usd_per_h)} a chip-hour of {chip}, as you say"
    word = next(word for word, kind in KIND_NAMES.items() if kind == price.kind)
    if price.n_offers == 1:
        return f"{usd(price.usd_per_h)} a chip-hour of {chip}, {word}, the only such price known ({price.offer})"
    return (
        f"{usd(price.usd_per_h)} a chip-hour of {chip}, {word}: the median of {price.n_offers} prices from "
        f"{usd(price.low_usd_per_h)} to {usd(price.high_usd_per_h)} ({price.offer}); --price sets yours"
    )
