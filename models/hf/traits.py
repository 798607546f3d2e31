"""What all models of a family have in common and no config file says."""

from dataclasses import dataclass
from typing import Literal

from ..feed_forward import Activation
from .config import Config

# Stated once for the family, or the field that says it and what its absence means.
Stated = bool | tuple[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Of a decoder family.

    Parameters
    ----------
    norm, norm_bias, norm_scale, n_norms, post_norms, embedding_norm, final_norm, parallel : as in `Model`
    gated, activation : of the feed-forward part, where the file does not name its activation
    positions, extra_positions : and how many rows a learned table has beside one a position
    qkv_bias, out_bias, ffn_bias, logits_bias : which projections add a bias
    qk_norm, qk_norm_over : as in `AttentionMixer`
    tied : whether embedding and logits share a matrix where the file does not say
    full_every : every how many layers one sees the whole context, where `layer_types` does not say; None if each has the window
    window_by_default : whether `sliding_window` is in force where `use_sliding_window` is absent
    stretches : whether a linear or dynamic RoPE scaling goes beyond the positions the file gives
    """

    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    norm_bias: bool = False
    norm_scale: bool = True
    n_norms: int = 2
    post_norms: bool = False
    embedding_norm: bool = False
    final_norm: bool = True
    parallel: bool = False
    gated: bool = True
    activation: Activation = "silu"
    positions: Literal["rope", "alibi", "learned", "relative", "none"] = "rope"
    extra_positions: int = 0
    qkv_bias: Stated = False
    out_bias: Stated = False
    ffn_bias: Stated = False
    logits_bias: Stated = False
    qk_norm: Stated = False
    qk_norm_over: Literal["head", "width"] = "head"
    tied: bool = False
    full_every: int | None = None
    window_by_default: bool = True
    stretches: bool = True


def says(config: Config, stated: Stated) -> bool:
    """Whether a family, or the file where the family leaves it to a field, says yes."""
    return stated if isinstance(stated, bool) else config.flag(*stated)


# Activation functions by their first letters; those that differ in their constants cost alike.
_ACTIVATIONS: tuple[tuple[str, Activation], ...] = (
    ("gelu", "gelu"),
    ("quick_gelu", "gelu"),
    ("gated-gelu", "gelu"),
    ("silu", "silu"),
    ("swish", "silu"),
    ("swiglu", "silu"),
    ("relu2", "relu2"),
    ("relu_squared", "relu2"),
    ("squared_relu", "relu2"),
    ("xielu", "silu"),
    ("situ", "silu"),
    ("relu", "relu"),
)


def activation(config: Config, word: str, default: Activation) -> Activation:
    """The function between the matrices of a feed-forward part, by the name the file has for it."""
    name = config.text(word, default).lower()
    for start, found in _ACTIVATIONS:
        if name.startswith(start):
            return found
    config.reading.notes.append(f"activation {name!r} is unknown; it is taken for {default}, which costs alike")
    return default
