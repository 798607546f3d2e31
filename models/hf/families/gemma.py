"""Gemma 3n and 4: unlike layers, layers that read the keys of others, an embedding a layer."""

from ....hardware_specs.errors import SpecError
from ...blocks import Block
from ...description import Model
from ...feed_forward import DenseFfn, ExpertsFfn
from ...mixers.attention import AttentionMixer, Reach
from ..config import Config
from ..decoder import assemble, attention, dense, experts, n_layers
from ..reach import reaches
from ..traits import Traits

_GEMMA = Traits(
    qkv_bias=("attention_bias", False),
    out_bias=("attention_bias", False),
    activation="gelu",
    qk_norm=True,
    n_norms=4,
    post_norms=True,
    tied=True,
    full_every=6,
    stretches=False,
)


def _per_layer_embedding(config: Config, count: int, width: int) -> int:
    """A table of one embedding a layer, a projection of the usual one beside it, and a norm."""
    if not width:
        return 0
    table = config.count("vocab_size_per_layer_input") * count * width
    return table + config.count("d_model") * count * width + width


def _per_layer_block(d_model: int, width: int) -> int:
    """A gate into the layer's embedding, a projection out of it, a norm."""
    return (2 * width + 1) * d_model if width else 0


def gemma4(config: Config) -> Model:
    """Gemma 4: layers that see everything have heads of their own width, and may take keys for values."""
    count, d_model = n_layers(config), config.count("d_model")
    width = config.optional("hidden_size_per_layer_input", least=0) or 0
    shared_from = count - (config.optional("num_kv_shared_layers", least=0) or 0)
    config.ignore("use_double_wide_mlp", "vocab_size_per_layer_input", "per_layer_config")
    mixers = _gemma4_mixers(config, shared_from)
    ffn, doubled = _gemma4_ffn(config)
    moe = isinstance(ffn, ExpertsFfn)
    # beside the experts: three norms more, and the router's scales of the model's width and an expert each
    other = _per_layer_block(d_model, width) + (d_model + ffn.n_experts if isinstance(ffn, ExpertsFfn) else 0)
    blocks = [
        Block(mixer=mixer, ffn=doubled if i >= shared_from else ffn, n_norms=7 if moe else None, n_other_params=other)
        for i, mixer in enumerate(mixers)
    ]
    return assemble(config, _GEMMA, blocks, n_other_params=_per_layer_embedding(config, count, width))


def _gemma4_mixers(config: Config, shared_from: int) -> list[AttentionMixer]:
    same = config.flag("attention_k_eq_v", False)
    local = attention(config, _GEMMA)
    whole = local.model_copy(
        update={
            "d_head": config.count("global_head_dim", 512),
            "n_kv_heads": (config.optional("num_global_key_value_heads") if same else None) or local.n_kv_heads,
            "value_is_key": same,
        }
    )
    if whole.n_heads % whole.n_kv_heads:
        raise SpecError(
            f"{config.name}: num_global_key_value_heads={whole.n_kv_heads} does not divide its {whole.n_heads} heads"
        )
    found: list[Reach | None] = reaches(config, _GEMMA, n_layers(config))
    found[-1] = None
    return [
        (whole if reach is None else local).model_copy(update={"reach": reach, "own_kv": i < shared_from})
        for i, reach in enumerate(found)
    ]


def _gemma4_ffn(config: Config) -> tuple[DenseFfn | ExpertsFfn, DenseFfn | ExpertsFfn]:
    """Of a layer with keys of its own, and of one that reads those of another."""
    wide = dense(config, _GEMMA)
    if config.flag("enable_moe_block", False):
        ffn = experts(config, _GEMMA, d_ff_shared=wide.d_ff)
        return ffn, ffn
    config.ignore("n_experts", "n_experts_per_token", "d_ff_expert")
    factor = 2 if config.flag("use_double_wide_mlp", False) else 1
    return wide, wide.model_copy(update={"d_ff": factor * wide.d_ff})


def gemma3n(config: Config) -> Model:
    """Gemma 3n: four residuals of which one is worked on (AltUp), a low-rank path beside attention (LAuReL)."""
    count, d_model = n_layers(config), config.count("d_model")
    width, streams = config.count("hidden_size_per_layer_input"), config.count("altup_num_inputs")
    rank = config.count("laurel_rank")
    shared_from = count - (config.optional("num_kv_shared_layers", least=0) or 0)
    config.ignore(
        "altup_active_idx",
        "altup_coef_clip",
        "altup_correct_scale",
        "altup_lr_multiplier",
        "activation_sparsity_pattern",
    )
    config.ignore("d_ff")
    laurel = (2 * rank + 1) * d_model
    altup = 2 * d_model + streams * d_model + streams**2 * (streams + 1)
    other = laurel + altup + _per_layer_block(d_model, width)
    mixer = attention(config, _GEMMA)
    found = reaches(config, Traits(full_every=5), count)
    blocks = [
        Block(
            mixer=mixer.model_copy(update={"reach": reach, "own_kv": i < shared_from}),
            ffn=dense(config, _GEMMA, d_ff),
            n_other_params=other,
        )
        for i, (reach, d_ff) in enumerate(zip(found, _widths(config, count), strict=True))
    ]
    mixing = 2 * (streams - 1) * d_model**2
    return assemble(config, _GEMMA, blocks, n_other_params=mixing + _per_layer_embedding(config, count, width))


def _widths(config: Config, count: int) -> list[int]:
    """Width of every layer's feed-forward part: one for all, or a list."""
    written = config.value("d_ff")
    widths = written if isinstance(written, list) else [config.count("d_ff")] * count
    if len(widths) != count or any(not isinstance(one, int) or one < 1 for one in widths):
        raise SpecError(
            f"{config.name}: intermediate_size must be one whole number, or one for each of its {count} layers"
        )
    return widths
