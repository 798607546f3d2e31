"""Lengths of conversations in ShareGPT's form: no times, and text in place of lengths."""

import json
import math
from pathlib import Path
from typing import Any

from ...hardware_specs.errors import SpecError
from .lengths import MOST_TOKENS
from .trace_files import opened


def read_sharegpt(path: Path | str, chars_per_token: float) -> tuple[tuple[int, int], ...]:
    """Lengths of the first question and its answer of each conversation.

    Parameters
    ----------
    chars_per_token : characters that make a token; about 4 for English text, and the tokenizer's own figure is better

    Raises
    ------
    SpecError : another form of file, or no conversation with an answer in it
    """
    if not (math.isfinite(chars_per_token) and chars_per_token > 0):
        raise SpecError(f"chars_per_token={chars_per_token} must be a positive number")
    path = Path(path)
    with opened(path) as lines:
        document = json.load(lines)
    if not isinstance(document, list):
        raise SpecError(f"{path} is no list of conversations")
    pairs = [pair for entry in document if (pair := _first_pair(entry)) is not None]
    if not pairs:
        raise SpecError(f"{path}: none of its {len(document)} conversations begins with a question and its answer")
    return tuple((_tokens(question, chars_per_token), _tokens(answer, chars_per_token)) for question, answer in pairs)


def is_sharegpt(document: Any) -> bool:
    """Whether a document is a list of conversations."""
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, dict) and "conversations" in first


def _first_pair(entry: Any) -> tuple[str, str] | None:
    """Question and answer; None where a conversation does not begin with them."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns[:2]):
        return None
    speakers, (question, answer) = [turn.get("from") for turn in turns[:2]], [turn.get("value") for turn in turns[:2]]
    if speakers != ["human", "gpt"] or not (isinstance(question, str) and isinstance(answer, str)):
        return None
    return (question, answer) if question and answer else None


def _tokens(text: str, chars_per_token: float) -> int:
    return min(max(1, round(len(text) / chars_per_token)), MOST_TOKENS)
