"""Encoders, alone or before a decoder: BERT and its kin; T5, Switch and BART."""

from dataclasses import replace

from ...blocks import Block
from ...description import Model
from ...encoder import Encoder
from ...feed_forward import DenseFfn, ExpertsFfn
from ...mixers.attention import AttentionMixer, Reach
from ..config import Config
from ..decoder import assemble, attention, dense, n_layers
from ..stack import stack_of
from ..traits import Traits, activation

_BERT = Traits(
    norm="layernorm",
    norm_bias=True,
    embedding_norm=True,
    final_norm=False,
    gated=False,
    activation="gelu",
    positions="learned",
    qkv_bias=True,
    out_bias=True,
    ffn_bias=True,
    tied=True,
)


def bert(config: Config, *, offset: int = 0, types: int = 2) -> Model:
    """BERT, RoBERTa (whose table of positions has `offset` rows more than positions): what its task puts on top is counted."""
    config.ignore("position_embedding_type", "use_pooler")
    d_model = config.count("d_model")
    table = types if offset else 2
    kinds = config.optional("type_vocab_size", least=0)
    n_types = table if kinds is None else kinds
    rows = config.count("max_context", 512)
    head, logits = _head(config, d_model)
    traits = replace(_BERT, logits_bias=logits)
    block = Block(mixer=attention(config, traits), ffn=dense(config, traits))
    model = assemble(
        config,
        traits,
        [block] * n_layers(config),
        bidirectional=True,
        n_other_params=n_types * d_model + head,
        n_learned_positions=rows,
    )
    return model.model_copy(update={"max_context": rows - offset})


def _head(config: Config, d_model: int) -> tuple[int, bool]:
    """Parameters between the last layer and what the model gives, and whether its logits have a bias.

    A language model has a projection and a norm, what embeds or classifies a pooling projection.
    """
    names = config.items("architectures") or ["ForMaskedLM"]
    task = str(names[0])
    projection, norm = d_model * (d_model + 1), 2 * d_model
    if task.endswith(("ForMaskedLM", "LMHeadModel", "ForCausalLM")):
        return projection + norm, True
    if task.endswith("ForPreTraining"):
        return 2 * projection + norm + 2 * (d_model + 1), True
    if task.endswith("ForSequenceClassification"):
        return projection + (config.optional("num_labels") or 2) * (d_model + 1), False
    return projection, False


def roberta(config: Config) -> Model:
    """RoBERTa, XLM-RoBERTa, CamemBERT."""
    return bert(config, offset=2, types=1)


def distilbert(config: Config) -> Model:
    """DistilBERT: half of BERT's layers, and no types of tokens."""
    config.ignore("sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings")
    d_model = config.count("dim")
    head, logits = _head(config, d_model)
    plain = str((config.items("architectures") or ["ForMaskedLM"])[0]).endswith("Model")
    traits = replace(_BERT, logits_bias=logits)
    n_heads = config.count("n_heads")
    mixer = AttentionMixer(n_heads=n_heads, n_kv_heads=n_heads, d_head=max(d_model // n_heads, 1))
    block = Block(mixer=mixer, ffn=dense(config, traits, config.count("hidden_dim")))
    rows = config.count("max_context", 512)
    widened = Config(
        {"hidden_size": d_model, "vocab_size": config.count("vocab_size"), "max_position_embeddings": rows},
        config.reading,
    )
    return assemble(
        widened,
        traits,
        [block] * n_layers(config),
        bidirectional=True,
        n_other_params=0 if plain else head,
        n_learned_positions=rows,
    )


def modernbert(config: Config) -> Model:
    """ModernBERT: gated, RoPE, windows in two of three layers; the first norm stands before the stack."""
    count = n_layers(config)
    every, window = config.count("global_attn_every_n_layers", 3), config.count("local_attention", 128)
    config.ignore(
        "deterministic_flash_attn",
        "sparse_prediction",
        "sparse_pred_ignore_index",
        "reference_compile",
        "repad_logits_with_grad",
    )
    config.ignore(
        "global_rope_theta", "local_rope_theta", "layer_types", "pooling", "layer_norm_eps", "position_embedding_type"
    )
    traits = Traits(
        norm="layernorm",
        norm_bias=config.flag("norm_bias", False),
        embedding_norm=True,
        activation="gelu",
        logits_bias=("decoder_bias", True),
        tied=True,
        qkv_bias=("attention_bias", False),
        out_bias=("attention_bias", False),
        ffn_bias=("mlp_bias", False),
    )
    d_model = config.count("d_model")
    mixer, ffn = attention(config, traits), dense(config, traits)
    local = mixer.model_copy(update={"reach": Reach(pattern="window", size=window)})
    blocks = [Block(mixer=local if i % every else mixer, ffn=ffn, n_norms=1 if i == 0 else None) for i in range(count)]
    head = d_model * (d_model + config.flag("classifier_bias", False)) + d_model * (1 + traits.norm_bias)
    return assemble(config, traits, blocks, bidirectional=True, n_other_params=head)


def t5(config: Config, *, every_layer: bool = False, gated: bool = False) -> Model:
    """T5, mT5, UL2, Flan; UMT5 has positions of its own in every layer."""
    name = config.text("feed_forward_proj", "gated-gelu" if gated else "relu")
    traits = Traits(
        gated=config.flag("is_gated_act", name.startswith("gated")),
        activation=activation(config, "feed_forward_proj", "relu") if not name.startswith("gated") else "gelu",
        positions="relative",
        tied=True,
    )
    config.ignore("n_positions")
    ffn = DenseFfn(d_ff=config.count("d_ff"), gated=traits.gated, activation=traits.activation)
    depth = n_layers(config)
    decoded = config.optional("num_decoder_layers") or depth
    return _relative(config, traits, [ffn] * depth, [ffn] * decoded, every_layer=every_layer)


def _relative(
    config: Config,
    traits: Traits,
    read: list[DenseFfn] | list[DenseFfn | ExpertsFfn],
    written: list[DenseFfn] | list[DenseFfn | ExpertsFfn],
    *,
    every_layer: bool = False,
) -> Model:
    """Encoder and decoder with tables of relative positions in the first layer of both, or in all."""
    n_heads = config.count("n_heads")
    width = config.count("d_head", max(config.count("d_model") // n_heads, 1))
    mixer = AttentionMixer(n_heads=n_heads, n_kv_heads=n_heads, d_head=width)
    tables = len(read) + len(written) if every_layer else 2
    kinds, rows = stack_of([Block(mixer=mixer, ffn=ffn) for ffn in read])
    blocks = [Block(mixer=mixer, cross=mixer, ffn=ffn, n_norms=3) for ffn in written]
    return assemble(
        config,
        traits,
        blocks,
        encoder=Encoder(blocks=kinds, stack=rows),
        n_other_params=tables * config.count("relative_attention_num_buckets", 32) * n_heads,
    )


def umt5(config: Config) -> Model:
    """UMT5."""
    return t5(config, every_layer=True, gated=True)


def mt5(config: Config) -> Model:
    """mT5."""
    return t5(config, gated=True)


def switch(config: Config) -> Model:
    """Switch Transformer: T5 with experts in one of every few layers of both halves."""
    traits = Traits(gated=False, activation="relu", positions="relative", tied=True)
    depth = n_layers(config)
    decoded = config.optional("num_decoder_layers") or depth
    wide = dense(config, traits)
    config.ignore(
        "expert_capacity",
        "router_bias",
        "n_positions",
        "feed_forward_proj",
        "is_gated_act",
        "batch_prioritized_routing",
    )
    config.ignore("num_selected_experts", "expert_parallel", "add_router_probs")
    many = ExpertsFfn(
        n_experts=config.count("n_experts"),
        n_experts_per_token=1,
        d_ff=wide.d_ff,
        gated=False,
        activation=wide.activation,
        router_bias=config.flag("router_bias", False),
    )
    halves = []
    for count, sparse, step in (
        (depth, "num_sparse_encoder_layers", "encoder_sparse_step"),
        (decoded, "num_sparse_decoder_layers", "decoder_sparse_step"),
    ):
        n_sparse = config.optional(sparse, least=0)
        every = config.optional(step) or (count // n_sparse if n_sparse else 0)
        halves.append([many if every and (every == 1 or i % every == 1) else wide for i in range(count)])
    return _relative(config, traits, halves[0], halves[1])


def bart(config: Config, *, first: bool = False) -> Model:
    """BART; mBART norms before its parts and so once more behind them."""
    config.ignore(
        "n_layers", "static_position_embeddings", "add_bias_logits", "normalize_embedding", "add_final_layer_norm"
    )
    config.ignore("normalize_before", "extra_pos_embeddings")
    traits = replace(_BERT, extra_positions=2, final_norm=first)
    d_model = config.count("d_model")
    kinds, rows = stack_of(_bart_blocks(config, traits, d_model, "encoder"))
    positions = config.count("max_context", 1024) + traits.extra_positions
    encoder = Encoder(blocks=kinds, stack=rows, n_learned_positions=positions, embedding_norm=True, final_norm=first)
    return assemble(config, traits, _bart_blocks(config, traits, d_model, "decoder"), encoder=encoder)


def _bart_blocks(config: Config, traits: Traits, d_model: int, half: str) -> list[Block]:
    n_heads = config.count(f"{half}_attention_heads")
    mixer = AttentionMixer(n_heads=n_heads, n_kv_heads=n_heads, d_head=max(d_model // n_heads, 1))
    ffn = dense(config, traits, config.count(f"{half}_ffn_dim"))
    decodes = half == "decoder"
    block = Block(mixer=mixer, cross=mixer if decodes else None, ffn=ffn, n_norms=3 if decodes else None)
    return [block] * config.count(f"{half}_layers")


def mbart(config: Config) -> Model:
    """MBART."""
    return bart(config, first=True)
