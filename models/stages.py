"""Which layers a pipeline stage holds, and what depends on how many stages there are."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np

from .types import Array


def stage_layers(n_layers: int, pp: int) -> tuple[range, ...]:
    """The layers of each stage; the first stages have one more where they do not divide.

    >>> stage_layers(5, 2)
    (range(0, 3), range(3, 5))
    """
    whole, more = divmod(n_layers, pp)
    starts = [stage * whole + min(stage, more) for stage in range(pp + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(starts))


@cache
def stage_kinds(layers: tuple[str, ...], pp: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """The distinct stages, each as its kinds of layer and how many of each it has.

    >>> stage_kinds(("dense", "experts", "experts", "experts"), 2)
    ((('dense', 1), ('experts', 1)), (('experts', 2),))
    """
    held = (Counter(layers[stage.start : stage.stop]) for stage in stage_layers(len(layers), pp))
    return tuple(sorted({tuple(sorted(counts.items())) for counts in held}))


def is_staged(pp: Array) -> bool:
    """Whether there are several stages: for all candidates of a call, or for none, since one stage runs another program."""
    staged = np.greater(pp, 1)
    assert np.all(staged) or not np.any(staged), "candidates of one stage and of several run two programs"
    return bool(np.any(staged))


def by_stages(pp: Array, value: Callable[[int], Array]) -> Array:
    """What each candidate has by its number of stages, which `value` knows for one number.

    >>> by_stages(np.array([1, 2, 1]), lambda n: 10.0 * n).tolist()
    [10.0, 20.0, 10.0]
    """
    counts = np.unique(pp).tolist()
    made = value(int(counts[0]))
    for n in counts[1:]:
        made = np.where(np.equal(pp, n), value(int(n)), made)
    return made
