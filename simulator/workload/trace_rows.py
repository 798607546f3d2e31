"""Formats of recorded requests: how one row of each becomes a request."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .arrival import Arrival

Row = Mapping[str, Any]
_MOST_TOKENS = 10_000_000


class BadRow(ValueError):
    """Why a row is no request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of one row a request.

    Parameters
    ----------
    columns : names that tell it apart
    arrival : reads a row; its time counts from any origin
    """

    name: str
    source: str
    columns: tuple[str, ...]
    arrival: Callable[[Row], Arrival]


def tokens(row: Row, name: str) -> int:
    """A count of tokens, at least 1."""
    try:
        number = float(row[name])
    except (KeyError, TypeError, ValueError):
        raise BadRow(f"{name} is {row.get(name)!r}, no number of tokens") from None
    if not 1 <= number <= _MOST_TOKENS or number != int(number):
        raise BadRow(f"{name} is {row[name]}; a request has a whole number of at least 1 token")
    return int(number)


def seconds(row: Row, name: str, unit_s: float = 1.0) -> float:
    """A time in seconds."""
    try:
        number = float(row[name])
    except (KeyError, TypeError, ValueError):
        raise BadRow(f"{name} is {row.get(name)!r}, no time") from None
    if not math.isfinite(number) or number < 0:
        raise BadRow(f"{name} is {row[name]}, no time since a beginning")
    return number * unit_s


def timestamp_s(row: Row, name: str) -> float:
    """A date and time as seconds, to a hundred nanoseconds."""
    text = row.get(name)
    if not isinstance(text, str):
        raise BadRow(f"{name} is {text!r}, no date and time")
    whole, _, fraction = text.partition(".")
    zone = next((mark for mark in "+Z" if mark in fraction), "")
    digits = fraction.partition(zone)[0] if zone else fraction
    try:
        moment = datetime.fromisoformat(whole)
        part = float(f"0.{digits}") if digits else 0.0
    except ValueError:
        raise BadRow(f"{name} is {text!r}, no date and time") from None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() + part


def _plain(time: Callable[[Row], float], n_in: str, n_out: str) -> Callable[[Row], Arrival]:
    def arrival(row: Row) -> Arrival:
        return Arrival(arrival_s=time(row), input_tokens=tokens(row, n_in), output_tokens=tokens(row, n_out))

    return arrival


def _hashed(unit_s: float, block_tokens: int) -> Callable[[Row], Arrival]:
    def arrival(row: Row) -> Arrival:
        hashes = row.get("hash_ids")
        if not isinstance(hashes, list) or not all(isinstance(block, int) for block in hashes):
            raise BadRow(f"hash_ids is {str(hashes)[:40]!r}, no list of whole numbers")
        return Arrival(
            arrival_s=seconds(row, "timestamp", unit_s),
            input_tokens=tokens(row, "input_length"),
            output_tokens=tokens(row, "output_length"),
            block_hashes=tuple(hashes),
            block_tokens=block_tokens,
        )

    return arrival


# The first whose columns are all there is taken, so the more particular come first.
CSV_FORMATS: tuple[Format, ...] = (
    Format(
        name="azure",
        source="github.com/Azure/AzurePublicDataset, LLM inference traces 2023 and 2024",
        columns=("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        arrival=_plain(lambda row: timestamp_s(row, "TIMESTAMP"), "ContextTokens", "GeneratedTokens"),
    ),
    Format(
        name="burstgpt",
        source="github.com/HPMLL/BurstGPT, with and without sessions; an empty answer is a failure",
        columns=("Timestamp", "Request tokens", "Response tokens"),
        arrival=_plain(lambda row: seconds(row, "Timestamp"), "Request tokens", "Response tokens"),
    ),
    Format(
        name="vidur",
        source="github.com/microsoft/vidur and splitwise-sim",
        columns=("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
        arrival=_plain(lambda row: seconds(row, "arrived_at"), "num_prefill_tokens", "num_decode_tokens"),
    ),
    Format(
        name="llmservingsim",
        source="github.com/casys-kaist/LLMServingSim",
        columns=("arrival_time_ns", "input_toks", "output_toks"),
        arrival=_plain(lambda row: seconds(row, "arrival_time_ns", 1e-9), "input_toks", "output_toks"),
    ),
)
JSONL_FORMATS: tuple[Format, ...] = (
    Format(
        name="bailian",
        source="github.com/alibaba-edu/qwen-bailian-usagetraces-anon; 16-token blocks",
        columns=("chat_id", "timestamp", "input_length", "output_length", "hash_ids"),
        arrival=_hashed(1.0, 16),
    ),
    Format(
        name="mooncake",
        source="github.com/kvcache-ai/Mooncake; milliseconds, 512-token blocks",
        columns=("timestamp", "input_length", "output_length", "hash_ids"),
        arrival=_hashed(1e-3, 512),
    ),
    Format(
        name="vllm-log",
        source="a vLLM run's requests with the times they were queued, and got their first and last token",
        columns=("input_toks", "output_toks", "arrival_time", "queued_ts", "first_token_ts", "last_token_ts"),
        arrival=_plain(lambda row: seconds(row, "arrival_time"), "input_toks", "output_toks"),
    ),
)


def json_rows(lines: Iterator[str]) -> Iterator[tuple[int, Row | BadRow]]:
    """Objects of a JSONL file with their line numbers; what is none is given as the reason."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, BadRow(f"no JSON: {error}")
            continue
        yield number, row if isinstance(row, dict) else BadRow("no JSON object")
