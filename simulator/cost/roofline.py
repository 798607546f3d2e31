"""Time of one op on one chip."""

import numpy as np

from ...models.sizes import Array


def roofline_time_s(flop: Array, moved_bytes: Array, flop_per_s: Array, bytes_per_s: Array) -> Array:
    r"""Time of an op that overlaps compute and memory traffic perfectly.

    .. math:: t = \max(F / \pi,\; Q / \beta)

    Parameters
    ----------
    flop : (...) multiply and add counted apart (a matmul is 2mkn)
    moved_bytes : (...) HBM traffic, reads plus writes; broadcasts with `flop`
    flop_per_s : rate reached by matmuls of this format
    bytes_per_s : HBM rate reached

    Notes
    -----
    A bound, not a prediction, where the rates are peaks: launch cost and wave quantisation are left out.

    References
    ----------
    [Williams2009] Williams, Waterman, Patterson, "Roofline", CACM 52(4):65-76, 2009.

    Examples
    --------
    >>> float(roofline_time_s(2e12, 1e9, flop_per_s=1e15, bytes_per_s=2e12))
    0.002
    """
    return np.maximum(np.divide(flop, flop_per_s), np.divide(moved_bytes, bytes_per_s))
