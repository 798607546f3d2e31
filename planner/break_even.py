"""Which of several pools is cheapest at which rate, and where they cross."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..hardware_specs.errors import SpecError
from ..simulator.cost.money import (
    Cheapest,
    Offer,
    cheapest_offers,
    copies_for,
    month_usd,
    pool_usd_per_h,
    spent_usd,
    usd_per_mtok,
)
from .cost import offer_of
from .notebook import break_even_html
from .result import PlanResult, WorkloadShape

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
# Points of a curve, beside the rates at which another pool becomes the cheapest.
_POINTS = 400


class PoolCurve(BaseModel):
    """A pool that is bought as often as the rate needs, and what that costs at rising rates.

    `utilization` is the rate over what the copies bought carry; `usd_per_mtok` is over input and output tokens, at full load
    `usd_per_mtok_full`.
    """

    model_config = _STRICT
    name: str
    capacity_per_s: float
    usd_per_h: float
    usd_per_mtok_full: float
    rate_per_s: tuple[float, ...]
    copies: tuple[int, ...]
    utilization: tuple[float, ...]
    usd_per_month: tuple[float, ...]
    usd_per_mtok: tuple[float, ...]


class Stretch(BaseModel):
    """Rates above `low_per_s` up to `high_per_s`, and what the cheapest pool comes to at the upper end."""

    model_config = _STRICT
    low_per_s: float
    high_per_s: float
    name: str
    copies: int
    utilization: float
    usd_per_month: float
    usd_per_mtok: float


class BreakEven(BaseModel):
    """Several pools against the rate of one kind of request."""

    model_config = _STRICT
    workload: WorkloadShape
    pools: tuple[PoolCurve, ...]
    stretches: tuple[Stretch, ...]

    def _repr_html_(self) -> str:
        return break_even_html(self)


def break_even(results: Sequence[PlanResult], *, most_per_s: float | None = None, rank: int = 1) -> BreakEven:
    """Lay the plans of several results beside each other, each bought as often as the traffic needs.

    Parameters
    ----------
    results : plans for the same requests, on chips with prices
    most_per_s : rates up to this one; four times what the largest carries unless said
    rank : which plan of each

    Raises
    ------
    SpecError : requests that differ, no price, or a rate that is none
    """
    if not results:
        raise SpecError("nothing to compare: say at least one plan")
    shapes = {(r.workload.input_tokens, r.workload.output_tokens) for r in results}
    if len(shapes) > 1:
        told = ", ".join(f"{n_in} in and {n_out} out" for n_in, n_out in sorted(shapes))
        raise SpecError(
            f"the plans serve different requests ({told} tokens); compare plans for the same --input and --output"
        )
    return compare_offers(_told_apart(results, rank), results[0].workload, most_per_s=most_per_s)


def _told_apart(results: Sequence[PlanResult], rank: int) -> list[Offer]:
    """An offer a result; those of one name are numbered."""
    offers = [offer_of(result, rank) for result in results]
    names = [offer.name for offer in offers]
    return [
        Offer(
            name=f"{offer.name} ({names[: i + 1].count(offer.name)})" if names.count(offer.name) > 1 else offer.name,
            capacity_per_s=offer.capacity_per_s,
            usd_per_h=offer.usd_per_h,
        )
        for i, offer in enumerate(offers)
    ]


def compare_offers(offers: Sequence[Offer], shape: WorkloadShape, *, most_per_s: float | None = None) -> BreakEven:
    """The same for pools whose capacity and price are known."""
    most = 4.0 * max(offer.capacity_per_s for offer in offers) if most_per_s is None else most_per_s
    found = cheapest_offers(offers, most)
    rates = np.unique([*np.linspace(most / _POINTS, most, _POINTS), *(x.high_per_s for x in found)])
    return BreakEven(
        workload=shape,
        pools=tuple(_curve(offer, rates, shape) for offer in offers),
        stretches=tuple(_stretch(x, shape) for x in found),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Costs:
    """What a pool comes to at each rate, each (n,)."""

    copies: NDArray[np.float64]
    utilization: NDArray[np.float64]
    usd_per_month: NDArray[np.float64]
    usd_per_mtok: NDArray[np.float64]


def _costs(offer: Offer, rate_per_s: NDArray[np.float64], shape: WorkloadShape) -> _Costs:
    copies, usd_per_h = copies_for(rate_per_s, offer.capacity_per_s), pool_usd_per_h(offer, rate_per_s)
    return _Costs(
        copies=copies,
        utilization=np.minimum(rate_per_s / (copies * offer.capacity_per_s), 1.0),
        usd_per_month=np.asarray(month_usd(usd_per_h)),
        usd_per_mtok=np.asarray(usd_per_mtok(spent_usd(usd_per_h, 1.0 / rate_per_s), _tokens(shape))),
    )


def _tokens(shape: WorkloadShape) -> int:
    return shape.input_tokens + shape.output_tokens


def _stretch(found: Cheapest, shape: WorkloadShape) -> Stretch:
    costs = _costs(found.offer, np.array([found.high_per_s]), shape)
    return Stretch(
        low_per_s=found.low_per_s,
        high_per_s=found.high_per_s,
        name=found.offer.name,
        copies=int(costs.copies[0]),
        utilization=float(costs.utilization[0]),
        usd_per_month=float(costs.usd_per_month[0]),
        usd_per_mtok=float(costs.usd_per_mtok[0]),
    )


def _curve(offer: Offer, rates: NDArray[np.float64], shape: WorkloadShape) -> PoolCurve:
    costs = _costs(offer, rates, shape)
    full = usd_per_mtok(spent_usd(offer.usd_per_h, 1.0 / offer.capacity_per_s), _tokens(shape))
    return PoolCurve(
        name=offer.name,
        capacity_per_s=offer.capacity_per_s,
        usd_per_h=offer.usd_per_h,
        usd_per_mtok_full=float(full),
        rate_per_s=tuple(rates.tolist()),
        copies=tuple(costs.copies.astype(int).tolist()),
        utilization=tuple(costs.utilization.tolist()),
        usd_per_month=tuple(costs.usd_per_month.tolist()),
        usd_per_mtok=tuple(costs.usd_per_mtok.tolist()),
    )
