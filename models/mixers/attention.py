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
    output_gate : a second query-sized projection gates what comes out, through a sigmoid
    own_kv : False where keys and values of an earlier layer are read again
    positions : where this block differs from its model
    sinks : one learned logit a head, in the softmax with no value
    """

    model_config = STRICT
    kind: Literal["attention"] = "attention"
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    reach: Reach | None = None
    qk_norm: bool = False
    output_gate: bool = False
    own_kv: bool = True
    positions: Literal["rope", "none"] | None = None
    sinks: bool = False
