"""What an encoder beside the model takes for one prompt."""

from .api import estimate
from .result import Plan


def encoder_s(name: str, tokens: int, plan: Plan) -> float:
    """Seconds of an encoder's pass over one prompt on one chip of the plan, in 16 bits, by the plan's engine.

    Notes
    -----
    The search among what it encoded before is left out.
    """
    phase = plan.prefill
    bound = all(step.source == "bound" for step in phase.breakdown)
    result = estimate(
        name,
        f"{phase.chip}:1",
        input_tokens=tokens,
        output_tokens=0,
        weights="bf16",
        engine=phase.engine,
        bound=bound,
    )
    return result.best.prefill.latency_s
