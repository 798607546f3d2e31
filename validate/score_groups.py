"""Errors of scored rows by group: how large, how sure, and whether configurations come out in the right order."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from ..hardware_specs.errors import SpecError
from .score import ScoredRow, source_of

DEFAULT_BY = ("source", "model", "hardware", "metric")
SHORT_BY = ("source", "metric")

# Rows that agree in these are configurations of one system for one task; they differ in chips, degrees, batch and load.
_SAME_TASK = (
    "model",
    "hardware",
    "weights_dtype",
    "kv_dtype",
    "framework",
    "framework_version",
    "input_len",
    "output_len",
)
# Fewer configurations have no order worth a correlation.
_LEAST_RANKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """Errors of the rows that agree in some columns; None where no row has what a figure is made of.

    Parameters
    ----------
    names : the columns and what they hold
    bias : median of the errors with their sign
    inside : share of rows whose value lies in the interval
    width : median of (high - low) / predicted; infinite where most intervals are open
    rank : Spearman's correlation of predicted and measured over the configurations of one task, mean over the tasks
    """

    names: Mapping[str, str]
    rows: int
    predicted: int
    median_abs_error: float | None
    mean_abs_error: float | None
    bias: float | None
    inside: float | None
    width: float | None
    rank: float | None

    def to_json(self) -> dict[str, object]:
        """Flat; an open interval has no width."""
        width = self.width if self.width is not None and math.isfinite(self.width) else None
        return {
            **self.names,
            "rows": self.rows,
            "predicted": self.predicted,
            "median_abs_error": self.median_abs_error,
            "mean_abs_error": self.mean_abs_error,
            "bias": self.bias,
            "inside": self.inside,
            "width": width,
            "rank": self.rank,
        }


def parse_by(text: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Columns to group by, from text like ``source,metric``.

    Raises
    ------
    SpecError : a column that the table does not have

    >>> parse_by("metric, source", ["model", "metric"])
    ('metric', 'source')
    """
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in (*columns, "source")]
    if unknown:
        raise SpecError(f"no column {', '.join(map(repr, unknown))} to group by; known: {', '.join(columns)}")
    return tuple(dict.fromkeys(names))


def group_scores(scored: Sequence[ScoredRow], by: Sequence[str] = DEFAULT_BY) -> list[GroupScore]:
    """Errors by the columns `by`, the worst median first."""

    def key(item: ScoredRow) -> tuple[str, ...]:
        return tuple(source_of(item.row) if name == "source" else item.row.get(name, "").strip() for name in by)

    made = [_group(dict(zip(by, found, strict=True)), rows) for found, rows in grouped(scored, key).items()]
    return sorted(made, key=lambda g: -math.inf if g.median_abs_error is None else g.median_abs_error, reverse=True)


def total_score(scored: Sequence[ScoredRow]) -> GroupScore:
    """Errors of all rows together."""
    return _group({}, scored)


def grouped(
    scored: Iterable[ScoredRow], key: Callable[[ScoredRow], tuple[str, ...]]
) -> dict[tuple[str, ...], list[ScoredRow]]:
    """Rows by a key, in order."""
    groups: dict[tuple[str, ...], list[ScoredRow]] = {}
    for item in scored:
        groups.setdefault(key(item), []).append(item)
    return groups


def task_of(row: Mapping[str, str]) -> tuple[str, ...]:
    """What the configurations of one task agree in: the source, the model, the chip, the lengths and the software."""
    return source_of(row), *(row.get(name, "").strip() for name in _SAME_TASK)


def _group(names: Mapping[str, str], rows: Sequence[ScoredRow]) -> GroupScore:
    errors = [row.error for row in rows if row.error is not None]
    inside = [row.inside for row in rows if row.inside is not None]
    widths = [row.width for row in rows if row.width is not None]
    sizes = [abs(error) for error in errors]
    return GroupScore(
        names=names,
        rows=len(rows),
        predicted=sum(row.prediction is not None for row in rows),
        median_abs_error=statistics.median(sizes) if sizes else None,
        mean_abs_error=statistics.fmean(sizes) if sizes else None,
        bias=statistics.median(errors) if errors else None,
        inside=statistics.fmean(inside) if inside else None,
        width=statistics.median(widths) if widths else None,
        rank=_rank(rows),
    )


def _rank(rows: Sequence[ScoredRow]) -> float | None:
    """Mean over the tasks of the rank correlation of their configurations."""
    tasks = grouped(rows, lambda item: (*task_of(item.row), item.row.get("metric", "").strip()))
    found = [correlation for task in tasks.values() if (correlation := _correlation(task)) is not None]
    return statistics.fmean(found) if found else None


def _correlation(rows: Sequence[ScoredRow]) -> float | None:
    """Spearman's correlation of predicted and measured; None where there is no order to compare."""
    pairs = [
        (row.prediction.predicted, row.value) for row in rows if row.prediction is not None and row.value is not None
    ]
    if len(pairs) < _LEAST_RANKED or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    predicted, measured = zip(*pairs, strict=True)
    return float(stats.spearmanr(predicted, measured).statistic)
