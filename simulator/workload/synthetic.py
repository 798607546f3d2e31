"""Synthetic traffic: an arrival process with lengths, and users who wait for their answers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ...hardware_specs.errors import SpecError
from .arrival import Arrival
from .gaps import ArrivalProcess
from .lengths import Lengths

_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTraffic:
    """Requests that come when they come.

    Parameters
    ----------
    priority_shares : part of the requests of each priority, the most urgent first
    """

    process: ArrivalProcess
    lengths: Lengths
    n_requests: int
    priority_shares: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse an empty stream and shares that are none."""
        _check_count(self.n_requests)
        if min(self.priority_shares, default=-1.0) < 0 or not math.isclose(sum(self.priority_shares), 1.0):
            raise SpecError(f"priority shares {self.priority_shares} must be at least 0 and sum to 1")

    def arrivals(self, seed: np.random.SeedSequence) -> Iterator[Arrival]:
        """The requests; arrivals, lengths and priorities are drawn apart, so that changing one leaves the others."""
        when, how_long, how_urgent = (np.random.default_rng(child) for child in children_of(seed, 3))
        times = islice(self.process.times_s(when), self.n_requests)
        lengths = pairs_of(self.lengths, how_long)
        urgencies = _urgencies(self.priority_shares, how_urgent)
        for time_s, (n_in, n_out), urgency in zip(times, lengths, urgencies, strict=False):
            yield Arrival(arrival_s=time_s, input_tokens=n_in, output_tokens=n_out, priority=urgency)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """Users who each send the next request when the last is answered, as load generators do at fixed concurrency.

    Parameters
    ----------
    n_requests : of all users together
    think_s : from an answer to the user's next request
    """

    n_users: int
    lengths: Lengths
    n_requests: int
    think_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no loop."""
        _check_count(self.n_requests)
        if self.n_users < 1 or not (math.isfinite(self.think_s) and self.think_s >= 0):
            raise SpecError(
                f"{self.n_users} users who think {self.think_s} s: at least one user, and a time of at least 0"
            )

    def requests(self, seed: np.random.SeedSequence) -> Iterator[Arrival]:
        """The requests in the order they are sent; when that is, the system decides."""
        lengths = pairs_of(self.lengths, np.random.default_rng(children_of(seed, 1)[0]))
        for n_in, n_out in islice(lengths, self.n_requests):
            yield Arrival(arrival_s=0.0, input_tokens=n_in, output_tokens=n_out)


def _check_count(n_requests: int) -> None:
    if n_requests < 1:
        raise SpecError(f"{n_requests} requests: there is nothing to serve")


def children_of(seed: np.random.SeedSequence, n: int) -> list[np.random.SeedSequence]:
    """Children of a seed that do not depend on how often it was asked before."""
    return [np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, i)) for i in range(n)]


def pairs_of(lengths: Lengths, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Input and output tokens of one request after the other, without end."""
    while True:
        inputs, outputs = lengths.sample(rng, _CHUNK)
        yield from zip(inputs.tolist(), outputs.tolist(), strict=True)


def _urgencies(shares: tuple[float, ...], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.choice(len(shares), _CHUNK, p=shares).tolist()
