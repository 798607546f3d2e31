"""How many tokens a model was made for."""

from typing import Any

from .config import Config

# Kinds of RoPE scaling that stretch what the file gives; the others are counted in it already.
_STRETCHED = ("linear", "dynamic", "ntk")
_MOST_STRETCH = 1e6


def _scalings(config: Config) -> list[Config]:
    """Objects that describe a scaling; version 5 keys them by kind of layer where the kinds differ."""
    found = []
    for word in ("rope_scaling", "rope_parameters"):
        part = config.part(word)
        inner = [name for name in ("full_attention", "sliding_attention", "main", "compress") if part.has(name)]
        found += [part.part(name) for name in inner] or [part]
    for part in found:
        part.ignore_all()
    return found


def max_context(config: Config, *, stretched: bool = True) -> int | None:
    """Tokens of the longest sequence; None where positions set no limit.

    Parameters
    ----------
    stretched : a linear or dynamic scaling goes beyond what the file gives

    Notes
    -----
    YaRN reaches `factor` times the length it was trained at, whether or not the file gives the product; tables by frequency
    (llama3, longrope) come with a file that gives the length they reach.
    """
    context = config.optional("max_context")
    longest = context
    for scaling in _scalings(config):
        kind: Any = scaling.value("rope_type") or scaling.value("type")
        factor = scaling.value("factor")
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 < factor <= _MOST_STRETCH:
            continue
        trained = scaling.optional("original_max_position_embeddings") or context
        if kind == "yarn" and trained is not None:
            longest = max(longest or 0, int(trained * factor))
        elif kind in _STRETCHED and stretched and context is not None:
            longest = int(context * factor)
    return longest
