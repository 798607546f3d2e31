"""Routers as pure functions: which replica a request goes to."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ...hardware_specs.errors import UnknownNameError


class ReplicaView(Protocol):
    """What a router may know of a replica."""

    @property
    def n_outstanding(self) -> int:
        """Requests it has and has not answered."""
        ...

    @property
    def used_share(self) -> float:
        """Part of its cache that is in use."""
        ...


# A router picks a place among replicas, given the tokens of the prompt that each has cached, and a turn counter.
Router = Callable[[Sequence[ReplicaView], Sequence[int], int, np.random.Generator], int]


def round_robin(replicas: Sequence[ReplicaView], matched: Sequence[int], turn: int, rng: np.random.Generator) -> int:
    """Each in turn."""
    return turn % len(replicas)


def least_outstanding(
    replicas: Sequence[ReplicaView], matched: Sequence[int], turn: int, rng: np.random.Generator
) -> int:
    """The one with the fewest unanswered requests; of equals, each in turn."""
    return _least([replica.n_outstanding for replica in replicas], turn)


def least_kv(replicas: Sequence[ReplicaView], matched: Sequence[int], turn: int, rng: np.random.Generator) -> int:
    """The one whose cache is emptiest; of equals, the one with the fewest unanswered requests."""
    return _least([(replica.used_share, replica.n_outstanding) for replica in replicas], turn)


def prefix_aware(replicas: Sequence[ReplicaView], matched: Sequence[int], turn: int, rng: np.random.Generator) -> int:
    """The one that has most of the prompt, unless it is far busier than the least busy.

    Far is more than twice as many unanswered requests and eight: then the prompt is read anew where there is time for it.
    """
    busy = [replica.n_outstanding for replica in replicas]
    limit = 2 * min(busy) + 8
    return _least([(n > limit, -tokens, n) for n, tokens in zip(busy, matched, strict=True)], turn)


def power_of_two(replicas: Sequence[ReplicaView], matched: Sequence[int], turn: int, rng: np.random.Generator) -> int:
    """The less busy of two drawn at random.

    References
    ----------
    [Mitzenmacher2001]
    """
    if len(replicas) == 1:
        return 0
    first = int(rng.integers(len(replicas)))
    second = (first + 1 + int(rng.integers(len(replicas) - 1))) % len(replicas)
    return min(first, second, key=lambda i: replicas[i].n_outstanding)


def _least(keys: Sequence[Any], turn: int) -> int:
    """The place of the smallest key; among equals they take turns."""
    smallest = min(keys)
    equals = [i for i, key in enumerate(keys) if key == smallest]
    return equals[turn % len(equals)]


ROUTERS: dict[str, Router] = {
    "round-robin": round_robin,
    "least-outstanding": least_outstanding,
    "least-kv": least_kv,
    "prefix-aware": prefix_aware,
    "power-of-two": power_of_two,
}


def get_router(name: str) -> Router:
    """Find a router by name."""
    if name not in ROUTERS:
        raise UnknownNameError("router", name, ROUTERS)
    return ROUTERS[name]
