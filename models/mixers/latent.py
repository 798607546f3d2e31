"""Multi-head latent attention: one compressed key-value vector a token, shared by all heads."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT


class Indexer(BaseModel):
    """A small attention that picks the keys the large one reads.

    References
    ----------
    [DeepSeek2025] DeepSeek sparse attention: the lightning indexer.
    """

    model_config = STRICT
    n_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    top_k: int = Field(gt=0)


class LatentMixer(BaseModel):
    """Attention over a latent.

    Parameters
    ----------
    q_rank : width of the compressed query; None where queries are projected at once
    kv_rank : width of the latent that is cached; `d_rope` rotated key elements lie beside it
    d_nope, d_rope, d_value : of one head: keys without and with rotation, values
    top_k : keys a query meets where an earlier layer's indexer has picked them
    output_gate : a projection as wide as what comes out gates it, through a sigmoid

    References
    ----------
    [DeepSeek2024] section 2.1.
    """

    model_config = STRICT
    kind: Literal["latent"] = "latent"
    n_heads: int = Field(gt=0)
    q_rank: int | None = Field(default=None, gt=0)
    kv_rank: int = Field(gt=0)
    d_nope: int = Field(gt=0)
    d_rope: int = Field(gt=0)
    d_value: int = Field(gt=0)
    indexer: Indexer | None = None
    top_k: int | None = Field(default=None, gt=0)
    output_gate: bool = False
