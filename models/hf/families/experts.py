"""Decoders with attention in every layer and experts in some or all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ....hardware_specs.errors import SpecError
from ...blocks import Block
from ...description import Model
from ...feed_forward import DenseFfn, ExpertsFfn
from ...mixers.attention import AttentionMixer, Reach
from ..config import Config
from ..decoder import assemble, attention, attentions, dense, experts, n_layers
from ..sparse import sparse_layers
from ..traits import Traits
from .plain import BARE, LLAMA, QWEN3

_QWEN2 = Traits(qkv_bias=("qkv_bias", True), window_by_default=False)
_GLM4 = Traits(qkv_bias=("attention_bias", False), qk_norm=("use_qk_norm", False))
_WIDE_NORM = {"qk_norm_over": "width"}


def mixed(
    config: Config,
    traits: Traits,
    ffn: ExpertsFfn,
    *,
    mixers: Sequence[AttentionMixer] | None = None,
    wide: Callable[[], DenseFfn] | None = None,
) -> Model:
    """Experts in the layers that have them, a dense feed-forward part in the others.

    Parameters
    ----------
    wide : makes the dense one, where any layer has it; as the file gives it without
    """
    sparse = sparse_layers(config, n_layers(config))
    dense_ffn = None if all(sparse) else (wide or (lambda: dense(config, traits)))()
    if dense_ffn is None:
        config.ignore("d_ff")
    parts = zip(mixers or attentions(config, traits), sparse, strict=True)
    return assemble(config, traits, [Block(mixer=mixer, ffn=ffn if has else dense_ffn) for mixer, has in parts])


def mixtral(config: Config) -> Model:
    """Mixtral: `intermediate_size` is that of one expert."""
    return mixed(config, BARE, experts(config, BARE, d_ff=config.count("d_ff"), d_ff_shared=0))


def phimoe(config: Config) -> Model:
    """Phi-3.5-MoE: layer norms with a shift, biases on attention and logits."""
    bias = ("attention_bias", False)
    traits = Traits(norm="layernorm", norm_bias=True, qkv_bias=bias, out_bias=bias, logits_bias=("lm_head_bias", False))
    return mixed(config, traits, experts(config, traits, d_ff=config.count("d_ff"), d_ff_shared=0))


def olmoe(config: Config) -> Model:
    """OLMoE, and FlexOlmo, which norms behind its parts in place of before them."""
    bias = ("attention_bias", False)
    traits = Traits(qkv_bias=bias, out_bias=bias, qk_norm=True, qk_norm_over="width")
    return mixed(config, traits, experts(config, traits, d_ff=config.count("d_ff"), d_ff_shared=0))


def granitemoe(config: Config) -> Model:
    """GraniteMoe, with a shared expert in its later form."""
    shared = config.optional("d_ff_shared", least=0) or 0
    return mixed(config, LLAMA, experts(config, LLAMA, d_ff=config.count("d_ff"), d_ff_shared=shared))


def qwen2_moe(config: Config) -> Model:
    """Qwen2-MoE: the shared experts have a gate of one number."""
    ffn = experts(config, _QWEN2, d_ff_shared=config.count("d_ff_shared"))
    return mixed(config, _QWEN2, ffn.model_copy(update={"shared_gate": True}))


def qwen3_moe(config: Config) -> Model:
    """Qwen3-MoE, Qwen3-Coder, Qwen3-VL-MoE's decoder."""
    return mixed(config, QWEN3, experts(config, QWEN3, d_ff_shared=0))


def minimax_m2(config: Config) -> Model:
    """MiniMax-M2: full attention in every layer, queries and keys normed over their whole width.

    Raises
    ------
    SpecError : a layer with another kind of attention
    """
    kinds = config.items("attn_type_list") or []
    if any(kind != 1 for kind in kinds):
        raise SpecError(
            f"{config.name}: attn_type_list has a kind of attention other than 1 (full), which cannot be described"
        )
    config.ignore("qk_norm_type", "use_routing_bias", "use_mtp", "mtp_transformer_layers", "d_ff_shared")
    traits = Traits(qk_norm=("use_qk_norm", True), qk_norm_over="width")
    return mixed(config, traits, experts(config, traits, d_ff=config.count("d_ff"), d_ff_shared=0))


def glm4_moe(config: Config) -> Model:
    """GLM-4.5, 4.6 and 4.7."""
    return mixed(config, _GLM4, experts(config, _GLM4))


def deepseek(config: Config) -> Model:
    """The first DeepSeekMoE: plain attention, shared experts."""
    return mixed(config, LLAMA, experts(config, LLAMA))


def dots1(config: Config) -> Model:
    """dots.llm1, Solar Open: normed queries and keys, shared experts."""
    traits = Traits(qkv_bias=("attention_bias", False), out_bias=("attention_bias", False), qk_norm=True)
    return mixed(config, traits, experts(config, traits))


def exaone_moe(config: Config) -> Model:
    """K-EXAONE."""
    traits = Traits(qk_norm=True, full_every=4)
    return mixed(config, traits, experts(config, traits))


def ernie(config: Config) -> Model:
    """ERNIE 4.5: a learned correction of the router's scores an expert."""
    bias = ("use_bias", False)
    traits = Traits(qkv_bias=bias, out_bias=bias, ffn_bias=bias, tied=True)
    ffn = experts(config, traits)
    config.ignore("moe_layer_end_index", "moe_use_aux_free", "moe_gate", "use_flash_attention")
    return mixed(config, traits, ffn.model_copy(update={"router_bias": True}))


def gpt_oss(config: Config) -> Model:
    """gpt-oss: sinks, biases everywhere but in norms, embedding and logits; windows in every other layer."""
    biased = ("attention_bias", True)
    traits = Traits(qkv_bias=biased, out_bias=biased, full_every=2)
    mixer = attention(config, traits).model_copy(update={"sinks": True})
    ffn = experts(config, traits, d_ff=config.count("d_ff"), d_ff_shared=0)
    ffn = ffn.model_copy(update={"router_bias": True, "expert_bias": True})
    return mixed(config, traits, ffn, mixers=attentions(config, traits, mixer))


def dbrx(config: Config) -> Model:
    """DBRX: layer norms without a shift; attention and experts in objects of their own."""
    attn, ffn = config.part("attn_config"), config.part("ffn_config")
    n_heads = config.count("n_heads")
    kv_heads = attn.optional("kv_n_heads") or config.optional("n_kv_heads") or n_heads
    traits = Traits(norm="layernorm")
    n_experts, per_token = ffn.count("n_experts"), ffn.count("n_experts_per_token")
    d_ff = ffn.count("ffn_hidden_size")
    attn.ignore_all()
    ffn.ignore_all()
    if per_token > n_experts:
        raise SpecError(f"{config.name}: a token is sent to {per_token} of {n_experts} experts; mend one of the two")
    block = Block(
        mixer=attention(config, traits, n_kv_heads=kv_heads),
        ffn=ExpertsFfn(n_experts=n_experts, n_experts_per_token=per_token, d_ff=d_ff, gated=True, activation="silu"),
    )
    return assemble(config, traits, [block] * n_layers(config))


def llama4(config: Config) -> Model:
    """Llama 4: a shared expert beside the routed ones; layers without positions see everything, the others a chunk."""
    traits = replace(LLAMA, ffn_bias=False)
    config.ignore("use_qk_norm", "for_llm_compressor", "layer_types")
    d_ff, wide = config.count("d_ff"), config.optional("intermediate_size_mlp")
    size, context = config.optional("attention_chunk_size"), config.optional("max_context")
    chunk = None if size is None or (context is not None and size >= context) else Reach(pattern="chunk", size=size)
    rotated = _rotated(config)
    plain = attention(config, traits)
    mixers = [plain.model_copy(update={"reach": chunk} if has else {"positions": "none"}) for has in rotated]
    ffn = experts(config, traits, d_ff=d_ff, d_ff_shared=d_ff)
    return mixed(config, traits, ffn, mixers=mixers, wide=lambda: dense(config, traits, wide or d_ff))


def _rotated(config: Config) -> list[bool]:
    """Which layers have positions: `no_rope_layers` has a 1 for those that do."""
    count = n_layers(config)
    listed = config.items("no_rope_layers") or []
    interval = config.optional("no_rope_layer_interval") or 4
    return [bool(listed[i]) if i < len(listed) else (i + 1) % interval != 0 for i in range(count)]


def step3(config: Config) -> Model:
    """Step-3.5 and 3.7: one gate a head; layers with a window have more query heads."""
    bias = ("attention_bias", False)
    traits = Traits(qkv_bias=bias, out_bias=bias, qk_norm=True)
    other = config.part("attention_other_setting")
    other.ignore_all()
    windowed_heads = (
        config.optional("num_sliding_attention_heads") or other.optional("n_heads") or config.count("n_heads")
    )
    config.ignore(
        "use_head_wise_attn_gate", "yarn_only_types", "zero_centered", "norm_expert_weight", "use_rope_layers"
    )
    config.ignore("sink", "use_qk_norm", "enable_sfa")
    whole = attention(config, traits).model_copy(update={"head_gate": True})
    windowed = whole.model_copy(update={"n_heads": windowed_heads})
    mixers = [
        (whole if mixer.reach is None else windowed).model_copy(update={"reach": mixer.reach})
        for mixer in attentions(config, traits, whole)
    ]
    if windowed_heads % windowed.n_kv_heads:
        raise SpecError(
            f"{config.name}: {windowed.n_kv_heads} key-value heads do not divide {windowed_heads} query heads"
        )
    ffn = experts(config, traits, d_ff_shared=config.optional("d_ff_shared"))
    return mixed(config, traits, ffn, mixers=mixers)
