"""Recorded traffic: files of requests that came, as the field writes them."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.errors import SpecError, UnknownNameError
from .arrival import Arrival
from .trace_csv import CSV_FORMATS, csv_format, read_csv
from .trace_files import opened
from .trace_jsonl import JSONL_FORMATS, jsonl_format, read_jsonl
from .trace_results import TPOT_DEFINITIONS, read_results, result_format
from .trace_rows import BadRow, Row
from .trace_sharegpt import is_sharegpt, read_sharegpt

__all__ = ["FORMATS", "MeasuredRun", "Trace", "read_measured", "read_sharegpt", "read_trace"]

FORMATS: dict[str, Callable[[TextIO], Iterator[Row | BadRow]]] = {
    **{name: partial(read_csv, form) for name, form in CSV_FORMATS.items()},
    **{name: partial(read_jsonl, form) for name, form in JSONL_FORMATS.items()},
    **{name: partial(read_results, name) for name in TPOT_DEFINITIONS},
}
# Characters of a first line that are looked at; a prompt with its hashes takes some hundred thousand at most.
_LONGEST_LINE = 10_000_000


@dataclass(slots=True, kw_only=True)
class Trace:
    """Traffic from a file that is read while it is served; the first request comes at 0.

    Parameters
    ----------
    skip_bad_rows : leave out what is no request and count it, in place of stopping there
    limit : only so many requests, from the start
    rate_scale : requests come so many times as fast
    bad_rows : what the latest reading left out so far
    """

    path: Path
    format: str
    skip_bad_rows: bool = False
    limit: int | None = None
    rate_scale: float = 1.0
    bad_rows: list[BadRow] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Refuse an empty stream and speeds that are none."""
        if self.format not in FORMATS:
            raise UnknownNameError("trace format", self.format, FORMATS)
        if self.limit is not None and self.limit < 1:
            raise SpecError(f"{self.limit} requests of {self.path}: there is nothing to serve")
        if not (math.isfinite(self.rate_scale) and self.rate_scale > 0):
            raise SpecError(f"rate_scale={self.rate_scale} must be a positive number; 2 sends requests twice as fast")

    @property
    def n_requests(self) -> int | None:
        """None: how many rows are requests is known at the end."""
        return None

    @property
    def n_bad_rows(self) -> int:
        """How many rows the latest reading left out so far."""
        return len(self.bad_rows)

    def arrivals(self, seed: np.random.SeedSequence) -> Iterator[Arrival]:
        """The requests as they were recorded, whatever the seed.

        Raises
        ------
        SpecError : a row that is no request, unless they are skipped; no request at all
        """
        origin_s = None
        for row in self.rows():
            origin_s = row.time_s if origin_s is None else origin_s
            yield Arrival(
                arrival_s=(row.time_s - origin_s) / self.rate_scale,
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                block_hashes=row.block_hashes,
                block_tokens=row.block_tokens,
            )

    def rows(self) -> Iterator[Row]:
        """The requests with their times on the file's own clock, which never runs backwards."""
        self.bad_rows = []
        n, last_s = 0, -math.inf
        for row in self._read():
            if isinstance(row, BadRow):
                self._leave_out(row)
            elif row.time_s < last_s:
                self._leave_out(BadRow(row.place, f"it comes {last_s - row.time_s:.6g} s before the request above it"))
            else:
                n, last_s = n + 1, row.time_s
                yield row
                if n == self.limit:
                    return
        if not n:
            raise SpecError(
                f"{self.path} holds no request" + (f"; {self._tell(self.bad_rows[0])}" if self.bad_rows else "")
            )

    def _read(self) -> Iterator[Row | BadRow]:
        with opened(self.path) as lines:
            yield from FORMATS[self.format](lines)

    def _leave_out(self, row: BadRow) -> None:
        if not self.skip_bad_rows:
            raise SpecError(f"{self.path}, {self._tell(row)}; --skip-bad-rows leaves such rows out")
        self.bad_rows.append(row)

    def _tell(self, row: BadRow) -> str:
        is_line = self.format == "vllm-run" or self.format not in TPOT_DEFINITIONS
        return f"{'line' if is_line else 'request'} {row.place}: {row.reason}"


def read_trace(
    path: Path | str,
    *,
    format: str | None = None,
    skip_bad_rows: bool = False,
    limit: int | None = None,
    rate_scale: float = 1.0,
) -> Trace:
    """Recorded traffic from a file, plain or gzipped.

    Parameters
    ----------
    format : one of `FORMATS`; told by the header, the first line or the keys where it is None
    skip_bad_rows, limit, rate_scale : as in `Trace`

    Raises
    ------
    SpecError : no such file, or none of the formats; rows are looked at as they are served
    """
    path = Path(path)
    with opened(path) as lines:
        found = _sniff(lines) if format is None else format
    return Trace(path=path, format=found, skip_bad_rows=skip_bad_rows, limit=limit, rate_scale=rate_scale)


def _sniff(lines: TextIO) -> str:
    """The format of a file, by its first line and, where that is the begin of a JSON document, by all of it."""
    first = lines.readline(_LONGEST_LINE)
    while first.isspace():
        first = lines.readline(_LONGEST_LINE)
    if not first:
        raise SpecError("the file is empty")
    found = _json_format(first, lines) if first.lstrip()[0] in "[{" else csv_format(first)
    if found is None:
        start = first.strip()[:60]
        raise SpecError(f"{start!r} begins none of the formats {', '.join(FORMATS)}{_way_out(first)}")
    return found


def _json_format(first: str, lines: TextIO) -> str | None:
    try:
        document = json.loads(first)
    except json.JSONDecodeError:
        lines.seek(0)
        document = json.load(lines)
    if is_sharegpt(document):
        raise SpecError(
            "conversations have no times; give their lengths as --lengths FILE.json:CHARS_PER_TOKEN, with a rate"
        )
    if isinstance(document, dict) and (found := jsonl_format(document)) is not None:
        return found
    return result_format(document)


def _way_out(header: str) -> str:
    has_lengths = "num_prefill_tokens" in header
    return "; it has lengths but no times, so give it as --lengths, with a rate" if has_lengths else ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredRun:
    """Requests that were served and timed, in order of arrival; each array is (n,).

    Parameters
    ----------
    arrival_s : from the first
    tpot_definition : of the time per output token in the tool's own report
    """

    arrival_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    ttft_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]
    tpot_definition: str


def read_measured(path: Path | str, *, format: str | None = None, skip_bad_rows: bool = False) -> MeasuredRun | None:
    """The times that a file of results carries, request by request as `read_trace` gives them; None for a mere trace.

    Raises
    ------
    SpecError : as `read_trace` and its requests
    """
    trace = read_trace(path, format=format, skip_bad_rows=skip_bad_rows)
    definition = TPOT_DEFINITIONS.get(trace.format)
    if definition is None:
        return None
    rows = list(trace.rows())
    answers = [row.answer for row in rows if row.answer is not None]
    arrival_s = np.array([row.time_s for row in rows])
    return MeasuredRun(
        arrival_s=arrival_s - arrival_s[0],
        input_tokens=np.array([row.input_tokens for row in rows], np.int64),
        output_tokens=np.array([row.output_tokens for row in rows], np.int64),
        ttft_s=np.array([answer.ttft_s for answer in answers]),
        e2e_s=np.array([answer.e2e_s for answer in answers]),
        tpot_definition=definition,
    )
