"""Measured tables scored: every row predicted beside its measurement, and the errors by group."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..hardware_specs.errors import SpecError
from .lengths import parse_number
from .measured_case import MeasuredCase, parse_case
from .metrics import Outcome, Prediction, parse_target

Predictor = Callable[[MeasuredCase], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """A row with its prediction in its own unit, or the reason there is none.

    `error` is predicted / value - 1; None where there is no prediction or no value to compare it with.
    """

    row: Mapping[str, str]
    prediction: Prediction | None
    error: float | None
    reason: str

    @property
    def inside(self) -> bool | None:
        """Whether the measured value lies in the interval; an end that is missing is open."""
        if self.error is None or self.prediction is None:
            return None
        value = self.prediction.predicted / (1.0 + self.error)
        low = -math.inf if self.prediction.low is None else self.prediction.low
        high = math.inf if self.prediction.high is None else self.prediction.high
        return low <= value <= high

    def added(self) -> tuple[str, str, str, str, str]:
        """What is written beside the row: predicted, low, high, error, reason."""
        made = self.prediction
        numbers = (None,) * 3 if made is None else (made.predicted, made.low, made.high)
        predicted, low, high, error = ("" if x is None else f"{x:.6g}" for x in (*numbers, self.error))
        return predicted, low, high, error, self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """Errors of the rows of one source, model, hardware and metric; None where no row has both figures.

    `bias` is the median error with its sign, `inside` the share of rows whose value lies in the interval.
    """

    source: str
    model: str
    hardware: str
    metric: str
    rows: int
    predicted: int
    median_abs_error: float | None
    mean_abs_error: float | None
    bias: float | None
    inside: float | None


def score(
    cases: Iterable[Mapping[str, str]], predict: Predictor, *, advance: Callable[[], None] = lambda: None
) -> list[ScoredRow]:
    """Predict every row of a measured table, in order.

    Parameters
    ----------
    cases : rows by column name, as text
    predict : answers a case, or raises SpecError with the reason it cannot; asked once for equal cases
    advance : called after every row
    """
    known: dict[MeasuredCase, Outcome | SpecError] = {}
    scored = []
    for row in cases:
        scored.append(_score_row(row, predict, known))
        advance()
    return scored


def _score_row(row: Mapping[str, str], predict: Predictor, known: dict[MeasuredCase, Outcome | SpecError]) -> ScoredRow:
    try:
        target = parse_target(row.get("metric", ""), row.get("unit", ""))
        case = parse_case(row, target.metric)
        prediction = target.read(_ask(case, predict, known))
    except SpecError as reason:
        return ScoredRow(row=row, prediction=None, error=None, reason=" ".join(str(reason).split()))
    value, complaint = _value(row.get("value", ""))
    error = None if value is None else prediction.predicted / value - 1.0
    return ScoredRow(row=row, prediction=prediction, error=error, reason=complaint)


def _ask(case: MeasuredCase, predict: Predictor, known: dict[MeasuredCase, Outcome | SpecError]) -> Outcome:
    if case not in known:
        try:
            known[case] = predict(case)
        except SpecError as reason:
            known[case] = reason
    answer = known[case]
    if isinstance(answer, SpecError):
        raise answer
    return answer


def _value(text: str) -> tuple[float | None, str]:
    """The measured value, or a word on why there is no error."""
    if not text.strip():
        return None, ""
    value = parse_number(text)
    if value is None or not math.isfinite(value) or value <= 0:
        return None, f"value {text!r} is no positive number, so there is no error"
    return value, ""


def group_scores(scored: Sequence[ScoredRow]) -> list[GroupScore]:
    """Errors by source (or framework), model, hardware and metric, the worst median first."""
    groups: dict[tuple[str, str, str, str], list[ScoredRow]] = {}
    for item in scored:
        row = item.row
        source = row.get("source", "").strip() or row.get("framework", "").strip()
        model, hardware, metric = (row.get(name, "").strip() for name in ("model", "hardware", "metric"))
        key = (source, model, hardware, metric)
        groups.setdefault(key, []).append(item)
    made = [_group(key, rows) for key, rows in groups.items()]
    return sorted(made, key=lambda g: -math.inf if g.median_abs_error is None else g.median_abs_error, reverse=True)


def total_score(scored: Sequence[ScoredRow]) -> GroupScore:
    """Errors of all rows together."""
    return _group(("", "", "", ""), scored)


def _group(key: tuple[str, str, str, str], rows: Sequence[ScoredRow]) -> GroupScore:
    errors = [row.error for row in rows if row.error is not None]
    inside = [row.inside for row in rows if row.inside is not None]
    sizes = [abs(error) for error in errors]
    source, model, hardware, metric = key
    return GroupScore(
        source=source,
        model=model,
        hardware=hardware,
        metric=metric,
        rows=len(rows),
        predicted=sum(row.prediction is not None for row in rows),
        median_abs_error=statistics.median(sizes) if sizes else None,
        mean_abs_error=statistics.fmean(sizes) if sizes else None,
        bias=statistics.median(errors) if errors else None,
        inside=statistics.fmean(inside) if inside else None,
    )


def count_reasons(scored: Sequence[ScoredRow]) -> dict[str, int]:
    """The reasons of the rows without a prediction, the commonest first."""
    return dict(Counter(row.reason for row in scored if row.prediction is None).most_common())
