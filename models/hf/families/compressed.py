"""DeepSeek-V4: windows and compressed entries in place of a cache of every token, several residuals mixed."""

from ....hardware_specs.errors import SpecError
from ...blocks import Block
from ...description import Model
from ...mixers.compressed import CompressedMixer
from ...mixers.latent import Indexer
from ..config import Config
from ..decoder import assemble, experts, n_layers
from ..reach import layer_types, refuse_kind
from ..sparse import sparse_layers
from .plain import BARE

_KINDS = ("sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention")
_RATIOS = {_KINDS[1]: 4, _KINDS[2]: 128}


def deepseek_v4(config: Config) -> Model:
    """DeepSeek-V4.

    Raises
    ------
    SpecError : a kind of layer nobody knows
    """
    count, d_model = n_layers(config), config.count("d_model")
    config.ignore(
        "n_kv_heads",
        "qk_rope_head_dim",
        "num_hash_layers",
        "expert_dtype",
        "compress_rates",
        "compress_rate_csa",
        "compress_rate_hca",
    )
    streams = config.count("hc_mult", 4)
    mixed = (2 + streams) * streams
    mixing = 2 * (mixed * streams * d_model + mixed + 3)
    ffn = experts(config, BARE)
    if not all(sparse_layers(config, count)):
        raise refuse_kind(config, "dense", ("hash_moe", "moe"), word="mlp_layer_types")
    blocks = [Block(mixer=_mixer(config, ratio), ffn=ffn, n_other_params=mixing) for ratio in _ratios(config, count)]
    return assemble(config, BARE, blocks, n_other_params=streams * streams * d_model + streams + 1)


def _ratios(config: Config, count: int) -> list[int]:
    """Tokens an entry stands for by layer, 0 for the window alone.

    Raises
    ------
    SpecError : fewer ratios than layers
    """
    rates = config.part("compress_rates")
    csa = rates.optional(_KINDS[1]) or config.optional("compress_rate_csa") or _RATIOS[_KINDS[1]]
    hca = rates.optional(_KINDS[2]) or config.optional("compress_rate_hca") or _RATIOS[_KINDS[2]]
    kinds = layer_types(config, count)
    listed = config.items("compress_ratios")
    if kinds is None and listed is not None:
        if len(listed) < count or any(not isinstance(one, int) or one < 0 for one in listed):
            raise SpecError(f"{config.name}: compress_ratios must have a whole number for each of its {count} layers")
        return [int(one) for one in listed[:count]]
    if kinds is None:
        kinds = [_KINDS[2]] * min(count, 2) + [_KINDS[1] if i % 2 else _KINDS[2] for i in range(max(count - 2, 0))]
    if unknown := next((kind for kind in kinds if kind not in _KINDS), None):
        raise refuse_kind(config, unknown, _KINDS)
    return [{_KINDS[0]: 0, _KINDS[1]: csa, _KINDS[2]: hca}[kind] for kind in kinds]


def _mixer(config: Config, ratio: int) -> CompressedMixer:
    """The lighter compression overlaps and has an indexer; the heavier one has neither."""
    light = 0 < ratio < _RATIOS[_KINDS[2]]
    indexer = Indexer(
        n_heads=config.count("index_n_heads", 64),
        d_head=config.count("index_head_dim", 128),
        top_k=config.count("index_topk", 512),
    )
    return CompressedMixer(
        n_heads=config.count("n_heads"),
        d_head=config.count("d_head", 512),
        q_rank=config.count("q_lora_rank", 1024),
        o_groups=config.count("o_groups", 8),
        o_rank=config.count("o_lora_rank", 1024),
        window=config.count("window", 128),
        ratio=ratio or None,
        overlapping=light,
        indexer=indexer if light else None,
    )
