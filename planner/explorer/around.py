"""The explorer of a plan: its own model, chip and workload, and what lies around them."""

from collections.abc import Mapping, Sequence

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.errors import SpecError
from ...models.catalogue import get_model
from ..result import Plan, PlanResult
from .question import Offer, Start, make_offer

# What can be varied on the page beside the limits, the batch and the price, which take any value.
VARIED = ("model", "hardware", "chips", "input", "output", "weights", "kv-dtype")

_INPUTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_OUTPUTS = (0.5, 1.0, 2.0)
_LEAST_CHIPS = 8


def start_of(result: PlanResult, *, rank: int = 1) -> Start:
    """The page opens with a plan of a result, under the result's limits."""
    plan = result.of_rank(rank)
    return Start(
        model=result.model,
        chip=plan.decode.chip,
        input_tokens=result.workload.input_tokens,
        output_tokens=result.workload.output_tokens,
        weights=plan.decode.weights,
        kv_dtype=plan.decode.kv_dtype,
        chips=plan.n_chips,
        ttft_s=result.ttft_s,
        tpot_s=result.tpot_s,
        objective=result.objective,
    )


def offer_around(result: PlanResult, varied: Mapping[str, Sequence[str]], *, rank: int = 1) -> Offer:
    """What the page offers: the values of what is varied, and around the plan where nothing is said.

    Parameters
    ----------
    varied : values by name, of `VARIED`; what the plan has is always among them

    Raises
    ------
    SpecError : a name that cannot be varied here, or a value that is none
    """
    unknown = sorted(set(varied) - set(VARIED))
    if unknown:
        raise SpecError(
            f"the explorer varies {', '.join(VARIED)}, not {unknown[0]}; limits, batch and price take any value on its page"
        )
    plan, work = result.of_rank(rank), result.workload
    return make_offer(
        models=[result.model, *varied.get("model", ())],
        chips=[plan.decode.chip, *varied.get("hardware", ())],
        counts=[plan.n_chips, *(_whole("chips", varied["chips"]) if "chips" in varied else _counts(plan))],
        input_tokens=[work.input_tokens, *_tokens("input", varied, result, _INPUTS)],
        output_tokens=[work.output_tokens, *_tokens("output", varied, result, _OUTPUTS)],
        weights=[plan.decode.weights, *varied.get("weights", _narrow(plan))],
        kv_dtypes=[plan.decode.kv_dtype, *varied.get("kv-dtype", _narrow(plan))],
    )


def _counts(plan: Plan) -> list[int]:
    """Powers of two up to twice the plan's chips."""
    most = max(2 * plan.n_chips, _LEAST_CHIPS)
    return [2**i for i in range(most.bit_length())]


def _tokens(name: str, varied: Mapping[str, Sequence[str]], result: PlanResult, factors: Sequence[float]) -> list[int]:
    """Values that were given, or multiples of the plan's that the model's positions hold."""
    if name in varied:
        return _whole(name, varied[name])
    work, most = result.workload, get_model(result.model).max_context
    own, other = (work.input_tokens, work.output_tokens) if name == "input" else (work.output_tokens, work.input_tokens)
    around = [max(round(own * factor), 1) for factor in factors]
    return [n for n in around if most is None or n + other <= most]


def _narrow(plan: Plan) -> list[str]:
    """The narrower format that the chip computes in, else the one it would widen."""
    return ["fp8" if "fp8" in get_chip(plan.decode.chip).dense_flop_per_s else "int8"]


def _whole(name: str, texts: Sequence[str]) -> list[int]:
    for text in texts:
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) > 0):
            raise SpecError(f"{name}={text!r} is no whole number; write e.g. {name}=8,16,32")
    return [int(text) for text in texts]
