"""The explorer of a what-if: its question, what is varied, and around the question where nothing is said."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.errors import SpecError
from ...models.catalogue import get_model
from ...simulator.cost.calibrated import default_engine
from ..result import Objective
from ..whatif.question import Question as Asked
from ..whatif.question import check_complete
from ..whatif.vary import Axis
from .question import OWN, Fixed, Offer, Start, make_offer

# Keys whose values are a menu of the page; limits, batch, price and aim take any value there.
MENUS = ("model", "hardware", "chips", "input", "output", "weights", "kv-dtype")

_INPUTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_OUTPUTS = (0.5, 1.0, 2.0)
_LEAST_CHIPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What a page offers, and how it opens."""

    offer: Offer
    start: Start


def explored(asked: Asked, axes: Sequence[Axis], objective: Objective | None = None) -> Explored:
    """The page of a question: values of what is varied, and around the question's own where nothing is said.

    The layouts, stages, replicas and batches of a plan are left to the page, which chooses them again.

    Raises
    ------
    SpecError : something is missing, cannot be varied on the page, or is none
    """
    check_complete(asked, axes)
    varied = {axis.key: axis for axis in axes}
    _refuse(asked, varied)
    start = _start(asked, varied, objective)
    model, chip = get_model(start.model), get_chip(start.chip)
    narrow = "fp8" if "fp8" in chip.dense_flop_per_s else "int8"
    offer = make_offer(
        models=[start.model, *_texts(varied, "model")],
        chips=[start.chip, *_texts(varied, "hardware")],
        counts=_counts(asked, varied, start),
        input_tokens=_tokens(varied.get("input"), start.input_tokens, _INPUTS, start.output_tokens, model.max_context),
        output_tokens=_tokens(
            varied.get("output"), start.output_tokens, _OUTPUTS, start.input_tokens, model.max_context
        ),
        weights=[start.weights, *(_texts(varied, "weights") or [narrow])],
        kv_dtypes=[start.kv_dtype, *(_texts(varied, "kv-dtype") or [narrow])],
        fixed=Fixed(
            engine=None if asked.engine == default_engine(chip) else asked.engine,
            bound=asked.bound,
            memory_share=asked.memory_share,
        ),
    )
    return Explored(offer=offer, start=start)


def _refuse(asked: Asked, varied: dict[str, Axis]) -> None:
    """Refuse what the page has no control for."""
    unknown = [key for key in varied if key not in MENUS]
    if unknown:
        raise SpecError(
            f"--interactive takes --vary {', '.join(MENUS)}, not {unknown[0]}: limits, batch and price take any value on "
            "the page, and the rest it leaves to the planner"
        )
    if asked.decode_on is not None:
        raise SpecError("the explorer plans both phases on one slice; leave out the pool of its own for decode")
    if asked.context_tokens is not None or asked.rate_per_s is not None:
        raise SpecError("the explorer has no rate and no context of its own; give --input and --output, and no --rate")


def _texts(varied: dict[str, Axis], key: str) -> list[str]:
    return [value.text for value in varied[key].values] if key in varied else []


def _first(varied: dict[str, Axis], key: str, own: str | None) -> str:
    """The question's own value, else the first of those that are varied."""
    return own if own is not None else _texts(varied, key)[0]


def _start(asked: Asked, varied: dict[str, Axis], objective: Objective | None) -> Start:
    limited = asked.ttft_s is not None or asked.tpot_s is not None
    shape = asked.chips
    return Start(
        model=_first(varied, "model", asked.described.name),
        chip=_first(varied, "hardware", asked.hardware),
        input_tokens=int(_first(varied, "input", None if asked.input_tokens is None else str(asked.input_tokens))),
        output_tokens=int(_first(varied, "output", None if asked.output_tokens is None else str(asked.output_tokens))),
        weights=asked.weights or OWN,
        kv_dtype=asked.kv_dtype or OWN,
        chips=None if shape is None or shape.startswith("..") else parse_pool(asked.on)[0].n_chips,
        ttft_s=asked.ttft_s,
        tpot_s=asked.tpot_s,
        objective=objective or ("cost" if limited else "latency"),
    )


def _counts(asked: Asked, varied: dict[str, Axis], start: Start) -> list[int]:
    """Counts that are varied, or powers of two up to twice the question's own."""
    own = [] if start.chips is None else [start.chips]
    if "chips" in varied:
        numbers = [round(value.number or 1) for value in varied["chips"].values]
        pools = [n for n, value in zip(numbers, varied["chips"].values, strict=True) if value.text.startswith("..")]
        return [*own, *numbers, *(2**i for n in pools for i in range(n.bit_length()))]
    pool = asked.chips or ""
    most = int(pool.removeprefix("..")) if pool.startswith("..") else max(2 * (start.chips or 1), _LEAST_CHIPS)
    return [*own, *(2**i for i in range(most.bit_length()))]


def _tokens(axis: Axis | None, own: int, factors: Sequence[float], other: int, most: int | None) -> list[int]:
    """Values that are varied, or multiples of the question's that the model's positions hold."""
    if axis is not None:
        return [own, *(round(value.number or 1) for value in axis.values)]
    around = [max(round(own * factor), 1) for factor in factors]
    return [own, *(n for n in around if most is None or n + other <= most)]
