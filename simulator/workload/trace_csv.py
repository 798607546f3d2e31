"""Traces as CSV: Azure LLM inference, vidur and Splitwise, LLMServingSim, BurstGPT."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

from ...hardware_specs.errors import SpecError
from .trace_rows import BadRow, Row, to_seconds, to_tokens

Clock = Callable[[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFormat:
    """Columns by name, whatever stands between them, and how the first is read.

    Parameters
    ----------
    new_clock : makes a reader of times from (text, column); one a file, for it may remember where the file begins
    """

    time: str
    input: str
    output: str
    new_clock: Callable[[], Clock]

    @property
    def columns(self) -> tuple[str, str, str]:
        """The columns that are read."""
        return self.time, self.input, self.output


def _seconds() -> Clock:
    return to_seconds


def _nanoseconds() -> Clock:
    return lambda text, name: to_seconds(text, name) * 1e-9


def _dates() -> Clock:
    """Seconds since the first date; whole ones are counted apart from fractions, so that none of seven digits is lost."""
    origin: int | None = None

    def clock(text: str, name: str) -> float:
        nonlocal origin
        whole, _, rest = text.partition(".")
        digits = rest.rstrip("Z").partition("+")[0]
        try:
            at = _unix_s(whole + rest[len(digits) :])
            fraction = int(digits) / 10 ** len(digits) if digits else 0.0
        except ValueError:
            raise ValueError(f"{name} is {text!r}, no date such as 2023-11-16 18:17:03.9799600") from None
        if origin is None:
            origin = at
        return at - origin + fraction

    return clock


@lru_cache(maxsize=16)
def _unix_s(date: str) -> int:
    """Seconds since 1970 of a date without fractions; UTC where it names no zone."""
    parsed = datetime.fromisoformat(date)
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


CSV_FORMATS = {
    "azure": CsvFormat(time="TIMESTAMP", input="ContextTokens", output="GeneratedTokens", new_clock=_dates),
    "vidur": CsvFormat(time="arrived_at", input="num_prefill_tokens", output="num_decode_tokens", new_clock=_seconds),
    "llmservingsim": CsvFormat(
        time="arrival_time_ns", input="input_toks", output="output_toks", new_clock=_nanoseconds
    ),
    "burstgpt": CsvFormat(time="Timestamp", input="Request tokens", output="Response tokens", new_clock=_seconds),
}


def csv_format(header: str) -> str | None:
    """The format whose columns a header has."""
    names = {name.strip() for name in next(csv.reader([header]), [])}
    return next((name for name, form in CSV_FORMATS.items() if names.issuperset(form.columns)), None)


def read_csv(form: CsvFormat, lines: TextIO) -> Iterator[Row | BadRow]:
    """The rows of a file, one at a time.

    Raises
    ------
    SpecError : a column is missing or there twice
    """
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    for name in form.columns:
        if header.count(name) != 1:
            raise SpecError(f"the header has the column {name!r} {header.count(name)} times, and must have it once")
    when, n_in, n_out = (header.index(name) for name in form.columns)
    clock, (time, input_, output) = form.new_clock(), form.columns
    for fields in reader:
        if not fields:
            continue
        try:
            if len(fields) != len(header):
                raise ValueError(f"{len(fields)} fields, but the header has {len(header)}")
            counts = to_tokens(fields[n_in], input_), to_tokens(fields[n_out], output)
            yield Row(reader.line_num, clock(fields[when], time), *counts)
        except ValueError as error:
            yield BadRow(reader.line_num, str(error))
