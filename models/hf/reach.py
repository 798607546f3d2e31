"""How far the attention of each layer reaches: windows and chunks, by layer."""

from collections.abc import Sequence

from ...hardware_specs.errors import SpecError
from ..mixers.attention import Reach
from .config import Config
from .traits import Traits

_FULL = ("full_attention", "attention", "global", "full")
_WINDOW = ("sliding_attention", "local", "sliding_window", "sliding")
_CHUNK = ("chunked_attention",)


def layer_types(config: Config, n_layers: int, *, word: str = "layer_types") -> list[str] | None:
    """Kinds of the layers as the file lists them, without those of prediction heads at its end; None without a list.

    Raises
    ------
    SpecError : the list is shorter or longer than the stack
    """
    listed = config.items(word)
    if listed is None:
        return None
    extra = len(listed) - n_layers
    n_mtp = config.optional("n_mtp", least=0) or 0
    if extra and extra != n_mtp:
        raise SpecError(
            f"{config.name}: {word} names {len(listed)} layers, num_hidden_layers={n_layers}; mend one of them"
        )
    return [str(kind) for kind in listed[:n_layers]]


def refuse_kind(config: Config, kind: str, known: Sequence[str], *, word: str = "layer_types") -> SpecError:
    """What to raise for a kind of layer that has no description."""
    return SpecError(
        f"{config.name}: {word} has {kind!r}, a kind of block that cannot be described; known here: {', '.join(known)}"
    )


def window_of(config: Config, traits: Traits) -> int | None:
    """Tokens of the window that is in force; None without, or where it is as long as the context."""
    in_force = config.flag("use_sliding_window", traits.window_by_default)
    # a class whose window is off may write 0 for it
    size = config.optional("window", least=1 if in_force else 0)
    context = config.optional("max_context")
    return None if size is None or not in_force or (context is not None and size >= context) else size


def reaches(config: Config, traits: Traits, n_layers: int) -> list[Reach | None]:
    """Of every layer, None for the whole context.

    Raises
    ------
    SpecError : a layer type with no description
    """
    size = window_of(config, traits)
    window = None if size is None else Reach(pattern="window", size=size)
    types = layer_types(config, n_layers)
    if types is None:
        every = _full_every(config, traits)
        first_windowed = (config.optional("max_window_layers", least=0) or 0) if not traits.window_by_default else 0
        return [window if i >= first_windowed and (every is None or (i + 1) % every) else None for i in range(n_layers)]
    chunk_size = config.optional("attention_chunk_size")
    chunk = None if chunk_size is None else Reach(pattern="chunk", size=chunk_size)
    by_name = dict.fromkeys(_FULL) | dict.fromkeys(_WINDOW, window) | dict.fromkeys(_CHUNK, chunk)
    if unknown := next((kind for kind in types if kind not in by_name), None):
        raise refuse_kind(config, unknown, [_FULL[0], _WINDOW[0], _CHUNK[0]])
    return [by_name[kind] for kind in types]


def _full_every(config: Config, traits: Traits) -> int | None:
    """Every how many layers one sees the whole context; None if none does."""
    pattern = config.value("sliding_window_pattern")
    if isinstance(pattern, str):
        return len(pattern)
    return config.optional("sliding_window_pattern") or traits.full_every
