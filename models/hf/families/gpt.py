"""Decoders of GPT's line: layer norms with a shift, biases, two matrices in the feed-forward part."""

from dataclasses import replace

from ...blocks import Block
from ...description import Model
from ...feed_forward import DenseFfn
from ..config import Config
from ..decoder import assemble, attention, attentions, dense, n_layers, plain_decoder
from ..traits import Traits

_SHIFTED = Traits(norm="layernorm", norm_bias=True, gated=False, activation="gelu")
_GPT = replace(_SHIFTED, qkv_bias=True, out_bias=True, ffn_bias=True, positions="learned", tied=True)
_PARALLEL = replace(_SHIFTED, parallel=True, n_norms=1, ffn_bias=True, logits_bias=True)


def _four_times(config: Config, traits: Traits) -> DenseFfn:
    """A feed-forward part, four times as wide as the model where the file does not say."""
    return dense(config, traits, config.optional("d_ff") or 4 * config.count("d_model"))


def _alike(config: Config, traits: Traits, *, n_kv_heads: int | None = None) -> Model:
    block = Block(mixer=attention(config, traits, n_kv_heads=n_kv_heads), ffn=_four_times(config, traits))
    return assemble(config, traits, [block] * n_layers(config))


def gpt2(config: Config) -> Model:
    """GPT-2."""
    config.ignore("n_ctx")
    return _alike(config, _GPT)


def gpt_bigcode(config: Config) -> Model:
    """StarCoder: GPT-2 with one key-value head."""
    config.ignore("n_kv_heads", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
    return _alike(config, _GPT, n_kv_heads=1 if config.flag("multi_query", True) else config.count("n_heads"))


def gptj(config: Config) -> Model:
    """GPT-J and CodeGen: a parallel block; the feed-forward part and the logits alone have biases."""
    return _alike(config, _PARALLEL)


def bloom(config: Config) -> Model:
    """BLOOM: ALiBi, and a norm on the embedding; the length it was trained at sets no limit."""
    config.ignore("max_context", "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "masked_softmax_fusion")
    return _alike(config, replace(_GPT, positions="alibi", embedding_norm=True))


def gpt_neo(config: Config) -> Model:
    """GPT-Neo: some layers see a window; queries, keys and values have no bias."""
    traits = replace(_GPT, qkv_bias=False)
    kinds = config.items("attention_layers") or _expanded(config.items("attention_types"), n_layers(config))
    whole, ffn = attention(config, traits), _four_times(config, traits)
    pairs = zip(attentions(config, traits), kinds, strict=False)
    return assemble(
        config, traits, [Block(mixer=local if kind == "local" else whole, ffn=ffn) for local, kind in pairs]
    )


def _expanded(types: list[object] | None, count: int) -> list[object]:
    """GPT-Neo's ``[[["global", "local"], 12]]`` as a list of layers."""
    rows = [row for row in types or [] if isinstance(row, list) and len(row) == 2 and isinstance(row[0], list)]
    usual: list[object] = ["global", "local"] * count
    return [kind for row in rows for kind in row[0] * int(row[1])] or usual[:count]


def gpt_neox(config: Config) -> Model:
    """GPT-NeoX and Pythia."""
    biased = config.flag("attention_bias", True)
    parallel = config.flag("use_parallel_residual", True)
    return plain_decoder(config, replace(_SHIFTED, parallel=parallel, qkv_bias=biased, out_bias=biased, ffn_bias=True))


def opt(config: Config) -> Model:
    """OPT: its table of positions has two rows more than positions; one of the small ones embeds narrower than it works."""
    biased = config.flag("enable_bias", True)
    first = config.flag("do_layer_norm_before", True)
    scaled = config.flag("layer_norm_elementwise_affine", True)
    traits = replace(
        _GPT,
        qkv_bias=biased,
        out_bias=biased,
        ffn_bias=biased,
        extra_positions=2,
        final_norm=first and not config.flag("_remove_final_layer_norm", False),
        activation="relu",
        norm_bias=scaled,
        norm_scale=scaled,
    )
    model = plain_decoder(config, traits)
    narrow = config.optional("word_embed_proj_dim")
    return model if narrow in (None, model.d_model) else model.model_copy(update={"d_embedding": narrow})


def mpt(config: Config) -> Model:
    """MPT: ALiBi whatever it says of learned positions; no biases, in norms neither."""
    part = config.part("attn_config")
    config.ignore("learned_pos_emb", "no_bias")
    n_heads = config.count("n_heads")
    alibi, rope = part.flag("alibi", True), part.flag("rope", False)
    one = part.text("attn_type", "multihead_attention") == "multiquery_attention"
    kv_heads = 1 if one else part.optional("kv_n_heads") or n_heads
    normed = part.flag("qk_ln", False)
    part.ignore_all()
    traits = Traits(
        norm="layernorm",
        gated=False,
        activation="gelu",
        positions="alibi" if alibi else "rope" if rope else "learned",
        qk_norm=normed,
        qk_norm_over="width",
        tied=True,
    )
    d_ff = int(config.factor("expansion_ratio", 4.0) * config.count("d_model"))
    block = Block(mixer=attention(config, traits, n_kv_heads=kv_heads), ffn=dense(config, traits, d_ff))
    return assemble(config, traits, [block] * n_layers(config))


def falcon(config: Config) -> Model:
    """Falcon: `num_kv_heads` counts in the newer architecture alone; the older one has one head of keys and values."""
    newer, parallel = config.flag("new_decoder_architecture", False), config.flag("parallel_attn", True)
    n_heads, written = config.count("n_heads"), config.optional("n_kv_heads")
    kv_heads = (written or n_heads) if newer else 1 if config.flag("multi_query", True) else n_heads
    biased = config.flag("bias", False)
    norms = config.optional("num_ln_in_parallel_attn") or (2 if newer else 1)
    traits = replace(
        _SHIFTED,
        parallel=parallel or newer,
        n_norms=norms if parallel or newer else 2,
        qkv_bias=biased,
        out_bias=biased,
        ffn_bias=biased,
        positions="alibi" if config.flag("alibi", False) else "rope",
        tied=True,
    )
    config.ignore("apply_residual_connection_post_layernorm", "multi_query")
    return _alike(config, traits, n_kv_heads=kv_heads)


def phi(config: Config) -> Model:
    """Phi-1, 1.5 and 2: a parallel block, every projection with a bias."""
    return _normed_queries(config, replace(_PARALLEL, qkv_bias=True, out_bias=True), config.flag("qk_layernorm", False))


def persimmon(config: Config) -> Model:
    """Persimmon."""
    traits = replace(_SHIFTED, qkv_bias=True, out_bias=True, ffn_bias=True, activation="relu2")
    return _normed_queries(config, traits, config.flag("qk_layernorm", True))


def _normed_queries(config: Config, traits: Traits, normed: bool) -> Model:
    """Norms of query and key have a shift as well."""
    mixer = attention(config, replace(traits, qk_norm=normed))
    shifts = 2 * mixer.d_head if normed else 0
    return assemble(
        config, traits, [Block(mixer=mixer, ffn=dense(config, traits), n_other_params=shifts)] * n_layers(config)
    )


def stablelm(config: Config) -> Model:
    """StableLM: layer norms with a shift around a gated feed-forward part; a norm a head, where it has them."""
    parallel = config.flag("use_parallel_residual", False)
    traits = replace(
        _SHIFTED,
        gated=True,
        activation="silu",
        qkv_bias=("use_qkv_bias", False),
        parallel=parallel,
        n_norms=1 if parallel else 2,
        qk_norm=("qk_layernorm", False),
        qk_norm_over="width",
    )
    return plain_decoder(config, traits)
