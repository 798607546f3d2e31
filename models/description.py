"""A transformer as data: the shape of a dense decoder, and nothing of any hardware."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..hardware_specs.errors import SpecError

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Biases(BaseModel):
    """Which projections add a bias vector."""

    model_config = _STRICT
    qkv: bool = False
    attention_out: bool = False
    ffn: bool = False
    logits: bool = False


class Model(BaseModel):
    """A dense decoder: `n_layers` equal blocks of attention and a feed-forward part.

    Parameters
    ----------
    n_kv_heads : 1 is multiquery, `n_heads` is multihead, between them grouped-query attention
    gated : three FFN matrices (SwiGLU and its kin) instead of two
    block : `serial` attention then FFN, or `parallel`, both on one normed input
    norm : `layernorm` has scale and (with `norm_bias`) shift, `rmsnorm` scale only
    n_norms_per_block : norm layers in one block that read d_model
    n_learned_positions : rows of a learned position table, 0 for RoPE, ALiBi or none
    n_params_nominal : the N its paper counts MFU with, where that is not the exact count
    n_params_published : the count its source gives
    """

    model_config = _STRICT
    name: str
    aliases: tuple[str, ...] = ()
    source: str
    notes: str = ""
    n_layers: int = Field(gt=0)
    d_model: int = Field(gt=0)
    d_ff: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_context: int | None = Field(default=None, gt=0, description="tokens; None: positions set no limit")
    gated: bool
    activation: Literal["gelu", "relu", "silu"]
    block: Literal["serial", "parallel"]
    norm: Literal["layernorm", "rmsnorm"]
    norm_bias: bool = False
    n_norms_per_block: int = Field(ge=1)
    embedding_norm: bool = False
    final_norm: bool = True
    qk_norm: bool = False
    positions: Literal["rope", "alibi", "learned", "none"]
    n_learned_positions: int = Field(default=0, ge=0)
    tied_embeddings: bool
    biases: Biases = Biases()
    weights_dtype: str = "bf16"
    n_params_nominal: float | None = Field(default=None, gt=0)
    n_params_published: float | None = Field(default=None, gt=0)
    n_params_published_source: str = ""

    @model_validator(mode="after")
    def _heads_divide(self) -> "Model":
        if self.n_heads % self.n_kv_heads:
            raise SpecError(f"{self.name}: n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads}")
        if self.norm_bias and self.norm == "rmsnorm":
            raise SpecError(f"{self.name}: an rmsnorm has no shift; write norm_bias: false")
        return self

    def __hash__(self) -> int:
        """By name and the fields that variants of one model change; equality compares all."""
        return hash((self.name, self.n_layers, self.n_heads, self.n_kv_heads, self.d_head, self.block))
