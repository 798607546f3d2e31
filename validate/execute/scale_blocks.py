"""Blocks of a smaller model that divide over a mesh as the large ones do."""

from ...models.blocks import Block
from ...models.description import Model
from ...models.feed_forward import DenseFfn, ExpertsFfn
from ...models.mixers.attention import AttentionMixer
from ...models.mixers.compressed import CompressedMixer
from ...models.mixers.delta import DeltaMixer
from ...models.mixers.latent import LatentMixer
from ...models.mixers.linear import LinearMixer
from ...models.mixers.mamba import Mamba2Mixer, MambaMixer
from ...models.mixers.rwkv import RwkvMixer

# Channels that Mamba and RWKV cut over chips together
_CHANNELS = 64
_LEAST_WIDTH = 8


def divided(size: int, factor: int, unit: int) -> int:
    """`size` over the largest divisor up to `factor` that keeps it a multiple of `unit`, if it was one.

    >>> divided(18432, 64, 64), divided(50257, 8, 8)
    (256, 6283)
    """
    if size % unit:
        return -(-size // factor) + (1 if (-(-size // factor)) % unit == 0 else 0)
    return max(size // unit // factor, 1) * unit


def narrow(size: int, factor: int) -> int:
    """A width of one head or of a latent, which no chip shares: even where it was, and no less than 8 if it was more."""
    return divided(size, min(factor, max(size // _LEAST_WIDTH, 1)), 2)


def scaled_block(block: Block, factor: int, n_chips: int) -> Block:
    """A block whose widths are divided by up to `factor`; heads, and experts a token, stay as they are.

    Parameters
    ----------
    n_chips : of one stage; what divides over them still does
    """
    changed: dict[str, object] = {}
    if block.mixer is not None:
        changed["mixer"] = block.mixer.model_copy(update=_mixer(block.mixer, factor, n_chips))
    if block.ffn is not None:
        changed["ffn"] = block.ffn.model_copy(update=_ffn(block.ffn, factor, n_chips))
    return block.model_copy(update=changed | {"n_other_params": block.n_other_params // factor})


def _mixer(mixer: object, factor: int, n_chips: int) -> dict[str, object]:
    match mixer:
        case AttentionMixer():
            return _attention(mixer, factor, n_chips)
        case LatentMixer():
            return _latent(mixer, factor)
        case CompressedMixer():
            return {}
        case MambaMixer() | RwkvMixer():
            inner: dict[str, object] = {"d_inner": divided(mixer.d_inner, factor, _CHANNELS * n_chips)}
            if isinstance(mixer, RwkvMixer):
                return inner
            return inner | {"d_state": narrow(mixer.d_state, factor), "dt_rank": narrow(mixer.dt_rank, factor)}
        case Mamba2Mixer():
            return {"d_head": narrow(mixer.d_head, factor), "d_state": narrow(mixer.d_state, factor)}
        case DeltaMixer():
            squeezed: dict[str, object] = {"d_squeezed": narrow(mixer.d_squeezed, factor)} if mixer.d_squeezed else {}
            return {"d_value": narrow(mixer.d_value, factor), "d_key": narrow(mixer.d_key, factor)} | squeezed
        case LinearMixer():
            return {"d_head": narrow(mixer.d_head, factor), "d_feature": narrow(mixer.d_feature, factor)}
    raise AssertionError(mixer)


def _attention(mixer: AttentionMixer, factor: int, n_chips: int) -> dict[str, object]:
    changed: dict[str, object] = {"d_head": narrow(mixer.d_head, factor)}
    if mixer.d_value is not None:
        changed["d_value"] = narrow(mixer.d_value, factor)
    if mixer.reach is not None:
        changed["reach"] = mixer.reach.model_copy(update={"size": divided(mixer.reach.size, factor, n_chips)})
    return changed


def _latent(mixer: LatentMixer, factor: int) -> dict[str, object]:
    widths = ("q_rank", "kv_rank", "d_nope", "d_rope", "d_value")
    changed: dict[str, object] = {
        name: narrow(size, factor) for name in widths if (size := getattr(mixer, name)) is not None
    }
    if mixer.top_k is not None:
        changed["top_k"] = max(mixer.top_k // factor, 1)
    if mixer.indexer is not None:
        index = mixer.indexer
        # an indexer turns as much of its heads as the rotated part is wide
        width = max(narrow(index.d_head, factor), narrow(mixer.d_rope, factor))
        changed["indexer"] = index.model_copy(update={"d_head": width, "top_k": max(index.top_k // factor, 1)})
    return changed


def _ffn(ffn: DenseFfn | ExpertsFfn, factor: int, n_chips: int) -> dict[str, object]:
    changed: dict[str, object] = {"d_ff": divided(ffn.d_ff, factor, n_chips)}
    if isinstance(ffn, DenseFfn):
        return changed
    if ffn.d_ff_shared:
        changed["d_ff_shared"] = divided(ffn.d_ff_shared, factor, n_chips)
    if ffn.d_latent is not None:
        changed["d_latent"] = divided(ffn.d_latent, factor, n_chips)
    return changed | {"n_experts": _experts(ffn, factor, n_chips)}


def _experts(ffn: ExpertsFfn, factor: int, n_chips: int) -> int:
    """Fewer experts that still divide over the chips, and are at least those of a token."""
    fewest = divided(ffn.n_experts, factor, n_chips)
    while fewest < ffn.n_experts_per_token:
        fewest += n_chips if ffn.n_experts % n_chips == 0 else 1
    return min(fewest, ffn.n_experts)


def scaled_layers(model: Model, n_layers: int) -> tuple[str, ...]:
    """Kinds of a shallower model's layers in their order: each kind's first layer, then layers from evenly over the depth."""
    layers = model.layers
    kept = {layers.index(kind) for kind in model.kinds}
    wanted = max(n_layers, len(kept))
    spread = sorted(range(len(layers)), key=lambda i: (i * wanted % len(layers), i))
    for i in spread:
        if len(kept) >= wanted:
            break
        kept.add(i)
    return tuple(layers[i] for i in sorted(kept))
