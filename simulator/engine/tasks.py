"""Tasks of several requests: which of them wait for answers to the ones before."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from ..workload.arrival import Arrival
from .request import Request


class Tasks:
    """Requests of each task that are in the system, and its later stages that are not yet.

    Parameters
    ----------
    waiting : later stages of each task, in order
    """

    def __init__(self) -> None:
        self.waiting: dict[int, list[Arrival]] = {}
        self._outstanding: Counter[int] = Counter()

    def must_wait(self, arrival: Arrival) -> bool:
        """Keep a request of a later stage back; False where nothing before it is under way, so that it may enter."""
        if not self._outstanding[arrival.task] and arrival.task not in self.waiting:
            return False
        self.waiting.setdefault(arrival.task, []).append(arrival)
        return True

    def enter(self, request: Request) -> None:
        """A request comes into the system."""
        if request.task >= 0:
            self._outstanding[request.task] += 1

    def leave(self, request: Request) -> Sequence[Arrival]:
        """A request is answered or given up; what may come in now."""
        task = request.task
        if task < 0:
            return ()
        self._outstanding[task] -= 1
        if self._outstanding[task] or task not in self.waiting:
            return ()
        held = self.waiting[task]
        ready = list(takewhile(lambda arrival: arrival.stage == held[0].stage, held))
        self.waiting[task] = held[len(ready) :]
        if not self.waiting[task]:
            del self.waiting[task]
        return ready
