"""A model as data: a stack of blocks between an embedding and logits, and nothing of any hardware."""

from collections import Counter
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ..hardware_specs.errors import SpecError
from .blocks import Block, Layers
from .encoder import Encoder
from .feed_forward import Activation, DenseFfn, ExpertsFfn
from .mixers.attention import AttentionMixer
from .strict import STRICT

# What the one kind of block of a plain decoder is called.
PLAIN = "block"


class Biases(BaseModel):
    """Which projections add a bias vector."""

    model_config = STRICT
    qkv: bool = False
    attention_out: bool = False
    ffn: bool = False
    logits: bool = False


class Model(BaseModel):
    """A decoder: `n_layers` blocks, which are all plain (attention, dense feed-forward part) unless `stack` says otherwise.

    Parameters
    ----------
    n_heads, n_kv_heads, d_head, d_ff, gated, qk_norm : of the plain block, 0 where there is none; 1 K/V head is multiquery,
        `n_heads` of them multihead, between them grouped-query attention
    gated : three FFN matrices (SwiGLU and its kin) instead of two
    block : `serial` attention then FFN, or `parallel`, both on one normed input
    norm : `layernorm` has scale (unless `norm_scale` is false) and, with `norm_bias`, shift, `rmsnorm` scale only
    n_norms_per_block : norm layers in one block that read d_model
    post_norms : norms on what the mixer and the feed-forward part give, too
    blocks, stack : kinds of blocks by name, and the order they follow each other in
    encoder : a stack of its own that reads the input; the decoder's blocks then have `cross`, and begin at one start token
    bidirectional : every token meets every other, nothing is generated and nothing cached (BERT); a pass gives what the last
        block leaves of every token, and the heads it was trained with are held but not run
    state_dtype : what recurrent states are kept as
    kv_dtype : what keys and values are kept as where it comes with scales for that; None for as activations are
    mixer_dtype, expert_dtype : of the weights of mixers and of experts, where other than `weights_dtype`
    embedding_dtype : of embedding, logits, norms and biases, where other than `weights_dtype`
    d_embedding : width of embedding and logits where they are projected to and from d_model
    n_vision_params : of a tower in front of the decoder, which text does not pass
    n_other_params : outside the blocks: tables of relative positions, per-layer embeddings, a head before the logits
    n_learned_positions : rows of a learned position table, 0 for RoPE, ALiBi or none
    n_params_nominal : the N its paper counts MFU with, where that is not the exact count
    n_params_published, n_params_active_published : the counts their sources give, of all parameters and of those a token passes
    """

    model_config = STRICT
    name: str
    aliases: tuple[str, ...] = ()
    source: str
    notes: str = ""
    n_layers: int = Field(gt=0)
    d_model: int = Field(gt=0)
    d_ff: int = Field(default=0, ge=0)
    n_heads: int = Field(default=0, ge=0)
    n_kv_heads: int = Field(default=0, ge=0)
    d_head: int = Field(default=0, ge=0)
    vocab_size: int = Field(gt=0)
    max_context: int | None = Field(default=None, gt=0, description="tokens; None: positions set no limit")
    gated: bool = False
    activation: Activation = "silu"
    block: Literal["serial", "parallel"]
    norm: Literal["layernorm", "rmsnorm"]
    norm_bias: bool = False
    norm_scale: bool = True
    n_norms_per_block: int = Field(ge=1)
    post_norms: bool = False
    embedding_norm: bool = False
    final_norm: bool = True
    qk_norm: bool = False
    positions: Literal["rope", "alibi", "learned", "relative", "none"]
    n_learned_positions: int = Field(default=0, ge=0)
    d_embedding: int | None = Field(default=None, gt=0)
    tied_embeddings: bool
    biases: Biases = Biases()
    weights_dtype: str = "bf16"
    mixer_dtype: str | None = None
    expert_dtype: str | None = None
    embedding_dtype: str | None = None
    state_dtype: str = "fp32"
    kv_dtype: str | None = None
    n_vision_params: int = Field(default=0, ge=0)
    n_other_params: int = Field(default=0, ge=0)
    encoder: Encoder | None = None
    bidirectional: bool = False
    blocks: dict[str, Block] = Field(default_factory=dict)
    stack: tuple[Layers, ...] = ()
    n_params_nominal: float | None = Field(default=None, gt=0)
    n_params_published: float | None = Field(default=None, gt=0)
    n_params_published_source: str = ""
    n_params_active_published: float | None = Field(default=None, gt=0)
    n_params_active_published_source: str = ""

    @model_validator(mode="after")
    def _holds_together(self) -> "Model":
        for name, block in self.kinds.items():
            if isinstance(block.mixer, AttentionMixer) and block.mixer.n_heads % block.mixer.n_kv_heads:
                raise SpecError(
                    f"{self.name}: n_kv_heads={block.mixer.n_kv_heads} does not divide n_heads={block.mixer.n_heads}"
                    + (f" of its {name} blocks" if self.stack else "")
                )
        if self.norm_bias and self.norm == "rmsnorm":
            raise SpecError(f"{self.name}: an rmsnorm has no shift; write norm_bias: false")
        if len(self.layers) != self.n_layers:
            raise SpecError(f"{self.name}: the stack has {len(self.layers)} blocks, n_layers={self.n_layers}")
        if not self.bidirectional and any(block.share < 1 for block in self.every_block):
            raise SpecError(f"{self.name}: a share of the tokens reaches a block of a bidirectional model alone")
        crossing = [name for name, block in self.kinds.items() if block.cross is not None]
        if crossing and self.encoder is None:
            raise SpecError(f"{self.name}: blocks {crossing} have cross attention, but there is no encoder to read")
        if self.encoder is not None and any(name.startswith("encoder") for name in self.kinds):
            raise SpecError(
                f"{self.name}: blocks of a decoder are called otherwise than 'encoder', which its encoder's are"
            )
        if self.encoder is not None and self.bidirectional:
            raise SpecError(f"{self.name}: a model with an encoder has a decoder, which cannot be bidirectional")
        if unused := sorted(set(self.kinds) - set(self.layers)):
            raise SpecError(
                f"{self.name}: no layer is one of its blocks {unused}; leave them out or name them in the stack"
            )
        return self

    @property
    def kinds(self) -> dict[str, Block]:
        """Kinds of blocks by name.

        Raises
        ------
        SpecError : a plain model without heads or without a feed-forward part
        """
        return _kinds(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """The kind of every layer, the first one first.

        Raises
        ------
        SpecError : the stack names a kind that is not described
        """
        return _layers(self)

    @property
    def n_layers_of(self) -> Counter[str]:
        """Layers of each kind."""
        return Counter(self.layers)

    @property
    def every_block(self) -> tuple[Block, ...]:
        """Every kind of block, of an encoder too."""
        read = () if self.encoder is None else tuple(self.encoder.blocks.values())
        return (*read, *self.kinds.values())

    @property
    def has_experts(self) -> bool:
        """Whether any block routes its tokens."""
        return any(isinstance(block.ffn, ExpertsFfn) for block in self.every_block)

    def n_norms(self, block: Block) -> int:
        """Norms of one block that read d_model."""
        return self.n_norms_per_block if block.n_norms is None else block.n_norms

    def __hash__(self) -> int:
        """By name and the fields that variants of one model change; equality compares all."""
        return hash((self.name, self.n_layers, self.n_heads, self.n_kv_heads, self.d_head, self.block))


# Read from a model's fields once, not kept in it: a changed copy of it would keep them too.
@lru_cache(maxsize=1000)
def _kinds(model: Model) -> dict[str, Block]:
    if model.stack:
        return model.blocks
    sizes = {"n_heads": model.n_heads, "n_kv_heads": model.n_kv_heads, "d_head": model.d_head, "d_ff": model.d_ff}
    if missing := [name for name, size in sizes.items() if size == 0]:
        raise SpecError(
            f"{model.name}: a plain block needs {', '.join(missing)}; write them, or a stack of other blocks"
        )
    mixer = AttentionMixer(
        n_heads=model.n_heads, n_kv_heads=model.n_kv_heads, d_head=model.d_head, qk_norm=model.qk_norm
    )
    ffn = DenseFfn(d_ff=model.d_ff, gated=model.gated, activation=model.activation)
    return {PLAIN: Block(mixer=mixer, ffn=ffn)}


@lru_cache(maxsize=1000)
def _layers(model: Model) -> tuple[str, ...]:
    if not model.stack:
        return (PLAIN,) * model.n_layers
    found = [name for row in model.stack for name in row.blocks * row.repeat]
    if unknown := sorted(set(found) - set(model.blocks)):
        raise SpecError(f"{model.name}: its stack names blocks {unknown}; described are {sorted(model.blocks)}")
    return tuple(found)
