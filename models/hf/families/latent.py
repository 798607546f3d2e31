"""Decoders with latent attention: DeepSeek-V2, V3 and V3.2, Kimi-K2, GLM-5 and their kin."""

from ....hardware_specs.errors import SpecError
from ...blocks import Block
from ...description import Model
from ...feed_forward import DenseFfn, ExpertsFfn
from ...mixers.latent import Indexer, LatentMixer
from ..config import Config
from ..decoder import assemble, dense, experts, n_layers
from ..reach import layer_types, refuse_kind
from ..sparse import sparse_layers
from ..traits import Traits
from .plain import BARE


def latent(config: Config) -> LatentMixer:
    """One latent attention.

    `num_key_value_heads` says nothing here: all heads read one latent; and `head_dim`, where it is given, is the rotated part.

    Raises
    ------
    SpecError : the parts of a head are not as wide as the whole
    """
    config.ignore("n_kv_heads", "d_head", "mla_use_nope", "kv_b_proj_bias")
    d_nope, d_rope = config.count("qk_nope_head_dim"), config.count("qk_rope_head_dim")
    whole = config.optional("qk_head_dim")
    if whole not in (None, d_nope + d_rope) and not config.reading.missing:
        raise SpecError(
            f"{config.name}: qk_head_dim={whole}, but qk_nope_head_dim={d_nope} and qk_rope_head_dim={d_rope} "
            f"are {d_nope + d_rope}; mend one of them"
        )
    indexer = None
    if config.has("index_topk"):
        indexer = Indexer(
            n_heads=config.count("index_n_heads"),
            d_head=config.count("index_head_dim"),
            top_k=config.count("index_topk"),
        )
    return LatentMixer(
        n_heads=config.count("n_heads"),
        q_rank=config.optional("q_lora_rank"),
        kv_rank=config.count("kv_lora_rank"),
        d_nope=d_nope,
        d_rope=d_rope,
        d_value=config.count("v_head_dim"),
        indexer=indexer,
        output_gate=config.flag("mla_use_output_gate", False),
    )


def bias_params(config: Config, mixer: LatentMixer) -> int:
    """Elements of the biases on what leads into the latents and out of the heads."""
    if not config.flag("attention_bias", False):
        return 0
    return (mixer.q_rank or 0) + mixer.kv_rank + mixer.d_rope + config.count("d_model")


def feed_forward(config: Config, traits: Traits) -> list[DenseFfn | ExpertsFfn]:
    """A dense part or experts, by layer."""
    sparse = sparse_layers(config, n_layers(config))
    ffn = experts(config, traits) if any(sparse) else None
    wide = None if all(sparse) else dense(config, traits)
    if wide is None:
        config.ignore("d_ff")
    parts = [ffn if has else wide for has in sparse]
    return [part for part in parts if part is not None]


def deepseek(config: Config) -> Model:
    """DeepSeek-V2, V3, R1, V3.2; Kimi-K2; GLM-4.7-Flash; Mistral 4."""
    mixer = latent(config)
    other = bias_params(config, mixer)
    config.ignore("layer_types", "indexer_types")
    return assemble(
        config, BARE, [Block(mixer=mixer, ffn=ffn, n_other_params=other) for ffn in feed_forward(config, BARE)]
    )


def minicpm3(config: Config) -> Model:
    """MiniCPM3: latent attention, dense throughout."""
    mixer, ffn = latent(config), dense(config, BARE)
    other = bias_params(config, mixer)
    block = Block(mixer=mixer, ffn=ffn, n_other_params=other)
    return assemble(config, Traits(tied=True), [block] * n_layers(config))


def glm_dsa(config: Config) -> Model:
    """GLM-5: an indexer in some layers, whose picks the layers behind it read again."""
    whole = latent(config)
    picks = whole.indexer.top_k if whole.indexer else None
    again = whole.model_copy(update={"indexer": None, "top_k": picks})
    other = bias_params(config, whole)
    config.ignore("layer_types")
    mixers = [whole if picks_itself else again for picks_itself in _indexed(config)]
    parts = zip(mixers, feed_forward(config, BARE), strict=True)
    return assemble(config, BARE, [Block(mixer=mixer, ffn=ffn, n_other_params=other) for mixer, ffn in parts])


def _indexed(config: Config) -> list[bool]:
    """Which layers have an indexer of their own."""
    count = n_layers(config)
    pattern = config.value("index_topk_pattern")
    kinds = layer_types(config, count, word="indexer_types")
    if kinds is None and pattern is not None:
        kinds = [{"F": "full", "S": "shared"}.get(str(one), str(one)) for one in pattern]
    if kinds is None:
        every = config.optional("index_topk_freq") or 1
        skipped = config.value("index_skip_topk_offset")
        offset = skipped if isinstance(skipped, int) else 2
        return [max(i - offset + 1, 0) % every == 0 for i in range(count)]
    if unknown := next((kind for kind in kinds if kind not in ("full", "shared")), None):
        raise refuse_kind(config, unknown, ("full", "shared"), word="indexer_types")
    return [kind == "full" for kind in kinds][:count] + [True] * (count - len(kinds))
