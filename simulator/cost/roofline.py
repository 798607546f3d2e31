"""Time of one step on one chip."""

import numpy as np

from ...models.types import Array


def step_time_s(compute_s: Array, memory_s: Array, comm_s: Array = 0.0, overhead_s: Array = 0.0) -> Array:
    r"""Time of a step that overlaps compute and memory traffic perfectly, and nothing else.

    .. math:: t = \max(F / \pi,\; Q / \beta) + t_{comm} + t_{fixed}

    Parameters
    ----------
    compute_s : (...) flop over the rate reached, multiply and add counted apart (a matmul is 2mkn)
    memory_s : (...) HBM traffic, reads plus writes, over the rate reached
    comm_s : (...) communication that is exposed
    overhead_s : (...) launches and hops

    Notes
    -----
    With peaks for rates and no fixed time it is the roofline: a bound, not a prediction.

    References
    ----------
    [Williams2009] Williams, Waterman, Patterson, "Roofline", CACM 52(4):65-76, 2009.

    Examples
    --------
    >>> float(step_time_s(2e12 / 1e15, 1e9 / 2e12))
    0.002
    """
    return np.maximum(compute_s, memory_s) + comm_s + overhead_s
