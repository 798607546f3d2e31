"""A published number beside ours, and tables of them."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Compared(BaseModel):
    """One number of a source and ours, in SI: `error` is ours / published - 1, of ratios ours - published."""

    model_config = STRICT
    id: str
    source: str
    group: str
    unit: Literal["s", "B", "tokens", "ratio"]
    published: float
    ours: float
    error: float


def compared(
    row_id: str, source: str, group: str, unit: Literal["s", "B", "tokens", "ratio"], published: float, ours: float
) -> Compared:
    """Put two numbers side by side.

    >>> round(compared("a", "Table 1", "", "s", 2.0, 2.1).error, 6)
    0.05
    """
    error = ours - published if unit == "ratio" else ours / published - 1.0
    return Compared(id=row_id, source=source, group=group, unit=unit, published=published, ours=ours, error=error)


class ErrorTable(BaseModel):
    """Predictions of published times, and how far off they are.

    Parameters
    ----------
    origin : what the prices rest on
    interval_log : half width of the fit's 90 % interval of ln(true / predicted); None where no fit speaks for these rows
    n_within : rows inside it
    """

    model_config = STRICT
    origin: str
    rows: tuple[Compared, ...]
    median_abs_error: float
    worst_abs_error: float
    interval_log: float | None
    n_within: int | None


def largest_error(rows: Sequence[Compared]) -> float:
    """The largest absolute error."""
    return max(abs(row.error) for row in rows)


def median_error(rows: Sequence[Compared]) -> float:
    """The median absolute error."""
    return median(abs(row.error) for row in rows)
