"""Requests that wait for a replica, in their scheduler's order."""

import heapq

from .policies import Order
from .request import Request


class WaitingQueue:
    """A queue by a key; requests of equal keys go by their place in the order of arrival.

    Parameters
    ----------
    order : the key
    """

    __slots__ = ("_heap", "_order")

    def __init__(self, order: Order) -> None:
        self._order = order
        self._heap: list[tuple[tuple[float, ...], int, Request]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, request: Request, *, behind: bool = False) -> None:
        """A request begins to wait; `behind` all that are not."""
        key = self._order(request)
        heapq.heappush(self._heap, ((float(behind), *key), request.index, request))

    @property
    def head(self) -> Request:
        """Who is next."""
        return self._heap[0][2]

    @property
    def head_is_behind(self) -> bool:
        """Whether all that wait were put behind."""
        return self._heap[0][0][0] > 0.0

    def pop(self) -> Request:
        """Take the next."""
        return heapq.heappop(self._heap)[2]

    def remove(self, request: Request) -> bool:
        """Take one out of the middle; whether it was here."""
        left = [entry for entry in self._heap if entry[2] is not request]
        found = len(left) < len(self._heap)
        if found:
            heapq.heapify(left)
            self._heap = left
        return found

    def drain(self) -> list[Request]:
        """Take all, in order."""
        return [self.pop() for _ in range(len(self))]
