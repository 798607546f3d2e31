"""What a user asks of the planner, checked before anything is enumerated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..hardware_specs.cluster import Slice, parse_pool
from ..hardware_specs.errors import SpecError
from ..hardware_specs.prices import Payment, chip_price, parse_payment
from ..models.catalogue import get_model, reference_of
from ..models.description import Model
from ..models.formats import Formats, default_formats
from ..models.layouts import parse_layout
from ..models.paths import path_of
from ..simulator.cost.calibrated import Calibration, calibration_of, default_engine
from ..simulator.cost.engines import engine_running, get_engine
from ..simulator.cost.memory import DEFAULT_MEMORY_SHARE
from ..simulator.types import Slo, Workload
from .result import Objective

Sharing = Literal["shared", "separate", "either"]
MAX_BATCH = 65536
_MAX_PAGE_SIZE = 65536
DEFAULT_BATCHES = tuple(2**i for i in range(13))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A question to the planner.

    Parameters
    ----------
    slices, decode_slices : slices for prefill and for decode
    sharing : both phases take turns on one slice, or have one each, or either within `max_chips`
    prefill_batches, decode_batches : batches to try, over all replicas
    formats : weight and cache formats to try
    prefill_layouts, decode_layouts : (feed-forward, attention) pairs to allow, None for all
    memory_share : part of HBM a plan may fill
    payment : how chips are paid for
    model_path : the file the model was read from, empty for one of the catalogue
    """

    model: Model
    on: str
    slices: tuple[Slice, ...]
    decode_slices: tuple[Slice, ...]
    sharing: Sharing
    max_chips: int
    workload: Workload
    prefill_batches: tuple[int, ...]
    decode_batches: tuple[int, ...]
    formats: tuple[Formats, ...]
    page_sizes: tuple[int, ...] = (1,)
    prefill_layouts: tuple[str, ...] | None = None
    decode_layouts: tuple[str, ...] | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    mesh: tuple[int, int, int] | None = None
    slo: Slo = field(default_factory=Slo)
    objective: Objective = "latency"
    engine: str | None = None
    bound: bool = False
    memory_share: float = DEFAULT_MEMORY_SHARE
    payment: Payment = field(default_factory=Payment)
    model_path: str = ""

    @property
    def model_reference(self) -> str:
        """What finds the model again: its path if it was read from one, else its name."""
        return self.model_path or self.model.name

    @property
    def is_pinned(self) -> bool:
        """Whether the user fixed how the model is cut, so that no candidate at all is a mistake in the request."""
        return any(
            v is not None for v in (self.mesh, self.tp, self.pp, self.dp, self.prefill_layouts, self.decode_layouts)
        )

    def allows_split(self, pp: int, dp: int) -> bool:
        """Whether the request allows so many stages and replicas."""
        return self.pp in (None, pp) and self.dp in (None, dp)

    def limit_bytes(self, slice_: Slice) -> float:
        """Bytes a plan may fill on each chip of a slice."""
        return slice_.chip.hbm_bytes.value * self.memory_share

    def engine_name(self, slice_: Slice) -> str:
        """The engine profile that runs a slice of this request."""
        return engine_running(self.engine or default_engine(slice_.chip, experts=self.model.has_experts), self.model)

    def calibration(self, slice_: Slice) -> Calibration:
        """What prices a slice of this request."""
        return calibration_of(slice_.chip, self.engine_name(slice_), bound=self.bound, experts=self.model.has_experts)


def make_request(
    model: str | Model,
    on: str,
    *,
    input_tokens: int,
    output_tokens: int,
    decode_on: str | None = None,
    batch: int | None = None,
    prefill_batch: int | None = None,
    decode_batch: int | None = None,
    weights: str | Sequence[str] | None = None,
    kv_dtype: str | Sequence[str] | None = None,
    page_size: int | Sequence[int] = 1,
    prefill: str | None = None,
    decode: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    mesh: str | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    objective: Objective | None = None,
    engine: str | None = None,
    bound: bool = False,
    memory_share: float | None = None,
    price: str | float | None = None,
    beyond_positions: bool = False,
) -> PlanRequest:
    """Check what a user wrote and make a request of it.

    Parameters
    ----------
    beyond_positions : requests may be longer than the model was made for

    Raises
    ------
    SpecError : anything that does not exist, does not fit, or is no number
    """
    described = get_model(model) if isinstance(model, str) else model
    path = None if not isinstance(model, str) or path_of(model) is None else reference_of(model)
    slices = parse_pool(on)
    decode_slices = parse_pool(decode_on) if decode_on is not None else slices
    workload = Workload(input_tokens=input_tokens, output_tokens=output_tokens)
    if not beyond_positions:
        check_context(described, workload)
    _check_stacks(described, workload, pp=pp, tpot_s=tpot_s, decode_on=decode_on)
    slo = Slo(ttft_s=ttft_s, tpot_s=tpot_s)
    if engine is not None:
        get_engine(engine)
    share = DEFAULT_MEMORY_SHARE if memory_share is None else memory_share
    if not (math.isfinite(share) and 0 < share <= 1):
        raise SpecError(f"memory share {share} must lie in (0, 1]")
    for name, value in (("tp", tp), ("pp", pp), ("dp", dp)):
        if value is not None and value < 1:
            raise SpecError(f"{name}={value} must be at least 1")
    payment = parse_payment(price)
    for chip in {slice_.chip.name for slice_ in (*slices, *decode_slices)}:
        chip_price(chip, payment)
    prefill_batches = _batches("prefill batch", prefill_batch if prefill_batch is not None else batch)
    decode_batches = _batches("decode batch", decode_batch if decode_batch is not None else batch)
    if decode_on is None and min(prefill_batches) > max(decode_batches):
        raise SpecError(
            f"prefill batch {min(prefill_batches)} is above decode batch {max(decode_batches)}: on one slice the prompts "
            f"read at once are decoded together; take a decode batch of at least {min(prefill_batches)}, or --decode-on"
        )
    return PlanRequest(
        model=described,
        on=on if decode_on is None else f"{on} + {decode_on}",
        slices=slices,
        decode_slices=decode_slices,
        sharing=_sharing(described, on, decode_on),
        max_chips=_most(slices) + (_most(decode_slices) if decode_on is not None else 0),
        workload=workload,
        prefill_batches=prefill_batches,
        decode_batches=decode_batches,
        formats=_formats(described, weights, kv_dtype),
        page_sizes=_page_sizes(page_size),
        prefill_layouts=_layouts(prefill),
        decode_layouts=_layouts(decode),
        tp=tp,
        pp=pp,
        dp=dp,
        mesh=_mesh(mesh),
        slo=slo,
        objective=objective or ("cost" if ttft_s is not None or tpot_s is not None else "latency"),
        engine=engine,
        bound=bound,
        memory_share=share,
        model_path=path or "",
        payment=payment,
    )


def _most(slices: tuple[Slice, ...]) -> int:
    return max(slice_.n_chips for slice_ in slices)


def check_context(model: Model, workload: Workload) -> None:
    """Refuse requests longer than the model's positions; encoder and decoder have as many each."""
    if model.encoder is not None:
        longest = max(workload.input_tokens, workload.output_tokens)
        if model.max_context is not None and longest > model.max_context:
            raise SpecError(
                f"{workload.input_tokens} input and {workload.output_tokens} output tokens, but encoder and decoder of "
                f"{model.name} have {model.max_context} positions each; shorten the request"
            )
        return
    if model.max_context is not None and workload.context_tokens > model.max_context:
        raise SpecError(
            f"{workload.input_tokens} input + {workload.output_tokens} output tokens = {workload.context_tokens}, "
            f"but {model.name} has {model.max_context} positions; shorten the request"
        )


def _check_stacks(
    model: Model, workload: Workload, *, pp: int | None, tpot_s: float | None, decode_on: str | None
) -> None:
    """Refuse what a model with an encoder, or one that is read both ways, does not do."""
    if model.encoder is not None and pp is not None and pp > 1:
        raise SpecError(
            f"pp={pp}: encoder and decoder of {model.name} lie on one stage; cut them with --tp, or leave --pp out"
        )
    if not model.bidirectional:
        return
    if workload.output_tokens:
        raise SpecError(
            f"{model.name} is read both ways and generates nothing: {workload.output_tokens} output tokens asked for; "
            f"plan it with --output 0"
        )
    if tpot_s is not None or decode_on is not None:
        what = "a limit on the time per output token" if tpot_s is not None else "a pool for decode"
        raise SpecError(f"{model.name} is read both ways and generates nothing, so {what} says nothing; leave it out")


def _sharing(model: Model, on: str, decode_on: str | None) -> Sharing:
    """Whether the phases may have slices of their own; what generates nothing has one phase."""
    if decode_on is not None:
        return "separate"
    return "either" if ".." in on and not model.bidirectional else "shared"


def _batches(name: str, batch: int | None) -> tuple[int, ...]:
    if batch is None:
        return DEFAULT_BATCHES
    if not 1 <= batch <= MAX_BATCH:
        raise SpecError(f"{name} {batch} must lie between 1 and {MAX_BATCH}")
    return (batch,)


def _list(value: str | Sequence[str] | None, default: str) -> list[str]:
    if value is None:
        return [default]
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)


def _formats(
    model: Model, weights: str | Sequence[str] | None, kv_dtype: str | Sequence[str] | None
) -> tuple[Formats, ...]:
    """Every pair of the formats named; activations stay in 16 bits and the cache follows them unless said."""
    return tuple(
        default_formats(model, weight, kv)
        for weight in _list(weights, model.weights_dtype)
        for kv in ((None,) if kv_dtype is None else _list(kv_dtype, ""))
    )


def _page_sizes(page_size: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (page_size,) if isinstance(page_size, int) else tuple(page_size)
    for size in sizes:
        if not 1 <= size <= _MAX_PAGE_SIZE:
            raise SpecError(f"page size {size} must lie between 1 (contiguous) and {_MAX_PAGE_SIZE} tokens")
    return sizes


def _layouts(text: str | None) -> tuple[str, ...] | None:
    """Layouts as the command line writes them, separated by commas; checked here, matched in the search."""
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        parse_layout(name)
    return names


def _mesh(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise SpecError(f"mesh {text!r} must be three sizes, e.g. 4x4x4")
    x, y, z = (int(part) for part in parts)
    return x, y, z
