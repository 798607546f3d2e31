"""What a simulation writes down: a row a request, and the state of the system over time."""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from .request import Outcome, Request

OUTCOMES: tuple[Outcome, ...] = ("finished", "rejected", "lost", "unfinished")
_MOST_SAMPLES = 4096


def _integers() -> "array[int]":
    return array("q")


def _reals() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Rows:
    """Columns of the requests in the order they left the system."""

    index: "array[int]" = field(default_factory=_integers)
    arrival_s: "array[float]" = field(default_factory=_reals)
    scheduled_s: "array[float]" = field(default_factory=_reals)
    first_token_s: "array[float]" = field(default_factory=_reals)
    finish_s: "array[float]" = field(default_factory=_reals)
    prompt_tokens: "array[int]" = field(default_factory=_integers)
    output_tokens: "array[int]" = field(default_factory=_integers)
    output_done: "array[int]" = field(default_factory=_integers)
    cached_prompt_tokens: "array[int]" = field(default_factory=_integers)
    n_preemptions: "array[int]" = field(default_factory=_integers)
    n_restarts: "array[int]" = field(default_factory=_integers)
    replica: "array[int]" = field(default_factory=_integers)
    priority: "array[int]" = field(default_factory=_integers)
    task: "array[int]" = field(default_factory=_integers)
    outcome: "array[int]" = field(default_factory=_integers)


ROW_COLUMNS = tuple(Rows.__dataclass_fields__)
_FROM_REQUEST = tuple(name for name in ROW_COLUMNS if name != "outcome")
_VALUES = attrgetter(*_FROM_REQUEST)


@dataclass(slots=True)
class Series:
    """Samples of the system's state, at least `spacing_s` apart; thinned and spaced wider as they grow many."""

    time_s: list[float] = field(default_factory=list)
    n_waiting: list[int] = field(default_factory=list)
    n_running: list[int] = field(default_factory=list)
    used_pages: list[int] = field(default_factory=list)
    n_replicas: list[int] = field(default_factory=list)
    spacing_s: float = 0.0

    def is_due(self, now_s: float) -> bool:
        """Whether it is time for another sample."""
        return not self.time_s or now_s >= self.time_s[-1] + self.spacing_s

    def add(self, now_s: float, n_waiting: int, n_running: int, used_pages: int, n_replicas: int) -> None:
        """Take a sample."""
        self.time_s.append(now_s)
        self.n_waiting.append(n_waiting)
        self.n_running.append(n_running)
        self.used_pages.append(used_pages)
        self.n_replicas.append(n_replicas)
        if len(self.time_s) > _MOST_SAMPLES:
            for column in (self.time_s, self.n_waiting, self.n_running, self.used_pages, self.n_replicas):
                del column[1::2]
            self.spacing_s = (self.time_s[-1] - self.time_s[0]) / (_MOST_SAMPLES / 2)


@dataclass(slots=True, kw_only=True)
class Recorder:
    """Rows, samples and counts of one run."""

    rows: Rows = field(default_factory=Rows)
    series: Series = field(default_factory=Series)
    reasons: Counter[str] = field(default_factory=Counter)
    n_failures: int = 0
    _appends: list[Callable[[Any], None]] = field(init=False)

    def __post_init__(self) -> None:
        """Look the columns up once, not for every request."""
        self._appends = [getattr(self.rows, name).append for name in _FROM_REQUEST]

    def leave(self, request: Request, outcome: Outcome) -> None:
        """A request leaves the system."""
        for append, value in zip(self._appends, _VALUES(request), strict=True):
            append(value)
        self.rows.outcome.append(OUTCOMES.index(outcome))
