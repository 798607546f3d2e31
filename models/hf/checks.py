"""Whether what was read is what the model is called, and what its index holds."""

import re

from ..description import Model
from ..params import n_params, n_params_active

# Names round, and count with or without embeddings.
_TOLERANCE = 0.25
_ACTIVE_TOLERANCE = 0.35
# An index holds prediction heads, scales and buffers besides.
_INDEX_TOLERANCE = 0.02
_SIZE = re.compile(
    r"(?<![a-z0-9.])(?:(?P<experts>\d+)x)?(?P<size>\d+(?:\.\d+)?)(?P<unit>[bm])(?![a-z0-9])", re.IGNORECASE
)
_ACTIVE = re.compile(r"(?<![a-z0-9.])a(?P<size>\d+(?:\.\d+)?)(?P<unit>[bm])(?![a-z0-9])", re.IGNORECASE)
_UNITS = {"b": 1e9, "m": 1e6}


def check_name(model: Model, name: str) -> list[str]:
    """Sentences on sizes in the name that are not what was counted; none where it has none, or all fit.

    ``8x7b`` counts what the experts share once, so that it may be well above the model.

    >>> from shardwise.models.catalogue import get_model
    >>> check_name(get_model("llama-3.1-8b"), "llama-3.1-8b"), len(check_name(get_model("llama-3.1-8b"), "llama-70b"))
    ([], 1)
    """
    found = []
    total, active = float(n_params(model)), float(n_params_active(model))
    said_active = [_number(match) for match in _ACTIVE.finditer(name)]
    for match in _SIZE.finditer(name):
        size = _number(match) * int(match["experts"] or 1)
        low = 0.6 * size if match["experts"] else size * (1 - _TOLERANCE)
        fits = low <= total <= size * (1 + _TOLERANCE) or (not said_active and _near(active, size))
        if not fits:
            found.append(f"its name says {match[0]}, but {total / 1e9:.2f} B parameters are counted")
    return found + [
        f"its name says {size / 1e9:g} B active, but {active / 1e9:.2f} B are counted"
        for size in said_active
        if not _near(active, size, tolerance=_ACTIVE_TOLERANCE)
    ]


def _near(counted: float, said: float, tolerance: float = _TOLERANCE) -> bool:
    return abs(counted / said - 1) <= tolerance if said else False


def _number(match: re.Match[str]) -> float:
    return float(match["size"]) * _UNITS[match["unit"].lower()]


def check_index(weights: float, stored: float | None) -> list[str]:
    """A sentence where the shards hold another number of bytes than was counted."""
    if stored is None or stored <= 0 or abs(weights / stored - 1) <= _INDEX_TOLERANCE:
        return []
    return [
        f"its index says {stored / 1e9:.2f} GB, but {weights / 1e9:.2f} GB are counted ({weights / stored - 1:+.1%}): "
        "prediction heads or a tower that are not counted, or a field read wrongly"
    ]
