"""Traces as JSON lines, with hashes of the prompts' blocks: Mooncake and bailian."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from .trace_rows import BadRow, Row, to_seconds, to_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlFormat:
    """What one unit of `timestamp` and one of `hash_ids` stand for."""

    seconds_per_unit: float
    block_tokens: int


JSONL_FORMATS = {
    "mooncake": JsonlFormat(seconds_per_unit=1e-3, block_tokens=512),
    "bailian": JsonlFormat(seconds_per_unit=1.0, block_tokens=16),
}
_COLUMNS = ("timestamp", "input_length", "output_length")


def jsonl_format(first: dict[str, Any]) -> str | None:
    """The format of a file by its first line; only bailian numbers its chats."""
    if not first.keys() >= set(_COLUMNS):
        return None
    return "bailian" if "chat_id" in first else "mooncake"


def read_jsonl(form: JsonlFormat, lines: TextIO) -> Iterator[Row | BadRow]:
    """The rows of a file, one at a time; a row without `hash_ids` shares nothing."""
    for number, found in objects(lines):
        if isinstance(found, BadRow):
            yield found
            continue
        try:
            yield _row(form, number, found)
        except ValueError as error:
            yield BadRow(number, str(error))


def objects(lines: TextIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The object on each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(number, f"no JSON: {error}")
            continue
        yield number, found if isinstance(found, dict) else BadRow(number, "no JSON object")


def _row(form: JsonlFormat, number: int, found: dict[str, Any]) -> Row:
    time_s = to_seconds(found.get("timestamp"), "timestamp") * form.seconds_per_unit
    n_in = to_tokens(found.get("input_length"), "input_length")
    n_out = to_tokens(found.get("output_length"), "output_length")
    hashes = found.get("hash_ids") or []
    if not isinstance(hashes, list) or not set(map(type, hashes)) <= {int}:
        raise ValueError("hash_ids is no list of whole numbers")
    return Row(number, time_s, n_in, n_out, tuple(hashes), form.block_tokens if hashes else 0)
