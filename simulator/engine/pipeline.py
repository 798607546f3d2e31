"""Pipeline stages that passes go through one behind the other."""

from collections.abc import Sequence


class Pipeline:
    """When a pass that begins now is through.

    A stage takes its share of a pass and works on one pass at a time, so a pass waits where a longer one is ahead of it:
    these are the bubbles.

    Parameters
    ----------
    shares : share of a pass that each stage takes; they sum to 1
    """

    def __init__(self, shares: Sequence[float]) -> None:
        self._shares = tuple(shares)
        self._free_s = [0.0] * len(self._shares)

    def book(self, now_s: float, pass_s: float) -> float:
        """Enter a pass of `pass_s` seconds; the time it leaves the last stage.

        >>> pipe = Pipeline([0.5, 0.5])
        >>> pipe.book(0.0, 4.0), pipe.book(0.0, 2.0)
        (4.0, 5.0)
        """
        if len(self._shares) == 1:
            return now_s + pass_s
        at = now_s
        for stage, share in enumerate(self._shares):
            at = self._free_s[stage] = max(at, self._free_s[stage]) + share * pass_s
        return at
