"""Decoders whose repositories bring their own code, and those that learn something more a layer."""

from dataclasses import replace
from typing import Any

from ....hardware_specs.errors import SpecError
from ...blocks import Block
from ...description import Model
from ...mixers.attention import Reach
from ..config import Config
from ..decoder import assemble, attention, attentions, dense, n_layers
from ..traits import Traits
from .plain import LLAMA

# Widths found by architecture search are rounded up to a multiple of this.
_SEARCH_STEP = 256


def chatglm(config: Config) -> Model:
    """ChatGLM2, ChatGLM3 and GLM-4."""
    groups = config.optional("multi_query_group_num")
    kv_heads = groups if config.flag("multi_query_attention", False) else None
    biased = config.flag("add_bias_linear", False)
    traits = Traits(
        qkv_bias=config.flag("add_qkv_bias", False) or biased,
        out_bias=biased,
        ffn_bias=biased,
        norm="rmsnorm" if config.flag("rmsnorm", True) else "layernorm",
        final_norm=config.flag("post_layer_norm", True),
    )
    block = Block(mixer=attention(config, traits, n_kv_heads=kv_heads), ffn=dense(config, traits))
    return assemble(config, traits, [block] * n_layers(config))


def qwen(config: Config) -> Model:
    """The first Qwen: `intermediate_size` is that of the two matrices in front together."""
    traits = Traits(qkv_bias=True)
    config.ignore("no_bias", "use_cache_quantization", "use_cache_kernel", "n_kv_heads")
    block = Block(mixer=attention(config, traits), ffn=dense(config, traits, max(config.count("d_ff") // 2, 1)))
    return assemble(config, traits, [block] * n_layers(config))


def apertus(config: Config) -> Model:
    """Apertus: two matrices around xIELU, of which two numbers a layer are learned."""
    traits = replace(LLAMA, gated=False, qk_norm=True)
    ffn = dense(config, traits)
    return assemble(
        config, traits, [Block(mixer=mixer, ffn=ffn, n_other_params=2) for mixer in attentions(config, traits)]
    )


def bitnet(config: Config) -> Model:
    """BitNet: norms before what leads out of attention and out of the feed-forward part."""
    traits = replace(LLAMA, ffn_bias=False, activation="relu2")
    mixer, ffn = attention(config, traits), dense(config, traits)
    others = mixer.n_heads * mixer.d_head + ffn.d_ff
    return assemble(config, traits, [Block(mixer=mixer, ffn=ffn, n_other_params=others)] * n_layers(config))


def deci(config: Config) -> Model:
    """DeciLM: each layer has its own number of key-value heads."""
    ffn = dense(config, LLAMA)
    heads = config.items("num_key_value_heads_per_layer")
    if heads is None or len(heads) != n_layers(config):
        raise SpecError(f"{config.name}: num_key_value_heads_per_layer must have one number for each of its layers")
    blocks = [Block(mixer=attention(config, LLAMA, n_kv_heads=_whole(config, n)), ffn=ffn) for n in heads]
    return assemble(config, LLAMA, blocks)


def nemotron_nas(config: Config) -> Model:
    """Llama by architecture search: each layer has its own groups of heads and its own width, or neither.

    Raises
    ------
    SpecError : fewer or more layers than it says
    """
    layers = config.items("block_configs")
    if layers is None or len(layers) != n_layers(config):
        found = "is missing" if layers is None else f"has {len(layers)} layers"
        raise SpecError(f"{config.name}: block_configs {found}, num_hidden_layers={n_layers(config)}")
    config.ignore("d_ff", "n_kv_heads")
    blocks = [block for i, layer in enumerate(layers) if (block := _searched_block(config, layer, i)) is not None]
    if len(blocks) < len(layers):
        config.reading.notes.append(
            f"{len(layers) - len(blocks)} of its {len(layers)} layers do nothing and are left out"
        )
    return assemble(config, LLAMA, blocks)


def _searched_block(config: Config, layer: Any, i: int) -> Block | None:
    if not isinstance(layer, dict):
        raise SpecError(f"{config.name}: block_configs[{i}]={layer!r} must be an object")
    part = Config(layer, config.reading, path=f"block_configs[{i}].")
    mixing, feeding = part.part("attention"), part.part("ffn")
    window = mixing.optional("window_length")
    mixer, ffn = None, None
    if mixing.flag("replace_with_linear", False) or feeding.flag("replace_with_linear", False):
        raise SpecError(
            f"{config.name}: block_configs[{i}] has a plain matrix in place of a part (replace_with_linear), "
            "a kind of block that cannot be described"
        )
    if not mixing.flag("no_op", False):
        group = mixing.optional("n_heads_in_group")
        kv_heads = mixing.optional("n_kv_heads")
        n_heads = config.count("n_heads")
        if group is not None and n_heads % group:
            raise SpecError(
                f"{config.name}: block_configs[{i}] groups {group} heads, which do not divide its {n_heads}"
            )
        reach = None if window is None else Reach(pattern="window", size=window)
        mixer = attention(config, LLAMA, n_kv_heads=kv_heads or (n_heads // group if group else None), reach=reach)
    if not feeding.flag("no_op", False):
        width = feeding.optional("d_ff") or _searched_width(config, feeding)
        ffn = dense(config, LLAMA, width)
    n_norms = (mixer is not None) + (ffn is not None)
    return Block(mixer=mixer, ffn=ffn, n_norms=None if n_norms == 2 else n_norms) if n_norms else None


def _searched_width(config: Config, feeding: Config) -> int:
    """Two thirds of a multiple of twice the model's width, rounded up."""
    factor = feeding.factor("ffn_mult", 0.0)
    if not factor:
        config.reading.missing.append(f"{feeding.path}ffn_mult")
        return 1
    exact = int(2 * factor * config.count("d_model") / 3)
    return -(-exact // _SEARCH_STEP) * _SEARCH_STEP


def _whole(config: Config, number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise SpecError(f"{config.name}: num_key_value_heads_per_layer has {number!r}; it must be a whole number")
    return number
