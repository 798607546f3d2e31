"""Decision quality: whether the configuration that is chosen by prediction is the best of those that were measured.

A user with a limit on the time per output token asks for the configuration of highest throughput a chip that keeps it. Among
the measured configurations of a task we choose by the predictions; the measurements say which was best, and what the chosen
one really does.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .lengths import parse_number
from .measured_case import note_of
from .metrics import QuantityName, Target
from .score import ScoredRow, source_of
from .score_groups import grouped, task_of

# What tells one configuration of a task from another.
_CONFIGURATION = ("n_chips", "tp", "pp", "ep", "dp", "batch", "concurrency")
_QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a configuration does under its load."""

    tpot_s: float
    output_tokens_per_s_per_chip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A configuration as it was measured, and as it is predicted where it can be."""

    configuration: tuple[str, ...]
    tp: str
    measured: Speed
    predicted: Speed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The best measured configuration under a limit, and the one that is chosen by prediction."""

    limit_s: float
    best: Point
    chosen: Point

    @property
    def missed(self) -> bool:
        """Whether the chosen one was measured to be over the limit."""
        return self.chosen.measured.tpot_s > self.limit_s

    @property
    def reached(self) -> float:
        """Measured throughput of the chosen one over that of the best."""
        of = (self.chosen.measured, self.best.measured)
        return of[0].output_tokens_per_s_per_chip / of[1].output_tokens_per_s_per_chip


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The configurations measured for a task, of which at least one is predicted, and a decision for each limit."""

    source: str
    model: str
    hardware: str
    points: tuple[Point, ...]
    decisions: tuple[Decision, ...]

    @property
    def has_several_tp(self) -> bool:
        """Whether there is a tensor parallel degree to choose."""
        return len({point.tp for point in self.points}) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionScore:
    """Decisions summed up, as shares of them; None where there are none of the kind.

    Parameters
    ----------
    same_tp : the chosen configuration has the degree of the best one; of tasks where there are several
    same_point : it is the best one
    missed : it was measured over the limit
    reached : mean of its throughput over the best one's, of choices that keep the limit
    """

    tasks: int
    decisions: int
    same_tp: float | None
    same_point: float | None
    missed: float | None
    reached: float | None


def find_tasks(scored: Sequence[ScoredRow]) -> list[Task]:
    """Tasks with two measured configurations or more, by the rows of TPOT and TTFT that have a concurrency."""
    rows = [row for row in scored if row.value is not None and parse_number(row.row.get("concurrency", ""))]
    found = []
    for task in grouped(rows, lambda item: (*task_of(item.row), note_of(item.row, "mode") or "")).values():
        points = tuple(_points(task))
        if len(points) > 1 and any(point.predicted is not None for point in points):
            row = task[0].row
            found.append(
                Task(
                    source=source_of(row),
                    model=row.get("model", "").strip(),
                    hardware=row.get("hardware", "").strip(),
                    points=points,
                    decisions=tuple(decide(points, limit_s) for limit_s in limits(points)),
                )
            )
    return found


def limits(points: Sequence[Point]) -> list[float]:
    """Limits at the quarters of the measured TPOTs, each halfway to the next one, so that none is met by a hair."""
    times = sorted({point.measured.tpot_s for point in points})
    gaps = list(pairwise(times))
    chosen = {math.floor(quarter * len(gaps)) for quarter in _QUARTERS} if gaps else set()
    return [sum(gaps[i]) / 2.0 for i in sorted(chosen)]


def decide(points: Sequence[Point], limit_s: float) -> Decision:
    """Choose the highest predicted throughput a chip among those predicted to keep the limit, else the lowest TPOT."""
    predicted = [(point, point.predicted) for point in points if point.predicted is not None]
    kept = [(point, speed) for point, speed in predicted if speed.tpot_s <= limit_s]
    if kept:
        chosen, _ = max(kept, key=lambda pair: pair[1].output_tokens_per_s_per_chip)
    else:
        chosen, _ = min(predicted, key=lambda pair: pair[1].tpot_s)
    allowed = [point for point in points if point.measured.tpot_s <= limit_s]
    best = max(allowed, key=lambda point: point.measured.output_tokens_per_s_per_chip)
    return Decision(limit_s=limit_s, best=best, chosen=chosen)


def decision_score(tasks: Sequence[Task]) -> DecisionScore:
    """Every decision of the tasks counts alike."""
    made = [decision for task in tasks for decision in task.decisions]
    open_tp = [decision for task in tasks if task.has_several_tp for decision in task.decisions]
    kept = [decision.reached for decision in made if not decision.missed]

    def share(of: Sequence[Decision], what: Callable[[Decision], bool]) -> float | None:
        return statistics.fmean(map(what, of)) if of else None

    return DecisionScore(
        tasks=len(tasks),
        decisions=len(made),
        same_tp=share(open_tp, lambda decision: decision.chosen.tp == decision.best.tp),
        same_point=share(made, lambda decision: decision.chosen == decision.best),
        missed=share(made, lambda decision: decision.missed),
        reached=statistics.fmean(kept) if kept else None,
    )


def scores_by_model(tasks: Sequence[Task]) -> dict[tuple[str, str], DecisionScore]:
    """The same by source and model, in order."""
    keys = dict.fromkeys((task.source, task.model) for task in tasks)
    return {key: decision_score([task for task in tasks if (task.source, task.model) == key]) for key in keys}


def _points(rows: Sequence[ScoredRow]) -> Iterator[Point]:
    """Configurations of a task; of several measurements of one, the medians."""

    def configuration(item: ScoredRow) -> tuple[str, ...]:
        given = (item.row.get(name, "").strip() for name in _CONFIGURATION)
        return (*given, note_of(item.row, "moe_tp") or "")

    for key, same in grouped(rows, configuration).items():
        measured = _speed(same[0].row, _seconds(same, lambda row: row.value))
        predicted = _speed(same[0].row, _seconds(same, _predicted))
        if measured is not None:
            yield Point(configuration=key, tp=same[0].row.get("tp", "").strip(), measured=measured, predicted=predicted)


def _predicted(row: ScoredRow) -> float | None:
    return None if row.prediction is None else row.prediction.predicted


def _seconds(rows: Sequence[ScoredRow], figure: Callable[[ScoredRow], float | None]) -> Mapping[QuantityName, float]:
    """Median TTFT and TPOT of equal configurations, of rows that are means over the requests."""
    found: dict[QuantityName, list[float]] = {}
    for row in rows:
        number = figure(row)
        if number is not None and isinstance(row.target, Target) and row.target.statistic == "mean":
            found.setdefault(row.target.metric.quantity, []).append(number * row.target.factor)
    return {name: statistics.median(values) for name, values in found.items()}


def _speed(row: Mapping[str, str], seconds: Mapping[QuantityName, float]) -> Speed | None:
    r"""TPOT, and the throughput of a closed loop by Little's law.

    .. math:: X = \frac{U N}{C\,(T_1 + (N - 1)\,T_o)}

    U users, N output tokens, C chips, T_1 time to first token, T_o time per output token. Where T_1 is not known or N is no
    number it is U / (C T_o).
    """
    tpot_s, ttft_s = seconds.get("tpot_s"), seconds.get("ttft_s")
    n_users, n_out = (parse_number(row.get(name, "")) for name in ("concurrency", "output_len"))
    n_chips = _n_chips(row)
    if tpot_s is None or not n_users or not n_chips:
        return None
    a_token_s = tpot_s if ttft_s is None or not n_out else (ttft_s + (n_out - 1.0) * tpot_s) / n_out
    return Speed(tpot_s=tpot_s, output_tokens_per_s_per_chip=n_users / (n_chips * a_token_s))


def _n_chips(row: Mapping[str, str]) -> float:
    """Chips of the system, by its degrees where they are not stated; 0 where neither says."""
    tp, pp, dp, stated = (parse_number(row.get(name, "")) for name in ("tp", "pp", "dp", "n_chips"))
    return stated or (tp * (pp or 1.0) * (dp or 1.0) if tp else 0.0)
