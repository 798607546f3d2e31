"""Arrival processes: when requests come."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.errors import SpecError

_CHUNK = 4096
_DAY_S = 86400.0


class ArrivalProcess(Protocol):
    """Times of arrival without end."""

    @property
    def mean_rate_per_s(self) -> float:
        """Requests a second in the long run."""
        ...

    def times_s(self, rng: np.random.Generator) -> Iterator[float]:
        """Seconds since the start, in order."""
        ...


def _check_rate(rate_per_s: float) -> None:
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise SpecError(f"a rate of {rate_per_s} requests/s must be a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma:
    """Gaps from a gamma distribution; Poisson traffic where `burstiness` is 1.

    Parameters
    ----------
    burstiness : shape of the distribution, as in ``vllm bench serve --burstiness``; below 1 requests come in bursts, above
        it more evenly
    """

    rate_per_s: float
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no rate or shape."""
        _check_rate(self.rate_per_s)
        if not (math.isfinite(self.burstiness) and self.burstiness > 0):
            raise SpecError(f"burstiness {self.burstiness} must be a positive number; 1 is Poisson")

    @property
    def mean_rate_per_s(self) -> float:
        """The rate asked for."""
        return self.rate_per_s

    def times_s(self, rng: np.random.Generator) -> Iterator[float]:
        """Seconds since the start, in order."""
        last, scale = 0.0, 1.0 / (self.rate_per_s * self.burstiness)
        while True:
            times = last + np.cumsum(rng.gamma(self.burstiness, scale, _CHUNK))
            last = float(times[-1])
            yield from times.tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Even:
    """One request every 1 / rate seconds."""

    rate_per_s: float

    def __post_init__(self) -> None:
        """Refuse what is no rate."""
        _check_rate(self.rate_per_s)

    @property
    def mean_rate_per_s(self) -> float:
        """The rate asked for."""
        return self.rate_per_s

    def times_s(self, rng: np.random.Generator) -> Iterator[float]:
        """Seconds since the start, in order."""
        n = 0
        while True:
            n += 1
            yield n / self.rate_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Everything at once, at the start."""

    @property
    def mean_rate_per_s(self) -> float:
        """Without end."""
        return math.inf

    def times_s(self, rng: np.random.Generator) -> Iterator[float]:
        """Zeros."""
        while True:
            yield 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulated:
    """A Markov-modulated Poisson process: states of their own rate, each for an exponential time, one after the other.

    Parameters
    ----------
    rates_per_s, dwells_s : of each state; the rate may be 0
    """

    rates_per_s: tuple[float, ...]
    dwells_s: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse states that are none."""
        finite = all(map(math.isfinite, (*self.rates_per_s, *self.dwells_s)))
        sane = finite and len(self.rates_per_s) == len(self.dwells_s) > 0 and min(self.dwells_s) > 0
        if not sane or min(self.rates_per_s) < 0 or max(self.rates_per_s) <= 0:
            raise SpecError(
                "a modulated process needs a rate and a dwell above 0 for each of its states, and one rate above 0"
            )

    @property
    def mean_rate_per_s(self) -> float:
        """Rates weighted by the time spent at each."""
        return float(np.dot(self.rates_per_s, self.dwells_s) / sum(self.dwells_s))

    def times_s(self, rng: np.random.Generator) -> Iterator[float]:
        """Seconds since the start, in order."""
        now, state = 0.0, 0
        while True:
            dwell = float(rng.exponential(self.dwells_s[state]))
            n = int(rng.poisson(self.rates_per_s[state] * dwell))
            yield from (now + np.sort(rng.uniform(0.0, dwell, n))).tolist()
            now, state = now + dwell, (state + 1) % len(self.rates_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCurve:
    """Poisson traffic whose rate follows a curve that repeats every 24 hours.

    Parameters
    ----------
    rates_per_s : at equally spaced times of the day, the first at midnight; lines between them
    """

    rates_per_s: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a curve without traffic."""
        finite = all(map(math.isfinite, self.rates_per_s))
        if not self.rates_per_s or not finite or min(self.rates_per_s) < 0 or max(self.rates_per_s) <= 0:
            raise SpecError("a day curve needs rates of at least 0, one of them above it")

    @property
    def mean_rate_per_s(self) -> float:
        """Over a day."""
        return float(np.mean(self.rates_per_s))

    def rate_at(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Requests a second at times of any day."""
        curve = [*self.rates_per_s, self.rates_per_s[0]]
        return np.interp(np.mod(time_s, _DAY_S), np.linspace(0.0, _DAY_S, len(curve)), curve)

    def times_s(self, rng: np.random.Generator) -> Iterator[float]:
        """Seconds since the start, by thinning a Poisson process of the highest rate."""
        highest, last = max(self.rates_per_s), 0.0
        while True:
            times = last + np.cumsum(rng.exponential(1.0 / highest, _CHUNK))
            last = float(times[-1])
            yield from times[rng.uniform(0.0, highest, _CHUNK) < self.rate_at(times)].tolist()


def parse_process(text: str, rate_per_s: float, burstiness: float = 1.0) -> ArrivalProcess:
    """An arrival process by name: ``poisson``, ``gamma``, ``even``.

    Raises
    ------
    SpecError : unknown name or a rate that is none
    """
    if rate_per_s == math.inf:
        return Burst()
    if text == "poisson":
        return Gamma(rate_per_s=rate_per_s)
    if text == "gamma":
        return Gamma(rate_per_s=rate_per_s, burstiness=burstiness)
    if text == "even":
        return Even(rate_per_s=rate_per_s)
    raise SpecError(f"arrivals {text!r} are unknown; choose poisson, gamma or even")
