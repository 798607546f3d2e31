"""The distribution of the time between tokens, without keeping each."""

import math

import numpy as np
from numpy.typing import NDArray

# Bins are this factor apart: a percentile is right to half a percent.
_RATIO = 1.01
_LOG_RATIO = math.log(_RATIO)
_SHORTEST_S = 1e-7
_N_BINS = int(math.log(1e5 / _SHORTEST_S) / _LOG_RATIO)


class GapHistogram:
    """Counts of gaps in logarithmic bins, and their exact sum."""

    __slots__ = ("_counts", "n", "sum_s")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all gaps so far."""
        self._counts = [0.0] * (_N_BINS + 1)
        self.n = 0
        self.sum_s = 0.0

    def add(self, gap_s: float, count: int) -> None:
        """Record `count` gaps of one length."""
        if count <= 0:
            return
        self.n += count
        self.sum_s += gap_s * count
        self._counts[_bin(gap_s)] += count

    def add_range(self, shortest_s: float, longest_s: float, count: int, total_s: float, sequences: int) -> None:
        """Record `count` gaps spread evenly between two lengths: steps that grow with the context.

        Parameters
        ----------
        total_s, sequences : sum of the steps, and the sequences that each of them is a gap of
        """
        if count <= 0:
            return
        self.n += count
        self.sum_s += total_s * sequences
        first, last = _bin(shortest_s), _bin(longest_s)
        if first == last:
            self._counts[first] += count
            return
        for i in range(first, last + 1):
            low = max(shortest_s, _SHORTEST_S * _RATIO**i)
            high = min(longest_s, _SHORTEST_S * _RATIO ** (i + 1))
            self._counts[i] += count * (high - low) / (longest_s - shortest_s)

    @property
    def mean_s(self) -> float:
        """Mean gap; NaN where there is none."""
        return self.sum_s / self.n if self.n else math.nan

    @property
    def std_s(self) -> float:
        """Spread of the gaps, each taken as the middle of its bin; NaN where there is none."""
        if not self.n:
            return math.nan
        middles = _SHORTEST_S * _RATIO ** (np.arange(len(self._counts)) + 0.5)
        return float(np.sqrt(np.average((middles - self.mean_s) ** 2, weights=self._counts)))

    def quantile_s(self, share: float) -> float:
        """The gap that `share` of all gaps do not exceed; NaN where there is none."""
        if not self.n:
            return math.nan
        total = np.cumsum(self._counts)
        i = int(np.searchsorted(total, share * total[-1]))
        return _SHORTEST_S * _RATIO ** (i + 0.5) if i else 0.0

    @property
    def counts(self) -> NDArray[np.float64]:
        """Gaps in each bin."""
        return np.array(self._counts)


def _bin(gap_s: float) -> int:
    """The bin of a gap; the first holds all that are shorter than can be told apart."""
    if gap_s <= _SHORTEST_S:
        return 0
    return min(int(math.log(gap_s / _SHORTEST_S) / _LOG_RATIO), _N_BINS)
