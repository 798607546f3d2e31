"""A measured number with everything needed to doubt it: the one row type of every bench."""

import csv
import io
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import SpecError


class Measurement(BaseModel):
    """One measured quantity: percentiles over repeats, in SI, and where and how it came about.

    Parameters
    ----------
    quantity, unit : what was measured, e.g. ``fp32 matmul`` in ``flop/s``
    shape : size of the case, in the bench's own words
    p20, p50, p80 : percentiles over `n_repeats`
    device, software, command, commit, date : provenance
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    chip: str
    quantity: str
    unit: str
    shape: str
    p20: float = Field(gt=0)
    p50: float = Field(gt=0)
    p80: float = Field(gt=0)
    n_repeats: int = Field(ge=1)
    device: str
    software: str
    command: str
    commit: str
    date: str


def read_measurements(lines: Iterable[str], origin: str) -> tuple[Measurement, ...]:
    """Read rows from CSV; `origin` names the file in errors.

    Raises
    ------
    SpecError : a row that is no `Measurement`
    """
    reader = csv.DictReader(lines)
    missing = [name for name in Measurement.model_fields if name not in (reader.fieldnames or ())]
    if missing:
        raise SpecError(f"{origin} holds no measured rows: its header lacks {', '.join(missing)}")
    try:
        return tuple(Measurement.model_validate(row) for row in reader)
    except ValidationError as error:
        raise SpecError(f"{origin}: {error}") from error


def dump_measurements(rows: Iterable[Measurement]) -> str:
    """Rows as the CSV that `read_measurements` reads."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Measurement.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    return text.getvalue()


def write_measurements(rows: Iterable[Measurement], path: Path) -> None:
    """Write rows as CSV."""
    path.write_text(dump_measurements(rows), "utf-8")


def shipped_measurements(chip: str, pattern: str = "*.csv") -> tuple[Measurement, ...]:
    """Every measured row that ships for a chip, in files of that name."""
    folder = files(__package__) / "data" / "measured" / chip
    rows: list[Measurement] = []
    for path in sorted(folder.iterdir(), key=lambda p: p.name) if folder.is_dir() else ():
        if fnmatch(path.name, pattern):
            rows += read_measurements(path.read_text("utf-8").splitlines(), path.name)
    return tuple(rows)
