"""Dense decoders whose files need no more than their fields looked up."""

from dataclasses import replace

from ...description import Model
from ..config import Config
from ..decoder import plain_decoder
from ..traits import Traits

_SAYS = ("attention_bias", False)
_HAS = ("attention_bias", True)
_BIAS = ("bias", False)
BARE = Traits()
LLAMA = Traits(qkv_bias=_SAYS, out_bias=_SAYS, ffn_bias=("mlp_bias", False))
QWEN2 = Traits(qkv_bias=("qkv_bias", True), window_by_default=False)
QWEN3 = Traits(qkv_bias=_SAYS, out_bias=_SAYS, qk_norm=True, window_by_default=False)
GEMMA = Traits(qkv_bias=_SAYS, out_bias=_SAYS, activation="gelu", tied=True)
GEMMA2 = replace(GEMMA, n_norms=4, post_norms=True, full_every=2)
GEMMA3 = replace(GEMMA2, qk_norm=True, full_every=6, stretches=False)
_COHERE = Traits(norm="layernorm", parallel=True, n_norms=1, qkv_bias=_SAYS, out_bias=_SAYS, tied=True)
_OLMO2 = Traits(qkv_bias=_SAYS, out_bias=_SAYS, qk_norm=True, qk_norm_over="width")
_USES = ("use_bias", False)
_USES_TOO = ("use_bias", True)

TRAITS: dict[str, Traits] = {
    "llama": LLAMA,
    "Yi": LLAMA,
    "aquila": LLAMA,
    "granite": LLAMA,
    "cwm": replace(LLAMA, full_every=4),
    "minicpm": replace(LLAMA, tied=True),
    "smollm3": replace(LLAMA, tied=True, window_by_default=False),
    "arcee": replace(LLAMA, gated=False, activation="relu2"),
    "nemotron": replace(LLAMA, norm="layernorm", norm_bias=True, gated=False, activation="relu2"),
    "hunyuan_v1_dense": replace(LLAMA, ffn_bias=False, qk_norm=True),
    "mistral": BARE,
    "ministral": BARE,
    "ministral3": BARE,
    "phi3": BARE,
    "helium": Traits(qkv_bias=_SAYS),
    "internlm": Traits(qkv_bias=("bias", True), out_bias=("bias", True)),
    "internlm2": Traits(qkv_bias=_BIAS, out_bias=_BIAS),
    "internlm3": Traits(qkv_bias=("qkv_bias", False), out_bias=_BIAS, ffn_bias=_BIAS),
    "seed_oss": Traits(qkv_bias=_HAS, out_bias=("attention_out_bias", False), ffn_bias=("mlp_bias", False)),
    "ernie4_5": Traits(qkv_bias=_USES, out_bias=_USES, ffn_bias=_USES, tied=True),
    "qwen2": QWEN2,
    "qwen2_vl": QWEN2,
    "qwen2_5_vl": QWEN2,
    "qwen2_vl_text": QWEN2,
    "qwen2_5_vl_text": QWEN2,
    "qwen3": QWEN3,
    "qwen3_vl_text": QWEN3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "cohere": replace(_COHERE, qk_norm=("use_qk_norm", False), qk_norm_over="width"),
    "cohere2": replace(_COHERE, full_every=4),
    "olmo": Traits(norm="layernorm", norm_scale=False, qkv_bias=_SAYS, out_bias=_SAYS),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, full_every=4),
    "exaone4": Traits(qk_norm=True, full_every=4),
    "glm": Traits(qkv_bias=_HAS),
    "glm4": Traits(qkv_bias=_HAS, n_norms=4, post_norms=True),
    "starcoder2": Traits(
        norm="layernorm",
        norm_bias=True,
        gated=False,
        activation="gelu",
        qkv_bias=_USES_TOO,
        out_bias=_USES_TOO,
        ffn_bias=_USES_TOO,
        tied=True,
    ),
}


def by_traits(config: Config, model_type: str) -> Model:
    """A decoder of a family in `TRAITS`."""
    config.ignore("no_rope_layers", "no_rope_layer_interval", "norm_epsilon")
    return plain_decoder(config, TRAITS[model_type])


def baichuan(config: Config) -> Model:
    """Baichuan: the larger one has ALiBi, and its file is the one that gives no positions but a length it was trained at."""
    config.ignore("max_context")
    rope = config.has("max_position_embeddings")
    return plain_decoder(config, replace(BARE, positions="rope" if rope else "alibi"))
