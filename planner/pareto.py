"""The candidates nothing beats on two counts at once."""

import numpy as np
from numpy.typing import NDArray


def pareto_indices(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the points that no other is at least as low as in both and lower in one, by rising `first`.

    >>> pareto_indices(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 4.0])).tolist()
    [0, 2]
    """
    order = np.lexsort((second, first))
    lowest = np.minimum.accumulate(second[order])
    keep = np.concatenate(([True], second[order][1:] < lowest[:-1])) if len(order) else np.zeros(0, bool)
    return order[keep]
