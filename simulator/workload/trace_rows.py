"""A request as a file tells of it, and how its numbers are read."""

import math
from dataclasses import dataclass

from .lengths import MOST_TOKENS


@dataclass(frozen=True, slots=True)
class Answer:
    """Measured times of a request, from its arrival: to its first token, and to its last."""

    ttft_s: float
    e2e_s: float


@dataclass(slots=True)
class Row:
    """A request of a file.

    Parameters
    ----------
    place : its line, or its number among the results
    time_s : on the file's own clock
    block_hashes, block_tokens : as in `Arrival`
    answer : where it was measured
    """

    place: int
    time_s: float
    input_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    block_tokens: int = 0
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """What cannot be read as a request, and why."""

    place: int
    reason: str


def to_seconds(value: object, name: str) -> float:
    """A time of at least 0.

    Raises
    ------
    ValueError : no such number
    """
    seconds = _number(value)
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"{name} is {_shown(value)}, no time in numbers from 0 on")
    return seconds


def to_tokens(value: object, name: str) -> int:
    """A count of tokens; 374.0 is one, 374.5 is none.

    Raises
    ------
    ValueError : no such count
    """
    count = value if type(value) is int else _whole(value, name)
    if not 1 <= count <= MOST_TOKENS:
        raise ValueError(f"{name} is {_shown(count)}; a request has between 1 and {MOST_TOKENS:,} tokens of each kind")
    return count


def _whole(value: object, name: str) -> int:
    if isinstance(value, str) and value.isdecimal():
        return int(value[:20])
    number = _number(value)
    if not number.is_integer():
        raise ValueError(f"{name} is {_shown(value)}, no whole number")
    return int(number)


def _number(value: object) -> float:
    """NaN where it is none."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _shown(value: object) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
