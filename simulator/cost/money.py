"""Dollars, joules and grams of CO2e of a pool: every formula of them, in this one place.

All take scalars or arrays alike. Chips are paid for by the hour whether they work or not, so the cost of a token is what the
pool costs over what it really serves: at half the load a token costs twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.errors import SpecError
from ...models.types import Array

# 8760 hours a year over 12 months.
HOURS_PER_MONTH = 730.0
_S_PER_H = 3600.0
_J_PER_KWH = 3.6e6


def spent_usd(usd_per_h: Array, duration_s: Array) -> Array:
    r"""Dollars that a pool costs while it is paid for.

    .. math:: C = p \, t / 3600

    Parameters
    ----------
    usd_per_h : (...) of all its chips
    duration_s : (...) seconds they are paid for, busy or not

    Examples
    --------
    >>> spent_usd(8 * 3.99, 1800.0)
    15.96
    """
    return usd_per_h * duration_s / _S_PER_H


def month_usd(usd_per_h: Array) -> Array:
    r"""Dollars a month of a pool that is kept all the time.

    .. math:: C = 730 \, p

    >>> month_usd(10.0)
    7300.0
    """
    return usd_per_h * HOURS_PER_MONTH


def usd_per_mtok(usd: Array, tokens: Array) -> Array:
    r"""Dollars of a million tokens.

    .. math:: c = 10^6 \, C / n

    Parameters
    ----------
    usd : (...) what they cost together
    tokens : (...) above 0; of one second, they are tokens a second

    Examples
    --------
    A pool of 36 USD/h that writes 1000 tokens a second:

    >>> usd_per_mtok(spent_usd(36.0, 1.0), 1000.0)
    10.0
    """
    return usd / tokens * 1e6


def split_usd(usd: Array, input_share: Array) -> tuple[Array, Array]:
    r"""Dollars of reading and of writing; together they are the whole.

    .. math:: C_{in} = s \, C, \quad C_{out} = (1 - s) \, C

    Parameters
    ----------
    usd : (...) of a request
    input_share : (...) in [0, 1]: prefill's part of the chip time of a request, or its slice's part of the price

    Notes
    -----
    A convention: a pass that holds both serves both. Idle time is laid on both in proportion.

    Examples
    --------
    >>> split_usd(10.0, 0.25)
    (2.5, 7.5)
    """
    return usd * input_share, usd * (1.0 - input_share)


def co2e_g(energy_j: Array, grid_g_per_kwh: Array, pue: Array) -> Array:
    r"""Grams of CO2e that the grid gives off for the energy of chips.

    .. math:: m = E \cdot \mathrm{PUE} \cdot I / 3.6 \times 10^6

    Parameters
    ----------
    energy_j : (...) that the chips take
    grid_g_per_kwh : (...) carbon intensity of the grid, gCO2e/kWh
    pue : (...) power usage effectiveness: energy of the building over that of its machines, at least 1

    Notes
    -----
    Only what is counted in `energy_j` is scaled: hosts and switches are left out unless it holds them. Making the chips is
    left out.

    References
    ----------
    [Patterson2021] section 2: kWh = hours x processors x average power x PUE; tCO2e = kWh x kgCO2e per kWh / 1000.

    Examples
    --------
    >>> co2e_g(3.6e6, 400.0, 1.1)
    440.00000000000006
    """
    return energy_j * pue * grid_g_per_kwh / _J_PER_KWH


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A pool that can be bought as often as the traffic needs.

    Parameters
    ----------
    name : how it is told from others
    capacity_per_s : requests a second one copy of it carries
    usd_per_h : of one copy
    """

    name: str
    capacity_per_s: float
    usd_per_h: float

    def __post_init__(self) -> None:
        """Refuse what carries nothing or costs nothing."""
        for name, value in (("capacity_per_s", self.capacity_per_s), ("usd_per_h", self.usd_per_h)):
            if not 0.0 < value < np.inf:
                raise SpecError(f"{self.name}: {name}={value} must be a positive number")


def copies_for(rate_per_s: Array, capacity_per_s: Array) -> NDArray[np.float64]:
    r"""Copies of a pool that a rate needs: at least one.

    .. math:: n = \max(1, \lceil \lambda / \mu \rceil)

    >>> copies_for([0.0, 5.0, 5.1], 5.0).tolist()
    [1.0, 1.0, 2.0]
    """
    load = np.asarray(rate_per_s, np.float64) / capacity_per_s
    # a rate that is a whole number of capacities needs no copy more for the rounding of the division
    return np.maximum(np.ceil(load * (1.0 - 4.0 * np.finfo(np.float64).eps)), 1.0)


def pool_usd_per_h(offer: Offer, rate_per_s: Array) -> NDArray[np.float64]:
    """What as many copies of an offer cost as a rate needs, (...)."""
    return copies_for(rate_per_s, offer.capacity_per_s) * offer.usd_per_h


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheapest:
    """Rates from above `low_per_s` up to `high_per_s` at which one offer costs least, in so many copies at most."""

    low_per_s: float
    high_per_s: float
    offer: Offer


# More steps than this of one offer are no table any more.
_MOST_STEPS = 100_000


def cheapest_offers(offers: Sequence[Offer], most_per_s: float) -> list[Cheapest]:
    """Which offer costs least at each rate up to a most, exactly: costs change only where a copy is added.

    Of offers that cost the same, the one named first is taken. Pools of several offers together are not tried.

    Raises
    ------
    SpecError : no offer, a rate that is no number, or so high that the smallest offer is needed too often

    Examples
    --------
    >>> small = Offer(name="small", capacity_per_s=1.0, usd_per_h=2.0)
    >>> large = Offer(name="large", capacity_per_s=8.0, usd_per_h=8.0)
    >>> [(x.low_per_s, x.high_per_s, x.offer.name) for x in cheapest_offers([small, large], 10.0)]
    [(0.0, 4.0, 'small'), (4.0, 10.0, 'large')]
    """
    if not offers:
        raise SpecError("nothing to compare: say at least one offer")
    if not 0.0 < most_per_s < np.inf:
        raise SpecError(f"a rate of {most_per_s} requests/s must be a positive number")
    steps = [most_per_s / offer.capacity_per_s for offer in offers]
    if max(steps) > _MOST_STEPS:
        least = min(offers, key=lambda offer: offer.capacity_per_s)
        raise SpecError(
            f"{most_per_s:.4g} requests/s are {max(steps):,.0f} times what {least.name} carries; ask for less"
        )
    ends = _ends(offers, most_per_s)
    usd = np.array([pool_usd_per_h(offer, ends) for offer in offers])
    best = np.argmin(usd, axis=0)
    return _merged(offers, ends, best)


def _ends(offers: Sequence[Offer], most_per_s: float) -> NDArray[np.float64]:
    """Every rate at which one more copy of an offer is needed, and the most; rising, each once."""
    steps = [np.arange(1, np.ceil(most_per_s / offer.capacity_per_s)) * offer.capacity_per_s for offer in offers]
    return np.unique(np.concatenate([*steps, [most_per_s]]))


def _merged(offers: Sequence[Offer], ends: NDArray[np.float64], best: NDArray[np.int64]) -> list[Cheapest]:
    """Stretches of one and the same offer as one."""
    found: list[Cheapest] = []
    last = np.flatnonzero(np.append(best[1:] != best[:-1], True))
    low = 0.0
    for i in last:
        found.append(Cheapest(low_per_s=low, high_per_s=float(ends[i]), offer=offers[int(best[i])]))
        low = float(ends[i])
    return found
