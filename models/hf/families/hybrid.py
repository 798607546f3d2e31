"""Stacks of attention and recurrent blocks: Jamba, Nemotron-H, Granite 4, Bamba, Qwen3-Next and 3.5, Kimi Linear."""

from collections.abc import Mapping, Sequence
from typing import Any

from ....hardware_specs.errors import SpecError
from ...blocks import Block, Mixer
from ...description import Model
from ...feed_forward import DenseFfn, ExpertsFfn
from ...mixers.delta import DeltaMixer
from ...mixers.mamba import MambaMixer
from ..config import Config
from ..decoder import assemble, attention, dense, experts, n_layers
from ..reach import layer_types, refuse_kind
from ..sparse import sparse_layers
from ..traits import Traits
from .latent import bias_params, feed_forward, latent
from .recurrent import inner_width, mamba2_mixer, time_step_rank

_ATTENTION = ("attention", "full_attention", "*")
_RECURRENT = ("mamba", "linear_attention", "M", "kda")
_QWEN = Traits(qkv_bias=("attention_bias", False), out_bias=("attention_bias", False), qk_norm=True)


def _mixers(config: Config, kinds: Sequence[str], whole: Mixer, recurrent: Mixer) -> list[Mixer]:
    """The mixer of every layer by its kind.

    Raises
    ------
    SpecError : a kind that is neither attention nor recurrent
    """
    found = dict.fromkeys(_ATTENTION, whole) | dict.fromkeys(_RECURRENT, recurrent)
    if unknown := next((kind for kind in kinds if kind not in found), None):
        raise refuse_kind(config, unknown, [_ATTENTION[1], _RECURRENT[1]])
    return [found[kind] for kind in kinds]


def jamba(config: Config) -> Model:
    """Jamba: one attention in a period of Mamba, experts in every other layer."""
    count, traits = n_layers(config), Traits(positions="none")
    period, offset = config.count("attn_layer_period", 8), config.count("attn_layer_offset", 4, least=0)
    every, first = config.count("expert_layer_period", 2), config.count("expert_layer_offset", 1, least=0)
    config.ignore("layer_types", "layers_block_type", "sliding_window")
    mixer = MambaMixer(
        d_inner=inner_width(config, written=None),
        d_state=config.count("d_state", 16),
        dt_rank=time_step_rank(config),
        d_conv=config.count("d_conv", 4),
        conv_bias=config.flag("mamba_conv_bias", True),
        proj_bias=config.flag("mamba_proj_bias", False),
        inner_norms=True,
    )
    whole, wide = attention(config, traits), dense(config, traits)
    many = config.count("n_experts", 16) > 1
    ffn = experts(config, traits, d_ff=config.count("d_ff"), d_ff_shared=0) if many else wide
    config.ignore("n_experts_per_token")
    return assemble(
        config,
        traits,
        [
            Block(mixer=whole if i % period == offset else mixer, ffn=ffn if i % every == first else wide)
            for i in range(count)
        ],
    )


def nemotron_h(config: Config) -> Model:
    """Nemotron-H and Nemotron 3: every layer is one part: Mamba-2 (M), attention (*), feed-forward (-) or experts (E)."""
    letters = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "mlp": "-", "moe": "E"}
    listed = config.value("hybrid_override_pattern") or config.value("layers_block_type") or config.value("layer_types")
    config.ignore("layers_block_type", "layer_types", "mtp_hybrid_override_pattern", "mtp_layers_block_type", "expand")
    config.ignore(
        "attention_bias", "moe_shared_expert_overlap", "mamba_proj_bias", "moe_latent_size", "use_bias", "head_dim"
    )
    if listed is not None and not isinstance(listed, str | list):
        raise SpecError(
            f"{config.name}: hybrid_override_pattern={listed!r} must be text of one letter a layer, or a list"
        )
    pattern = [letters.get(str(one), str(one)) for one in listed or []]
    if config.has("n_layers") and len(pattern) != n_layers(config):
        raise SpecError(f"{config.name}: its pattern has {len(pattern)} layers, num_hidden_layers={n_layers(config)}")
    traits = Traits(n_norms=1, gated=False, activation="relu2", positions="none", ffn_bias=("mlp_bias", False))
    makers: Mapping[str, Any] = {
        "M": lambda: Block(
            mixer=mamba2_mixer(
                config, heads="mamba_heads", d_head="mamba_d_head", bias="use_bias", conv_bias="use_conv_bias"
            )
        ),
        "*": lambda: Block(mixer=attention(config, traits, d_head=config.optional("attention_head_dim"))),
        "-": lambda: Block(ffn=dense(config, traits)),
        "E": lambda: _latent_experts(config, traits),
    }
    if unknown := next((one for one in pattern if one not in makers), None):
        raise refuse_kind(config, unknown, tuple(makers), word="hybrid_override_pattern")
    made = {letter: makers[letter]() for letter in dict.fromkeys(pattern)}
    config.ignore(
        "d_ff", "n_experts", "d_ff_expert", "n_experts_per_token", "n_shared_experts", "d_ff_shared", "activation"
    )
    if not pattern:
        config.reading.missing.append("hybrid_override_pattern")
        made, pattern = {"*": makers["*"]()}, ["*"]
    return assemble(config, traits, [made[letter] for letter in pattern])


def _latent_experts(config: Config, traits: Traits) -> Block:
    shared = config.optional("d_ff_shared", least=0) if (config.optional("n_shared_experts", least=0) or 0) else 0
    ffn = experts(config, traits, d_ff_shared=shared)
    narrow = config.optional("moe_latent_size")
    # biases of the shared part, and of the projections to and from what the routed ones work in
    biases = config.flag("mlp_bias", False) * (
        ffn.d_ff_shared + config.count("d_model") * (1 if narrow is None else 2) + (narrow or 0)
    )
    return Block(ffn=ffn.model_copy(update={"d_latent": narrow}), n_other_params=biases)


def granite_hybrid(config: Config) -> Model:
    """Granite 4: Mamba-2 and attention; experts, or without any the shared part alone."""
    rope = config.text("position_embedding_type", "nope") == "rope"
    bias = ("attention_bias", False)
    traits = Traits(positions="rope" if rope else "none", qkv_bias=bias, out_bias=bias)
    kinds = layer_types(config, n_layers(config)) or layer_types(config, n_layers(config), word="layers_block_type")
    whole = attention(config, traits)
    if kinds is None or "mamba" in kinds:
        config.ignore("expand")
        mixer: Mixer = mamba2_mixer(
            config, heads="mamba_heads", d_head="mamba_d_head", bias="mamba_proj_bias", conv_bias="mamba_conv_bias"
        )
    else:
        mixer = whole
    shared = config.count("d_ff_shared", 1024)
    if config.optional("n_experts", least=0):
        ffn: DenseFfn | ExpertsFfn = experts(config, traits, d_ff=config.count("d_ff"), d_ff_shared=shared)
    else:
        config.ignore("n_experts_per_token", "d_ff")
        ffn = dense(config, traits, shared)
    mixers = _mixers(config, kinds or ["mamba"] * n_layers(config), whole, mixer)
    return assemble(config, traits, [Block(mixer=one, ffn=ffn) for one in mixers])


def bamba(config: Config) -> Model:
    """Bamba: Mamba-2 with attention in the layers named."""
    traits = Traits(
        qkv_bias=("attention_bias", False), out_bias=("attention_bias", False), ffn_bias=("mlp_bias", False)
    )
    count, attending = n_layers(config), config.items("attn_layer_indices") or []
    config.ignore("expand", "layer_types", "layers_block_type")
    mixer = mamba2_mixer(
        config, heads="mamba_heads", d_head="mamba_d_head", bias="mamba_proj_bias", conv_bias="mamba_conv_bias"
    )
    whole, ffn = attention(config, traits), dense(config, traits)
    return assemble(config, traits, [Block(mixer=whole if i in attending else mixer, ffn=ffn) for i in range(count)])


def qwen3_next(config: Config) -> Model:
    """Qwen3-Next, Qwen3.5: gated delta rule, and attention with an output gate every fourth layer; experts or not."""
    count = n_layers(config)
    every = config.optional("full_attention_interval") or 4
    kinds = layer_types(config, count)
    config.ignore("attn_output_gate", "mtp_use_dedicated_embeddings", "output_gate_type", "use_sliding_window")
    whole = attention(config, _QWEN).model_copy(update={"output_gate": config.flag("attn_output_gate", True)})
    delta = DeltaMixer(
        n_heads=config.count("linear_num_value_heads", 32),
        d_value=config.count("linear_value_head_dim", 128),
        n_key_heads=config.count("linear_num_key_heads", 16),
        d_key=config.count("linear_key_head_dim", 128),
        d_conv=config.count("linear_conv_kernel_dim", 4),
    )
    kinds = kinds or ["linear_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    mixers = _mixers(config, kinds, whole, delta)
    if not config.has("n_experts"):
        config.ignore("mlp_only_layers", "decoder_sparse_step")
        ffn = dense(config, _QWEN)
        return assemble(config, _QWEN, [Block(mixer=mixer, ffn=ffn) for mixer in mixers])
    shared = config.count("d_ff_shared")
    many = experts(config, _QWEN, d_ff_shared=shared).model_copy(update={"shared_gate": True})
    sparse = sparse_layers(config, count)
    wide = None if all(sparse) else dense(config, _QWEN)
    config.ignore("d_ff")
    return assemble(
        config,
        _QWEN,
        [Block(mixer=mixer, ffn=many if has else wide) for mixer, has in zip(mixers, sparse, strict=True)],
    )


def kimi_linear(config: Config) -> Model:
    """Kimi Linear: delta attention with a decay a channel, latent attention without positions every fourth layer."""
    count = n_layers(config)
    part = config.part("linear_attn_config")
    heads = part.optional("n_heads") or config.count("linear_num_heads", 32)
    width = part.optional("d_head") or config.count("linear_head_dim", 128)
    delta = DeltaMixer(
        n_heads=heads,
        d_value=width,
        n_key_heads=heads,
        d_key=width,
        d_conv=part.optional("short_conv_kernel_size") or config.count("linear_conv_kernel_dim", 4),
        d_squeezed=width,
        wide_gate=part.flag("use_full_rank_gate", False),
    )
    kinds = layer_types(config, count) or _listed_kinds(config, part, count)
    part.ignore_all()
    traits = Traits(positions="none")
    whole = latent(config)
    biases, residual = bias_params(config, whole), _attention_residual(config)
    narrow = config.optional("routed_expert_hidden_size")
    normed = narrow if narrow and config.flag("latent_moe_use_norm", True) else 0
    blocks = []
    for mixer, ffn in zip(_mixers(config, kinds, whole, delta), feed_forward(config, traits), strict=True):
        others = residual + (biases if mixer is whole else 0)
        if isinstance(ffn, ExpertsFfn):
            ffn, others = ffn.model_copy(update={"d_latent": narrow}), others + normed
        blocks.append(Block(mixer=mixer, ffn=ffn, n_other_params=others))
    return assemble(config, traits, blocks, n_other_params=residual // 2)


def _attention_residual(config: Config) -> int:
    """Kimi-K3 weighs earlier residuals before both parts of a block, and once at the end: a norm and a query each."""
    config.ignore("activation_situ_beta", "activation_situ_linear_beta")
    return 4 * config.count("d_model") if config.optional("attn_res_block_size") else 0


def _listed_kinds(config: Config, part: Config, count: int) -> list[str]:
    """Kinds of layers from lists of their places, the first layer being 1.

    Raises
    ------
    SpecError : a layer is in neither or both lists
    """
    attending, linear = part.items("full_attn_layers"), part.items("kda_layers")
    if attending is None:
        return ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(count)]
    whole = {place for place in attending if isinstance(place, int)}
    others = whole ^ set(range(1, count + 1)) if linear is None else set(linear)
    if whole & others or whole | others != set(range(1, count + 1)):
        raise SpecError(f"{config.name}: full_attn_layers and kda_layers do not name each of its {count} layers once")
    return ["full_attention" if place in whole else "linear_attention" for place in range(1, count + 1)]
