"""Measured tables scored: every row predicted beside its measurement."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..hardware_specs.errors import SpecError
from .kernel_cases import (
    KernelSeconds,
    KernelTarget,
    is_kernel_row,
    parse_kernel_case,
    parse_kernel_target,
)
from .lengths import parse_number
from .measured_case import parse_case
from .metrics import Outcome, Prediction, Target, parse_target
from .score_jobs import Answer, Case, Predictor, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """A row with its prediction in its own unit, or the reason there is none.

    `target` is None where the metric is not one that is predicted; `value` where nothing was measured to compare with.
    """

    row: Mapping[str, str]
    target: Target | KernelTarget | None
    prediction: Prediction | None
    value: float | None
    reason: str

    @property
    def error(self) -> float | None:
        """Predicted / value - 1; None where one of them is missing."""
        if self.prediction is None or self.value is None:
            return None
        return self.prediction.predicted / self.value - 1.0

    @property
    def inside(self) -> bool | None:
        """Whether the measured value lies in the interval; an end that is missing is open."""
        if self.value is None or self.prediction is None:
            return None
        low = -math.inf if self.prediction.low is None else self.prediction.low
        high = math.inf if self.prediction.high is None else self.prediction.high
        return low <= self.value <= high

    @property
    def width(self) -> float | None:
        """Width of the interval over the prediction; infinite where an end is open."""
        made = self.prediction
        if made is None:
            return None
        if made.low is None or made.high is None or not made.predicted:
            return math.inf
        return (made.high - made.low) / made.predicted

    def added(self) -> tuple[str, str, str, str, str]:
        """What is written beside the row: predicted, low, high, error, reason."""
        made = self.prediction
        numbers = (None,) * 3 if made is None else (made.predicted, made.low, made.high)
        predicted, low, high, error = ("" if x is None else f"{x:.6g}" for x in (*numbers, self.error))
        return predicted, low, high, error, self.reason


def source_of(row: Mapping[str, str]) -> str:
    """Who measured a row; its framework where it does not say."""
    return row.get("source", "").strip() or row.get("framework", "").strip()


def score(
    cases: Iterable[Mapping[str, str]],
    predict: Predictor,
    *,
    jobs: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> list[ScoredRow]:
    """Predict every row of a measured table, in order; the same whatever `jobs` is.

    Parameters
    ----------
    cases : rows by column name, as text
    predict : answers a case, or raises SpecError with the reason it cannot; asked once for equal cases
    jobs : processes that predict side by side; with more than one, `predict` must be a function of a module
    advance : called for every row that is done
    """
    read = [(row, *_read(row)) for row in cases]
    n_rows = Counter(case for _, _, case in read if not isinstance(case, SpecError))
    for _ in range(len(read) - n_rows.total()):
        advance()
    known: dict[Case, Answer] = {}
    for case, answer in answers(list(n_rows), predict, jobs=jobs):
        known[case] = answer
        for _ in range(n_rows[case]):
            advance()
    return [_scored(row, target, case if isinstance(case, SpecError) else known[case]) for row, target, case in read]


def _read(row: Mapping[str, str]) -> tuple[Target | KernelTarget | None, Case | SpecError]:
    """What a row measured, and of what; or why it cannot be predicted."""
    target = None
    try:
        if is_kernel_row(row):
            case = parse_kernel_case(row)
            return parse_kernel_target(row, case.kernel), case
        target = parse_target(row.get("metric", ""), row.get("unit", ""))
        return target, parse_case(row, target.metric)
    except SpecError as reason:
        return target, reason


def _scored(row: Mapping[str, str], target: Target | KernelTarget | None, answer: Answer) -> ScoredRow:
    prediction, reason = None, ""
    value, complaint = _value(row.get("value", ""))
    if isinstance(answer, SpecError):
        reason = str(answer)
    elif target is not None:
        try:
            prediction, reason = _told(target, answer), complaint
        except SpecError as refusal:
            reason = str(refusal)
    reason = " ".join(reason.split())
    return ScoredRow(row=row, target=target, prediction=prediction, value=value, reason=reason)


def _told(target: Target | KernelTarget, answer: Outcome | KernelSeconds) -> Prediction:
    """What an answer says in the unit of a row; both are of a kernel, or both of a system."""
    if isinstance(target, KernelTarget):
        assert isinstance(answer, KernelSeconds)
        return target.read(answer)
    assert isinstance(answer, Outcome)
    return target.read(answer)


def _value(text: str) -> tuple[float | None, str]:
    """The measured value, or a word on why there is no error."""
    if not text.strip():
        return None, ""
    value = parse_number(text)
    if value is None or not math.isfinite(value) or value <= 0:
        return None, f"value {text!r} is no positive number, so there is no error"
    return value, ""


def count_reasons(scored: Sequence[ScoredRow]) -> dict[str, int]:
    """The reasons of the rows without a prediction, the commonest first."""
    return dict(Counter(row.reason for row in scored if row.prediction is None).most_common())
