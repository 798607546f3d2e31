"""State spaces against attention: a state of one size against a cache that grows."""

from itertools import takewhile

from ...models.catalogue import get_model
from ...models.description import Model
from ...models.params import n_params
from ..api import estimate
from ..result import Plan
from .values import Crossover, check, decode_phase

_CHIP = "a100-80gb-sxm:1"
# GPT-style, as large as Mamba 1.4B but for a few per cent, and with positions for every context shown.
_TRANSFORMER, _POSITIONS = "gpt (h=2048, L=24, heads=16)", 131073
_INPUT, _OUTPUT = 2048, 128


def recurrent() -> Crossover:
    """Mamba 1.4B and a Transformer of like size: a step over the context, and tokens/s at the best batch.

    References
    ----------
    [Gu2023] sections 1 and 4.5, Figure 8.
    """
    mamba = get_model("mamba-1.4b")
    transformer = get_model(_TRANSFORMER).model_copy(update={"name": "transformer", "max_context": _POSITIONS})
    assert abs(n_params(transformer) / n_params(mamba) - 1.0) < 0.1, "models of like size"
    contexts = (512, 2048, 8192, 32768, 131072)
    curves: dict[str, dict[float, float]] = {}
    for name, model in (("Mamba 1.4B", mamba), ("Transformer 1.3B", transformer)):
        phases = {n: decode_phase(model, _CHIP, batch=16, context=n, weights="fp16") for n in contexts}
        curves[name] = {float(n): 1e3 * phase.step_s for n, phase in phases.items() if phase is not None}
    flat = curves["Mamba 1.4B"]
    gain = tokens_per_s(mamba) / tokens_per_s(transformer)
    return Crossover(
        name="recurrent",
        title="A state space's step costs the same at every context",
        setting=f"fp16 on {_CHIP}, batch 16, at the roofline",
        x="context (tokens)",
        y="decode step (ms)",
        curves=curves,
        checks=(
            check("mamba-flat", max(flat.values()) / min(flat.values()), tolerance=1e-9),
            check("mamba-throughput", gain, order=gain > 1.0),
        ),
    )


def tokens_per_s(model: Model) -> float:
    """Most tokens a second, prompts read and answers written one batch after the other."""
    fitting = takewhile(lambda plan: plan is not None, (_served(model, 2**i) for i in range(11)))
    return max(plan.decode.batch * _OUTPUT / plan.request_latency_s for plan in fitting if plan is not None)


def _served(model: Model, batch: int) -> Plan | None:
    result = estimate(model, _CHIP, input_tokens=_INPUT, output_tokens=_OUTPUT, batch=batch, weights="fp16", bound=True)
    return result.plans[0] if result.plans else None
