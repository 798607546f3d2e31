"""Softmax attention over keys and values that every token leaves in a cache: MHA, MQA, GQA, and how far they reach."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT


class Reach(BaseModel):
    """Which keys a query meets, beside being causal.

    Parameters
    ----------
    pattern : `window` the last `size` tokens, itself among them; `chunk` the tokens since the last multiple of `size`;
        `sparse` at most `size` keys (blocks beside it, and the global and random ones), and `share` of the context, while
        every key stays cached
    share : of the context that a sparse query meets beside its `size` keys: 1/stride of a strided pattern

    References
    ----------
    [Child2019] strided, [Beltagy2020] window and global, [Zaheer2020] random blocks, [Kitaev2020] hashed buckets.
    """

    model_config = STRICT
    pattern: Literal["window", "chunk", "sparse"]
    size: int = Field(gt=0)
    share: float = Field(default=0.0, ge=0, le=1)

    @property
    def kept(self) -> int | None:
        """Tokens of the cache that are ever read again; None for all."""
        return None if self.pattern == "sparse" else self.size


class AttentionMixer(BaseModel):
    """Attention with its four projections.

    Parameters
    ----------
    n_kv_heads : 1 is multiquery, `n_heads` is multihead, between them grouped-query attention
    reach : None for the whole context
    d_value : of one value head, where other than `d_head`
    qk_norm_over : `head` one scale of `d_head` for all heads, `width` a scale for every element of all heads
    output_gate : a second projection as wide as what comes out gates it, through a sigmoid
    head_gate : one number a head gates what comes out
    own_kv : False where keys and values of an earlier layer are read again
    value_is_key : one projection gives keys and values; both are cached, since keys are normed and rotated
    positions : where this block differs from its model
    sinks : one learned logit a head, in the softmax with no value
    """

    model_config = STRICT
    kind: Literal["attention"] = "attention"
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    d_value: int | None = Field(default=None, gt=0)
    reach: Reach | None = None
    qk_norm: bool = False
    qk_norm_over: Literal["head", "width"] = "head"
    output_gate: bool = False
    head_gate: bool = False
    own_kv: bool = True
    value_is_key: bool = False
    positions: Literal["rope", "none"] | None = None
    sinks: bool = False

    @property
    def value_width(self) -> int:
        """Elements of one value head."""
        return self.d_value or self.d_head
