"""One request as it comes in, and what gives a stream of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request on its way to the system.

    Parameters
    ----------
    arrival_s : seconds since the start of the traffic, at least 0; streams yield them in order
    input_tokens, output_tokens : both at least 1
    block_hashes : what the prompt's leading blocks of `block_tokens` tokens hold; equal hashes are equal prefixes
    priority : smaller is more urgent
    task : requests of one task have one number; -1 is a task of its own
    stage : a request waits until all of its task's earlier stages are answered; later stages follow the first in the stream
    delay_s : what happens before the system sees it and counts as waiting: an encoder's pass, say
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    block_tokens: int = 0
    priority: int = 0
    task: int = -1
    stage: int = 0
    delay_s: float = 0.0


class Traffic(Protocol):
    """An open stream of requests: it does not wait for answers.

    `n_requests` is None where it is not known before the end.
    """

    @property
    def n_requests(self) -> int | None:
        """How many requests will come."""
        ...

    def arrivals(self, seed: np.random.SeedSequence) -> Iterator[Arrival]:
        """The requests in order of arrival; one seed gives one stream, recorded traffic ignores it."""
        ...
