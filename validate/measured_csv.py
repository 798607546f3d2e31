"""Tables of measured cases as CSV: read as text, written back as it was with the predictions beside it."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..hardware_specs.documents import write_atomically
from ..hardware_specs.errors import SpecError

REQUIRED_COLUMNS = ("model", "hardware", "metric", "unit")
ADDED_COLUMNS = ("predicted", "low", "high", "error", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTable:
    """Columns and rows as they were written; columns that scoring adds are left out, to be made anew."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def read_measured(path: Path) -> MeasuredTable:
    """Read a table of measured cases.

    Raises
    ------
    SpecError : no such file, no CSV in UTF-8, a column missing or twice, a row with too few or too many fields
    """
    lines = _read_lines(path)
    if not lines:
        raise SpecError(f"{path} is empty; it must have the columns {', '.join(REQUIRED_COLUMNS)}")
    header = [name.strip() for name in lines[0][1]]
    missing = [name for name in REQUIRED_COLUMNS if name not in header]
    if missing:
        raise SpecError(f"{path} has no column {', '.join(missing)}; it must have {', '.join(REQUIRED_COLUMNS)}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SpecError(f"{path} has the column {', '.join(map(repr, twice))} twice")
    rows = []
    for number, fields in lines[1:]:
        if len(fields) != len(header):
            raise SpecError(f"{path}, line {number}: {len(fields)} fields, but the header has {len(header)}")
        rows.append({name: text for name, text in zip(header, fields, strict=True) if name not in ADDED_COLUMNS})
    columns = tuple(name for name in header if name not in ADDED_COLUMNS)
    return MeasuredTable(path=path, columns=columns, rows=tuple(rows))


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The fields of every line that has any, with the number it ends at."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, fields) for fields in reader if fields]
    except FileNotFoundError:
        raise SpecError(f"no file {path}") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder; name a CSV file in it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path} cannot be read as CSV: {error}") from None


def write_scored(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
