"""Text with units to SI floats: the only place that knows a prefix.

A bare number is refused where a unit is due, and so is a unit of another dimension: ``Gb/s`` is not
``GB/s``, ``GiB`` is not ``GB``.
"""

import math
import re

from .errors import SpecError

_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SMALL = {"m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}
_QUANTITY = re.compile(r"\s*([-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?)\s*([^\d\s].*?)?\s*")
_EXAMPLE = {
    "B": "80 GiB",
    "B/s": "3.35 TB/s",
    "b/s": "400 Gb/s",
    "flop/s": "989.4 Tflop/s",
    "s": "500 ms",
    "W": "700 W",
    "J": "3 J",
    "USD/h": "2.50 USD/h",
}


def _factors(unit: str) -> dict[str, float]:
    """Every spelling of `unit` with its factor to SI."""
    prefixes = dict(_PREFIX)
    if unit == "B":
        prefixes |= _BINARY
    if unit in ("s", "W", "J"):
        prefixes |= _SMALL
    if unit == "USD/h":
        return {"USD/h": 1.0, "$/h": 1.0}
    spellings = {prefix + unit: factor for prefix, factor in prefixes.items()}
    if unit == "s":
        return {name: spellings[name] for name in ("s", "ms", "us", "µs", "ns")} | {"min": 60.0, "h": 3600.0}
    return spellings


def parse_quantity(text: str, unit: str) -> float:
    """Read a number with a unit; return it in SI.

    Parameters
    ----------
    text : such as ``"3.35 TB/s"``
    unit : the dimension that is due: ``B``, ``B/s``, ``b/s``, ``flop/s``, ``s``, ``W``, ``J`` or ``USD/h``

    Raises
    ------
    SpecError : no number, no unit, an unknown unit, a negative or non-finite value

    Examples
    --------
    >>> parse_quantity("3.35 TB/s", "B/s")
    3350000000000.0
    >>> parse_quantity("80 GiB", "B")
    85899345920.0
    """
    example = _EXAMPLE[unit]
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise SpecError(f"{text!r} is no quantity in {unit}; write e.g. {example!r}")
    number, spelling = match.groups()
    factors = _factors(unit)
    if spelling not in factors:
        raise SpecError(f"{text!r} is no quantity in {unit}; write e.g. {example!r}")
    value = float(number) * factors[spelling]
    if not math.isfinite(value) or value < 0:
        raise SpecError(f"{text!r} must be finite and not negative; write e.g. {example!r}")
    return value


def format_bytes(n_bytes: float) -> str:
    """Bytes in GiB, as capacities are quoted.

    >>> format_bytes(85899345920)
    '80.0 GiB'
    """
    return f"{n_bytes / 2.0**30:.1f} GiB"


def format_seconds(seconds: float) -> str:
    """Seconds in the prefix that reads best.

    >>> format_seconds(0.0284), format_seconds(83.6), format_seconds(2.5e-6), format_seconds(0.9999), format_seconds(1234.0)
    ('28.4 ms', '83.6 s', '2.5 us', '1 s', '1234 s')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor * _ROUNDS_UP:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


# From here on three digits round up to 1.
_ROUNDS_UP = 0.9995


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
