"""What the weights of a model occupy when different parts of it are kept in different formats."""

from dataclasses import dataclass

from ..hardware_specs.dtypes import parse_dtype
from .blocks import Block
from .description import Model
from .feed_forward import ExpertsFfn
from .params import attention_params, ffn_params, mixer_params, n_params


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamsByPart:
    """Parameters of each part that may have a format of its own.

    Parameters
    ----------
    mixers, feed_forward, experts : matrices of the blocks, with the few vectors of mixers and dense parts
    rest : embedding, logits, norms, routers, biases of experts, a vision tower
    """

    mixers: int
    feed_forward: int
    experts: int
    rest: int


def params_by_part(model: Model) -> ParamsByPart:
    """Count every parameter once, by the part it belongs to.

    Examples
    --------
    >>> from shardwise.models.catalogue import get_model
    >>> params_by_part(get_model("llama-3.1-8b"))
    ParamsByPart(mixers=1342177280, feed_forward=5637144576, experts=0, rest=1050939392)
    """
    counted = [(model.kinds[kind], n) for kind, n in model.n_layers_of.items()]
    if model.encoder is not None:
        counted += [(model.encoder.blocks[kind], n) for kind, n in model.encoder.n_layers_of.items()]
    mixers = sum(n * _mixer_params(model, block) for block, n in counted)
    experts = sum(n * _expert_matrices(model, block) for block, n in counted)
    feed_forward = sum(n * _dense_params(model, block) for block, n in counted)
    return ParamsByPart(
        mixers=mixers,
        feed_forward=feed_forward,
        experts=experts,
        rest=n_params(model) - mixers - feed_forward - experts,
    )


def _mixer_params(model: Model, block: Block) -> int:
    cross = 0 if block.cross is None else attention_params(model, block.cross)
    return mixer_params(model, block) + cross


def _matrices(width: int, d_ff: int, *, gated: bool) -> int:
    return (3 if gated else 2) * width * d_ff


def _expert_matrices(model: Model, block: Block) -> int:
    ffn = block.ffn
    if not isinstance(ffn, ExpertsFfn):
        return 0
    return ffn.n_experts * _matrices(ffn.d_latent or model.d_model, ffn.d_ff, gated=ffn.gated)


def _dense_params(model: Model, block: Block) -> int:
    """A dense part, or the shared experts beside the routed ones."""
    ffn = block.ffn
    if isinstance(ffn, ExpertsFfn):
        return _matrices(model.d_model, ffn.d_ff_shared, gated=ffn.gated)
    return ffn_params(model, block)


def weight_bytes(model: Model, *, scales: float = 0.0) -> float:
    """Bytes of all weights, each part in its own format.

    Parameters
    ----------
    scales : bytes of scales and zero points beside each element of a part that is quantised

    Notes
    -----
    Formats that cannot live without their scales (mxfp4, nvfp4) count them already.
    """
    parts = params_by_part(model)
    native = model.embedding_dtype or model.weights_dtype
    formats = (
        (parts.mixers, model.mixer_dtype or model.weights_dtype),
        (parts.feed_forward, model.weights_dtype),
        (parts.experts, model.expert_dtype or model.weights_dtype),
        (parts.rest, native),
    )
    total = 0.0
    for count, name in formats:
        dtype = parse_dtype(name)
        scaled = name != native and dtype.name not in ("mxfp4", "nvfp4")
        total += count * (dtype.bytes_per_element + scaled * scales)
    return total
