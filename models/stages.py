"""Which layers a pipeline stage holds."""

from itertools import pairwise


def stage_layers(n_layers: int, pp: int) -> tuple[range, ...]:
    """The layers of each stage; the first stages have one more where they do not divide.

    >>> stage_layers(5, 2)
    (range(0, 3), range(3, 5))
    """
    whole, more = divmod(n_layers, pp)
    starts = [stage * whole + min(stage, more) for stage in range(pp + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(starts))
