"""Recorded traffic as a stream: the format is told from the file, rows that are no requests are reported by line."""

import csv
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from ...hardware_specs.errors import SpecError, UnknownNameError
from .arrival import Arrival
from .trace_results import MeasuredRun, conversation_lengths, load_json, measured_run, read_results
from .trace_rows import CSV_FORMATS, JSONL_FORMATS, BadRow, Format, Row, json_rows, seconds, tokens

FORMATS = {found.name: found for found in (*CSV_FORMATS, *JSONL_FORMATS)}
_GZIP = b"\x1f\x8b"


@dataclass(slots=True, kw_only=True)
class Trace:
    """Requests of a file, the first at time 0.

    Parameters
    ----------
    format : see `trace_rows`, or the load generator whose results they are
    limit : so many requests at most
    bad_rows : (line, reason) of the rows left out when it was last read
    """

    path: Path
    format: str
    skip_bad_rows: bool = False
    limit: int | None = None
    bad_rows: list[tuple[int, str]] = field(default_factory=list)

    @property
    def n_requests(self) -> int | None:
        """Unknown before the end."""
        return None

    def arrivals(self, seed: np.random.SeedSequence) -> Iterator[Arrival]:
        """The requests in the order of the file, whatever the seed.

        Raises
        ------
        SpecError : a row that is no request, unless bad rows are skipped; no request at all
        """
        self.bad_rows.clear()
        n = 0
        for arrival in islice(self._arrivals(), self.limit):
            n += 1
            yield arrival
        if not n:
            skipped = f"; {len(self.bad_rows)} rows were left out" if self.bad_rows else ""
            raise SpecError(f"{self.path} holds no request{skipped}")

    def _arrivals(self) -> Iterator[Arrival]:
        if self.format not in FORMATS:
            yield from _arrivals_of(_results(self.path))
            return
        found, first_s, last_s = FORMATS[self.format], None, 0.0
        with _opened(self.path) as lines:
            for line, row in _rows(found, lines):
                try:
                    if isinstance(row, BadRow):
                        raise row
                    arrival = found.arrival(row)
                    first_s = arrival.arrival_s if first_s is None else first_s
                    now_s = arrival.arrival_s - first_s
                    if now_s < last_s:
                        raise BadRow(f"it comes {last_s - now_s:.6g} s before the request above it")
                except BadRow as reason:
                    self._leave_out(line, str(reason))
                    continue
                last_s = now_s
                yield replace(arrival, arrival_s=now_s)

    def _leave_out(self, line: int, reason: str) -> None:
        if not self.skip_bad_rows:
            raise SpecError(f"{self.path}, line {line}: {reason}; mend it, or go on with --skip-bad-rows")
        self.bad_rows.append((line, reason))


def read_trace(
    path: Path, *, format: str | None = None, skip_bad_rows: bool = False, limit: int | None = None
) -> Trace:
    """Open a trace; its format is told from its first line unless it is named.

    Raises
    ------
    SpecError : no such file or format, or a limit that is none
    """
    if limit is not None and limit < 1:
        raise SpecError(f"{limit} requests of {path}: there is nothing to serve")
    if format is not None and format not in FORMATS:
        raise UnknownNameError("trace format", format, FORMATS)
    return Trace(path=path, format=format or _sniff(path), skip_bad_rows=skip_bad_rows, limit=limit)


def read_sharegpt(path: Path, chars_per_token: float) -> tuple[tuple[int, int], ...]:
    """Lengths of the conversations of a ShareGPT file, which has neither tokens nor times.

    Raises
    ------
    SpecError : no such file, or no conversation in it
    """
    with _opened(path) as lines:
        text = lines.read()
    return conversation_lengths(load_json(text, path), chars_per_token)


def read_measured(path: Path) -> MeasuredRun | None:
    """The times a trace was measured with, in order of arrival; None where it carries none."""
    name = _sniff(path)
    if name == "vllm-log":
        return _vllm_log(path)
    return None if name in FORMATS else _results(path)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A text file, plain or gzipped; what cannot be read is the user's to mend."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(len(_GZIP)) == _GZIP
        with gzip.open(path, "rt", encoding="utf-8-sig") if is_gzip else path.open(encoding="utf-8-sig") as lines:
            yield lines
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"cannot read {path}: {error}") from error


def _sniff(path: Path) -> str:
    """The format of a file by the first line that is not blank."""
    with _opened(path) as lines:
        first = next((line for line in lines if line.strip()), "")
    if not first:
        raise SpecError(f"{path} is empty")
    if first.lstrip().startswith(("{", "[")):
        row = next((row for _, row in json_rows(iter([first]))), None)
        found = _by_columns(JSONL_FORMATS, set(row) if isinstance(row, dict) else set())
        return found if found is not None else _results(path).format
    found = _by_columns(CSV_FORMATS, {name.strip() for name in next(csv.reader([first]))})
    if found is None:
        known = "; ".join(f"{f.name}: {', '.join(f.columns)}" for f in CSV_FORMATS)
        has_lengths = "num_prefill_tokens" in first
        way_out = "; lengths without times are given by --lengths, with a --rate" if has_lengths else ""
        raise SpecError(f"{path} begins with {first.strip()[:80]!r}, no header of a known trace ({known}){way_out}")
    return found


def _by_columns(formats: tuple[Format, ...], names: set[str]) -> str | None:
    return next((found.name for found in formats if set(found.columns) <= names), None)


def _rows(found: Format, lines: TextIO) -> Iterator[tuple[int, Row | BadRow]]:
    """Rows with their line numbers."""
    if found in JSONL_FORMATS:
        yield from json_rows(lines)
        return
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader)]
    for values in reader:
        if values:
            yield reader.line_num, dict(zip(header, values, strict=False))


def _results(path: Path) -> MeasuredRun:
    with _opened(path) as lines:
        text = lines.read()
    return read_results(load_json(text, path), path)


def _arrivals_of(run: MeasuredRun) -> Iterator[Arrival]:
    for at, n_in, n_out in zip(run.arrival_s, run.input_tokens, run.output_tokens, strict=True):
        yield Arrival(arrival_s=float(at), input_tokens=int(n_in), output_tokens=int(n_out))


def _vllm_log(path: Path) -> MeasuredRun:
    """A run's log: arrivals by the wall clock, the rest by another, brought together where a request was queued at once."""
    with _opened(path) as lines:
        rows = [row for _, row in json_rows(lines) if isinstance(row, dict)]
    try:
        offset = min(seconds(row, "queued_ts") - seconds(row, "arrival_time") for row in rows)
        requests = []
        for row in rows:
            at = seconds(row, "arrival_time") + offset
            first, last = seconds(row, "first_token_ts") - at, seconds(row, "last_token_ts") - at
            requests.append((at, tokens(row, "input_toks"), tokens(row, "output_toks"), first, last))
    except (BadRow, ValueError) as error:
        raise SpecError(f"{path}: {error}") from error
    return measured_run("vllm-log", requests, path)
