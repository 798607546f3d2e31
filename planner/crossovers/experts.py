"""Mixtures of experts: against a dense model of equal work, and cut over all chips against whole on some."""

import math

from ...models.blocks import Block
from ...models.catalogue import get_model
from ...models.description import Model
from ...models.feed_forward import ExpertsFfn
from ...models.params import n_params
from ..result import PhasePlan
from .values import Crossover, check, decode_phase

_BATCHES, _CONTEXT = tuple(4**n for n in range(7)), 2048
_TENSOR, _SPREAD = "ws-1d-allreduce/heads/tensor", "dp/heads/exchange"


def switch() -> Crossover:
    """Switch-Base and T5-Base, their decoders alone: equal work a token, many more weights.

    References
    ----------
    [Fedus2021] Table 9.
    """
    sparse, dense = (_decoder(get_model(name)) for name in ("switch-base-128", "t5-base"))
    phases = {
        model.name: {
            n: found
            for n in (*_BATCHES, 16384)
            if (found := decode_phase(model, "h100-sxm:1", batch=n, context=64, weights="bf16")) is not None
        }
        for model in (sparse, dense)
    }
    flop = [_computed(phases[model.name][16384]) for model in (sparse, dense)]
    whole = [n_params(get_model(name)) for name in ("switch-base-128", "t5-base")]
    return Crossover(
        name="switch",
        title="Switch and a dense model of equal work: alike for one token and for very many, not between",
        setting="decoders of Switch-Base (128 experts) and T5-Base on h100-sxm:1, context 64, bf16, at the roofline",
        x="batch (sequences)",
        y="decode step (ms)",
        curves={name: {float(n): 1e3 * phase.step_s for n, phase in row.items()} for name, row in phases.items()},
        checks=(
            check("switch-flop", flop[0] / flop[1], tolerance=0.05),
            check("switch-params", whole[0] / whole[1], tolerance=0.1),
        ),
    )


def _decoder(model: Model) -> Model:
    """The decoder of an encoder-decoder by itself, no expert with room for more than its even share."""
    blocks: dict[str, Block] = {}
    for kind, block in model.blocks.items():
        ffn = block.ffn
        even = ffn.model_copy(update={"capacity_factor": 1.0}) if isinstance(ffn, ExpertsFfn) else ffn
        blocks[kind] = block.model_copy(update={"cross": None, "ffn": even})
    return model.model_copy(update={"name": f"{model.name} decoder", "encoder": None, "blocks": blocks})


def _computed(phase: PhasePlan) -> float:
    """What a pass computes, in flop over the peak of a chip."""
    return phase.hfu * phase.step_s


def mixtral() -> Crossover:
    """Mixtral 8x7B on one node: every expert cut over all chips, or one a chip with replicas of attention.

    References
    ----------
    [Jiang2024] section 2.1; [TensorRTLLM].
    """
    curves = _both_ways("mixtral-8x7b", "h100-sxm:8", "bf16")
    cut, spread, uneven_cut, uneven_spread = curves.values()
    last = max(uneven_cut.keys() & uneven_spread.keys())
    uneven = uneven_spread[last] / uneven_cut[last]
    return Crossover(
        name="experts-mixtral",
        title="Mixtral 8x7B: experts cut over all chips, unless the batch is large and evenly routed",
        setting="h100-sxm:8, bf16, context 2048; chosen alike at the roofline, unequally where kernels were measured",
        x="batch (sequences)",
        y="decode step (ms)",
        curves=curves,
        checks=(
            check("tensor-few", _overtaken(cut, spread), order=_overtaken(cut, spread) > min(cut)),
            check("mixtral-balance", uneven, order=uneven > 1.0 > spread[last] / cut[last]),
        ),
    )


def deepseek() -> Crossover:
    """DeepSeek-V3 on one node, in the same two ways.

    References
    ----------
    [TensorRTLLM]; [SGLang2025].
    """
    curves = _both_ways("deepseek-v3", "h200-sxm:8", "fp8")
    cut, spread, measured_cut, measured_spread = curves.values()
    starts = [_overtaken(cut, spread), _overtaken(measured_cut, measured_spread)]
    larger = max(spread) / max(cut)
    return Crossover(
        name="experts-deepseek",
        title="DeepSeek-V3: whole experts with data-parallel attention, once the batch is large",
        setting="h200-sxm:8, fp8, context 2048; at the roofline and by measured kernels",
        x="batch (sequences)",
        y="decode step (ms)",
        curves=curves,
        checks=(
            check("deepseek-many", starts[1], order=min(starts) > min(cut) and max(starts) < math.inf),
            check("deepseek-batch", larger, order=larger > 1.0),
        ),
    )


def _both_ways(model: str, on: str, weights: str) -> dict[str, dict[float, float]]:
    """Milliseconds of a step by batch: cut and spread at the roofline, then by measured kernels."""
    return {
        f"{way}, {how}": {
            float(n): 1e3 * phase.step_s
            for n in _BATCHES
            if (
                phase := decode_phase(model, on, batch=n, context=_CONTEXT, weights=weights, layout=layout, bound=bound)
            )
        }
        for how, bound in (("roofline", True), ("measured kernels", False))
        for way, layout in (("cut over all chips", _TENSOR), ("spread", _SPREAD))
    }


def _overtaken(first: dict[float, float], second: dict[float, float]) -> float:
    """The least x at which the second curve is below the first, or is alone; infinity if at none."""
    return min((x for x, y in second.items() if y < first.get(x, math.inf)), default=math.inf)
