"""The answer to a question: the plans worth choosing, and for each phase of theirs what the figures draw."""

import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ..build import fitted_engines, pass_scale, peak_bytes, phases_of
from ..repriced import Repriced, StepSeconds, reprice
from ..request import PlanRequest
from ..result import Bound, PhasePlan, Source
from ..search import Found, Pair, nearest_miss
from ..space import Choice
from ..version import __version__
from .question import Question, request_of
from .unbeaten import unbeaten_pairs

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

# Digits of a number in a sheet: more than a figure shows, few enough for a grid of sheets to stay small.
_DIGITS = 6
_STEP_DIGITS = 4


class SheetPhase(BaseModel):
    """A phase of a plan; fields as in `PhasePlan`, shorter.

    `steps` are rows of: number of the step's name, seconds of the whole pass (compute, memory, links, fixed), and of one
    time flop a byte and flop a second on the chip, both 0 where a step has no flop to speak of.
    """

    model_config = _STRICT
    slice: str
    mesh: str
    layout: str
    tp: int
    pp: int
    dp: int
    batch: int
    n_microbatches: int
    step_s: float
    latency_s: float
    latency_low_s: float
    latency_high_s: float | None
    mfu: float
    hfu: float
    weights_bytes: float
    kv_cache_bytes: float
    activations_bytes: float
    gathered_bytes: float
    bound: Bound
    sources: tuple[Source, ...]
    steps: tuple[tuple[float, ...], ...]


class SheetPlan(BaseModel):
    """A pair of phases, by their places in the sheet, and what it comes to."""

    model_config = _STRICT
    n_chips: int
    prefill: int
    decode: int
    ttft_s: float
    tpot_s: float
    latency_s: float
    chip_s: float
    hbm_bytes_per_chip: float


class Roofs(BaseModel):
    """What one chip can do at most, in the format the matmuls run in; `limit_bytes` is what a plan may fill."""

    model_config = _STRICT
    matmul_format: str
    flop_per_s: float
    hbm_bytes_per_s: float
    limit_bytes: float


class Sheet(BaseModel):
    """The answer to one question; `miss` says how far the nearest candidate was where none fits."""

    model_config = _STRICT
    version: str
    model: str
    chip: str
    input_tokens: int
    output_tokens: int
    weights: str
    kv_dtype: str
    engine: str
    roofs: Roofs
    step_names: tuple[str, ...]
    prefill: tuple[SheetPhase, ...]
    decode: tuple[SheetPhase, ...]
    plans: tuple[SheetPlan, ...]
    rejected: dict[str, int]
    miss: str | None
    n_candidates: int
    wall_s: float


def make_sheet(question: Question) -> Sheet:
    """Answer a question.

    Raises
    ------
    SpecError : a name that does not exist or a number that does not fit, with the way out
    """
    started = time.perf_counter()
    request = request_of(question)
    found = Found()
    pairs = unbeaten_pairs(request, found)
    found.pairs = pairs
    names: dict[str, int] = {}
    prefill = _Phases(request, [pair.prefill for pair in pairs], names)
    decode = _Phases(request, [pair.decode for pair in pairs], names)
    formats, chip = request.formats[0], request.slices[0].chip
    return Sheet(
        version=__version__,
        model=request.model.name,
        chip=chip.name,
        input_tokens=request.workload.input_tokens,
        output_tokens=request.workload.output_tokens,
        weights=formats.weights.name,
        kv_dtype=formats.kv.name,
        engine=request.engine_name(request.slices[0]),
        roofs=Roofs(
            matmul_format=formats.matmul.name,
            flop_per_s=chip.peak_flop_per_s(formats.matmul),
            hbm_bytes_per_s=chip.hbm_bytes_per_s.value,
            limit_bytes=request.limit_bytes(request.slices[0]),
        ),
        step_names=tuple(names),
        prefill=prefill.rows,
        decode=decode.rows,
        plans=tuple(_plan(pair, i, prefill, decode) for i, pair in enumerate(pairs)),
        rejected=dict(sorted(found.rejected.items())),
        miss=nearest_miss(request, found),
        n_candidates=found.n_candidates,
        wall_s=time.perf_counter() - started,
    )


class _Phases:
    """One phase of every plan: each distinct choice once, and the place of each plan's."""

    def __init__(self, request: PlanRequest, choices: Sequence[Choice], names: dict[str, int]) -> None:
        distinct: dict[tuple[object, ...], int] = {}
        own: list[Choice] = []
        self.places = []
        for choice in choices:
            # settings are many objects of few kinds: their identity tells them apart more quickly than their fields
            key = (id(choice.setting), id(choice.slice), choice.mesh_index, choice.batch, choice.n_microbatches)
            if key not in distinct:
                distinct[key] = len(own)
                own.append(choice)
            self.places.append(distinct[key])

        priced = reprice(request, own, fitted_engines(request))
        self.phases = phases_of(request, priced)
        self.rows = tuple(_phase(*both, names) for both in zip(self.phases, priced, strict=True))

    def of(self, i: int) -> PhasePlan:
        """The phase of plan `i`."""
        return self.phases[self.places[i]]


def _plan(pair: Pair, i: int, prefill: _Phases, decode: _Phases) -> SheetPlan:
    p, d = prefill.of(i), decode.of(i)
    return SheetPlan(
        n_chips=p.n_chips,
        prefill=prefill.places[i],
        decode=decode.places[i],
        ttft_s=_short(p.step_s),
        tpot_s=_short(d.step_s),
        latency_s=_short(pair.latency_s),
        chip_s=_short(pair.chip_s),
        hbm_bytes_per_chip=_short(peak_bytes(p, d, shared=True)),
    )


def _phase(phase: PhasePlan, priced: Repriced, names: dict[str, int]) -> SheetPhase:
    mesh, memory, scale = phase.mesh, phase.memory, pass_scale(priced)
    return SheetPhase(
        slice=phase.slice,
        mesh=f"{mesh.x}x{mesh.y}x{mesh.z}",
        layout=phase.layout,
        tp=phase.tp,
        pp=phase.pp,
        dp=phase.dp,
        batch=phase.batch,
        n_microbatches=phase.n_microbatches,
        step_s=_short(phase.step_s),
        latency_s=_short(phase.latency_s),
        latency_low_s=_short(phase.latency_low_s),
        latency_high_s=None if phase.latency_high_s is None else _short(phase.latency_high_s),
        mfu=_short(phase.mfu),
        hfu=_short(phase.hfu),
        weights_bytes=_short(memory.weights),
        kv_cache_bytes=_short(memory.kv_cache),
        activations_bytes=_short(memory.activations),
        gathered_bytes=_short(memory.gathered),
        bound=phase.bound,
        sources=tuple(sorted({step.source for step in phase.breakdown})),
        steps=tuple(_row(step, scale, names) for step in priced.steps if step.total_s > 0.0),
    )


def _row(step: StepSeconds, scale: float, names: dict[str, int]) -> tuple[float, ...]:
    """A step as the figures draw it."""
    whole = scale * step.count
    seconds = (step.compute_s, step.memory_s, step.comm_s, step.overhead_s)
    on_chip_s = max(step.compute_s, step.memory_s) + step.overhead_s
    drawn = step.flop > 0.0 and step.hbm_bytes > 0.0 and on_chip_s > 0.0
    points = (step.flop / step.hbm_bytes, step.flop / on_chip_s) if drawn else (0.0, 0.0)
    numbers = (*(whole * value for value in seconds), *points)
    return (names.setdefault(step.title, len(names)), *(_short(value, _STEP_DIGITS) for value in numbers))


def _short(value: float, digits: int = _DIGITS) -> float:
    """A number with so many digits that count."""
    return float(f"{value:.{digits}g}")
