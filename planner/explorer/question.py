"""What the explorer is asked: a question that a sheet answers, and what its controls offer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from pydantic import BaseModel, ConfigDict

from ...hardware_specs.catalogue import get_chip, load_chips
from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.dtypes import DTYPES, parse_dtype
from ...hardware_specs.errors import SpecError
from ...hardware_specs.prices import Payment, chip_price
from ...models.catalogue import get_model, load_models, named_model
from ..request import PlanRequest, make_request
from ..result import Objective

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

# The format that a model's weights are published in, and the cache that goes with them.
OWN = "own"


class Fixed(BaseModel):
    """What no control of the page changes: engine (None is the chip's usual one), pricing by the roofline, share of HBM."""

    model_config = _STRICT
    engine: str | None = None
    bound: bool = False
    memory_share: float | None = None


class Question(BaseModel):
    """What a sheet answers.

    Parameters
    ----------
    counts : numbers of chips, each with every slice of so many
    weights, kv_dtype : format, or `OWN` for the model's
    """

    model_config = _STRICT
    model: str
    chip: str
    counts: tuple[int, ...]
    input_tokens: int
    output_tokens: int
    weights: str = OWN
    kv_dtype: str = OWN
    fixed: Fixed = Fixed()

    @property
    def key(self) -> str:
        """Names the question in a grid: everything that a control can change of it."""
        shape = (str(self.input_tokens), str(self.output_tokens))
        return "|".join((self.model, self.chip, *shape, self.weights, self.kv_dtype))


def request_of(question: Question) -> PlanRequest:
    """The question as the planner takes it: both phases on one slice.

    Raises
    ------
    SpecError : a name that does not exist or a number that does not fit, with the way out
    """
    if not question.counts:
        raise SpecError("counts=: say how many chips, e.g. 1,2,4,8")
    if question.output_tokens == 0:
        raise SpecError("output_tokens=0: a request has at least one output token")
    counts = sorted(set(question.counts))
    slices = tuple(slice_ for n in counts for slice_ in parse_pool(f"{question.chip}:{n}"))
    request = make_request(
        named_model(question.model),
        f"{question.chip}:{counts[-1]}",
        input_tokens=question.input_tokens,
        output_tokens=question.output_tokens,
        weights=_format(question.weights),
        kv_dtype=_format(question.kv_dtype),
        objective="cost",
        engine=question.fixed.engine,
        bound=question.fixed.bound,
        memory_share=question.fixed.memory_share,
    )
    return replace(request, slices=slices, decode_slices=slices, sharing="shared", max_chips=counts[-1])


def _format(name: str) -> str | None:
    """One format by name; None is the model's own."""
    return None if name == OWN else parse_dtype(name).name


class ChipOffer(BaseModel):
    """A chip to choose, how many of it, and what an hour of one costs; None where no price is known."""

    model_config = _STRICT
    name: str
    counts: tuple[int, ...]
    usd_per_h: float | None
    price_source: str | None


class ModelOffer(BaseModel):
    """A model to choose; None: its positions set no limit."""

    model_config = _STRICT
    name: str
    max_context: int | None


class Offer(BaseModel):
    """What the controls can be set to; `is_open` says that tokens may be any number, not only those listed."""

    model_config = _STRICT
    models: tuple[ModelOffer, ...]
    chips: tuple[ChipOffer, ...]
    input_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    weights: tuple[str, ...]
    kv_dtypes: tuple[str, ...]
    fixed: Fixed = Fixed()
    is_open: bool = False

    @property
    def product(self) -> str:
        """How many of each menu multiply to the questions, in words; counts of chips share a sheet."""
        menus = {
            "models": self.models,
            "chips": self.chips,
            "inputs": self.input_tokens,
            "outputs": self.output_tokens,
            "weight formats": self.weights,
            "cache formats": self.kv_dtypes,
        }
        return " x ".join(f"{len(menu)} {name}" for name, menu in menus.items())

    @property
    def n_questions(self) -> int:
        """How many questions the controls can put."""
        return sum(1 for _ in self.questions())

    def questions(self) -> Iterator[Question]:
        """Every question that the controls can put."""
        axes = (self.models, self.chips, self.input_tokens, self.output_tokens, self.weights, self.kv_dtypes)
        for model, chip, n_in, n_out, weights, kv in product(*axes):
            yield Question(
                model=model.name,
                chip=chip.name,
                counts=chip.counts,
                input_tokens=n_in,
                output_tokens=n_out,
                weights=weights,
                kv_dtype=kv,
                fixed=self.fixed,
            )


class Start(BaseModel):
    """How the page opens; `chips` None lets the planner take any count, `batch` None any batch."""

    model_config = _STRICT
    model: str
    chip: str
    input_tokens: int
    output_tokens: int
    weights: str = OWN
    kv_dtype: str = OWN
    chips: int | None = None
    batch: int | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    usd_per_h: float | None = None
    objective: Objective = "cost"


def make_offer(
    *,
    models: Sequence[str],
    chips: Sequence[str],
    counts: Sequence[int],
    input_tokens: Sequence[int],
    output_tokens: Sequence[int],
    weights: Sequence[str] = (OWN,),
    kv_dtypes: Sequence[str] = (OWN,),
    fixed: Fixed | None = None,
    is_open: bool = False,
) -> Offer:
    """An offer of names and numbers that were checked; counts that a chip has no slice of are left out of its own.

    Raises
    ------
    SpecError : a name that does not exist, or a chip with none of the counts
    """
    described = [get_model(name) for name in dict.fromkeys(models)]
    formats = [tuple(dict.fromkeys(_named(name) for name in names)) for names in (weights, kv_dtypes)]
    return Offer(
        models=tuple(ModelOffer(name=model.name, max_context=model.max_context) for model in described),
        chips=tuple(_chip_offer(name, counts) for name in dict.fromkeys(chips)),
        input_tokens=tuple(sorted(set(input_tokens))),
        output_tokens=tuple(sorted(set(output_tokens))),
        weights=formats[0],
        kv_dtypes=formats[1],
        fixed=fixed or Fixed(),
        is_open=is_open,
    )


def _named(name: str) -> str:
    return OWN if name == OWN else parse_dtype(name).name


def _chip_offer(name: str, counts: Sequence[int]) -> ChipOffer:
    chip = get_chip(name)
    most = max(counts)
    there_are = {slice_.n_chips for slice_ in parse_pool(f"{chip.name}:..{most}")}
    kept = tuple(n for n in sorted(set(counts)) if n in there_are)
    if not kept:
        raise SpecError(
            f"{chip.name} has no slice of {', '.join(map(str, counts))} chips; there are {sorted(there_are)}"
        )
    price = chip_price(chip.name, Payment())
    return ChipOffer(
        name=chip.name,
        counts=kept,
        usd_per_h=None if price is None else price.usd_per_h,
        price_source=None if price is None else price.offer,
    )


def whole_catalogue(max_chips: int) -> Offer:
    """Everything there is, on powers of two up to so many chips, with any number of tokens."""
    counts = [2**i for i in range(max_chips.bit_length())]
    return make_offer(
        models=list(load_models()),
        chips=list(load_chips()),
        counts=counts,
        input_tokens=[2**i for i in range(7, 18)],
        output_tokens=[2**i for i in range(4, 14)],
        weights=(OWN, *DTYPES),
        kv_dtypes=(OWN, *DTYPES),
        is_open=True,
    )
