"""From a config file's fields to blocks, and from blocks to a model."""

from collections.abc import Sequence

from ...hardware_specs.errors import SpecError
from ..blocks import Block
from ..description import Biases, Model
from ..encoder import Encoder
from ..feed_forward import DenseFfn, ExpertsFfn
from ..mixers.attention import AttentionMixer, Reach
from .config import Config
from .positions import max_context
from .reach import reaches
from .stack import plain_block, stack_of
from .traits import Traits, activation, says


def head_width(config: Config, n_heads: int) -> int:
    """Elements of one head.

    Raises
    ------
    SpecError : there is no `head_dim`, and the heads do not divide the width of the model
    """
    written = config.optional("d_head")
    if written is not None:
        return written
    d_model = config.count("d_model")
    if d_model % n_heads and not config.reading.missing:
        raise SpecError(
            f"{config.name}: num_attention_heads={n_heads} does not divide hidden_size={d_model}, and there is no head_dim; "
            "mend one of them, or --override head_dim=N"
        )
    return max(d_model // n_heads, 1)


def attention(
    config: Config,
    traits: Traits,
    *,
    n_kv_heads: int | None = None,
    d_head: int | None = None,
    reach: Reach | None = None,
) -> AttentionMixer:
    """Attention as most families write it.

    Raises
    ------
    SpecError : key-value heads do not divide the query heads
    """
    n_heads = config.count("n_heads")
    kv_heads = n_kv_heads or config.optional("n_kv_heads") or n_heads
    if n_heads % kv_heads and not config.reading.missing:
        raise SpecError(
            f"{config.name}: num_key_value_heads={kv_heads} does not divide num_attention_heads={n_heads}; mend one of them"
        )
    return AttentionMixer(
        n_heads=n_heads,
        n_kv_heads=kv_heads,
        d_head=d_head or head_width(config, n_heads),
        reach=reach,
        qk_norm=says(config, traits.qk_norm),
        qk_norm_over=traits.qk_norm_over,
    )


def attentions(config: Config, traits: Traits, mixer: AttentionMixer | None = None) -> list[AttentionMixer]:
    """One for every layer, each with its reach."""
    mixer = mixer or attention(config, traits)
    return [mixer.model_copy(update={"reach": reach}) for reach in reaches(config, traits, n_layers(config))]


def n_layers(config: Config) -> int:
    """Blocks of the decoder."""
    return config.count("n_layers")


def dense(config: Config, traits: Traits, d_ff: int | None = None) -> DenseFfn:
    """A dense feed-forward part."""
    return DenseFfn(
        d_ff=d_ff or config.count("d_ff"),
        gated=traits.gated,
        activation=activation(config, "activation", traits.activation),
    )


def experts(config: Config, traits: Traits, *, d_ff: int | None = None, d_ff_shared: int | None = None) -> ExpertsFfn:
    """A mixture of experts; shared ones, where there are any, are together as wide as that many routed ones.

    Raises
    ------
    SpecError : a token is sent to more experts than there are
    """
    n_experts, per_token = config.count("n_experts"), config.count("n_experts_per_token")
    if per_token > n_experts and not config.reading.missing:
        raise SpecError(f"{config.name}: a token is sent to {per_token} of {n_experts} experts; mend one of the two")
    width = d_ff or config.count("d_ff_expert")
    shared = (config.optional("n_shared_experts", least=0) or 0) * width if d_ff_shared is None else d_ff_shared
    return ExpertsFfn(
        n_experts=n_experts,
        n_experts_per_token=min(per_token, n_experts),
        d_ff=width,
        gated=traits.gated,
        activation=activation(config, "activation", traits.activation),
        d_ff_shared=shared,
    )


def assemble(
    config: Config,
    traits: Traits,
    blocks: Sequence[Block],
    *,
    encoder: Encoder | None = None,
    bidirectional: bool = False,
    n_other_params: int = 0,
    n_learned_positions: int | None = None,
) -> Model:
    """A model of these blocks, one a layer.

    Raises
    ------
    SpecError : the parts do not fit together
    """
    plain, (kinds, rows) = plain_block(blocks), stack_of(blocks)
    context = max_context(config, stretched=traits.stretches)
    learned = (context or 0) + traits.extra_positions if traits.positions == "learned" else 0
    return Model(
        name=config.name,
        source=f"config.json of {config.name}",
        n_layers=len(blocks),
        d_model=config.count("d_model"),
        d_ff=plain.d_ff if plain else 0,
        n_heads=plain.n_heads if plain else 0,
        n_kv_heads=plain.n_kv_heads if plain else 0,
        d_head=plain.d_head if plain else 0,
        qk_norm=bool(plain and plain.qk_norm),
        gated=bool(plain and plain.gated),
        activation=plain.activation if plain else traits.activation,
        vocab_size=config.count("vocab_size"),
        max_context=context,
        block="parallel" if traits.parallel else "serial",
        norm=traits.norm,
        norm_bias=traits.norm_bias,
        norm_scale=traits.norm_scale,
        n_norms_per_block=traits.n_norms,
        post_norms=traits.post_norms,
        embedding_norm=traits.embedding_norm,
        final_norm=traits.final_norm,
        positions=traits.positions,
        n_learned_positions=learned if n_learned_positions is None else n_learned_positions,
        tied_embeddings=config.flag("tie_word_embeddings", traits.tied),
        biases=biases(config, traits),
        blocks={} if plain else kinds,
        stack=() if plain else rows,
        encoder=encoder,
        bidirectional=bidirectional,
        n_other_params=n_other_params,
    )


def biases(config: Config, traits: Traits) -> Biases:
    """Which projections add a bias."""
    return Biases(
        qkv=says(config, traits.qkv_bias),
        attention_out=says(config, traits.out_bias),
        ffn=says(config, traits.ffn_bias),
        logits=says(config, traits.logits_bias),
    )


def plain_decoder(config: Config, traits: Traits) -> Model:
    """A decoder whose layers differ in their reach at most."""
    ffn = dense(config, traits)
    return assemble(config, traits, [Block(mixer=mixer, ffn=ffn) for mixer in attentions(config, traits)])
