"""Chosen candidates, priced once more step by step and written out as plans with their breakdowns and intervals."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from ..hardware_specs.cluster import Mesh, Slice
from ..models.layouts import LAYOUTS
from ..models.sizes import padded_heads
from ..simulator.cost.calibrated import BORROWED_LOG, UNKNOWN_ENGINE_LOG, Calibration, calibration_of
from ..simulator.cost.memory import MEMORY_PARTS
from ..simulator.cost.phases import PhaseSetting, model_flop_utilization
from ..simulator.cost.price import Engine
from .cost import with_cost
from .repriced import Repriced, reprice
from .request import PlanRequest
from .result import Bound, MemoryShare, MeshSizes, PhasePlan, Plan, Source, StepShare, WorkloadShape
from .search import Pair
from .space import Choice, head_counts


def build_plans(request: PlanRequest, pairs: Sequence[Pair]) -> tuple[Plan, ...]:
    """Pairs as the user gets them, ranked as they come."""
    prefills = build_phases(request, [pair.prefill for pair in pairs])
    decodes = build_phases(request, [pair.decode for pair in pairs])
    phases = zip(pairs, prefills, decodes, strict=True)
    return tuple(_plan(request, pair, p, d, rank) for rank, (pair, p, d) in enumerate(phases, start=1))


def _plan(request: PlanRequest, pair: Pair, prefill: PhasePlan, decode: PhasePlan, rank: int) -> Plan:
    n_out = request.workload.output_tokens
    n_chips = prefill.n_chips if pair.shared else prefill.n_chips + decode.n_chips
    plan = Plan(
        rank=rank,
        n_chips=n_chips,
        shared=pair.shared,
        handoff_s=None if math.isnan(pair.handoff_s) else pair.handoff_s,
        hbm_bytes_per_chip=peak_bytes(prefill, decode, shared=pair.shared),
        request_latency_s=pair.latency_s,
        chip_s_per_request=pair.chip_s,
        output_tokens_per_s=pair.requests_per_s * n_out,
        usd_per_mtok_output=None,
        prefill=prefill,
        decode=decode,
    )
    shape = WorkloadShape(input_tokens=request.workload.input_tokens, output_tokens=n_out)
    return with_cost(plan, shape, request.payment)


def peak_bytes(prefill: PhasePlan, decode: PhasePlan, *, shared: bool) -> float:
    """Bytes on the fullest chip; on one slice the larger cache stays while either phase works."""
    if not shared:
        return max(prefill.hbm_bytes_per_chip, decode.hbm_bytes_per_chip)
    cache = max(prefill.memory.kv_cache, decode.memory.kv_cache)
    work = max(phase.memory.activations + phase.memory.gathered for phase in (prefill, decode))
    return prefill.memory.weights + cache + work


def build_phase(request: PlanRequest, choice: Choice) -> PhasePlan:
    """One phase: price, interval, memory, utilisation, breakdown."""
    return build_phases(request, [choice])[0]


def build_phases(request: PlanRequest, choices: Sequence[Choice]) -> list[PhasePlan]:
    """Phases, each as by itself."""
    return phases_of(request, reprice(request, choices, fitted_engines(request)))


def fitted_engines(request: PlanRequest) -> Callable[[Slice], Engine]:
    """What prices a slice of the request; each chip's fits are looked up once."""
    calibrations = _calibrations(request)
    return lambda slice_: calibrations(slice_).engine


def _calibrations(request: PlanRequest) -> Callable[[Slice], Calibration]:
    known: dict[str, Calibration] = {}

    def of(slice_: Slice) -> Calibration:
        if slice_.chip_name not in known:
            known[slice_.chip_name] = request.calibration(slice_)
        return known[slice_.chip_name]

    return of


def phases_of(request: PlanRequest, priced: Sequence[Repriced]) -> list[PhasePlan]:
    """Priced choices written out; what the roofline says of those that need it for their interval is priced here."""
    calibration = _calibrations(request)

    def roofline(slice_: Slice) -> Engine:
        return calibration_of(slice_.chip, request.engine_name(slice_), bound=True).engine

    calibrations = [calibration(one.choice.slice) for one in priced]
    borrowed = [i for i, one in enumerate(priced) if _needs_roofline(calibrations[i], one)]
    bounds = reprice(request, [priced[i].choice for i in borrowed], roofline)
    least_s = {i: bound.latency_s for i, bound in zip(borrowed, bounds, strict=True)}
    return [_phase(request, calibrations[i], one, least_s.get(i)) for i, one in enumerate(priced)]


def _phase(request: PlanRequest, calibration: Calibration, priced: Repriced, roofline_s: float | None) -> PhasePlan:
    """One phase; `roofline_s` is its latency by the roofline where the interval needs it."""
    choice = priced.choice
    sources = _step_sources(calibration, priced)
    low, high = _interval(calibration, priced.latency_s, roofline_s)
    setting, mesh, chip = choice.setting, priced.mesh, choice.slice.chip
    n_chips, model = choice.slice.n_chips, setting.model
    tokens = choice.batch * (setting.workload.input_tokens if setting.phase == "prefill" else 1)
    capacity = chip.peak_flop_per_s(setting.formats.matmul) * n_chips * priced.pass_s
    all_tokens = tokens if setting.phase == "prefill" else tokens * setting.workload.output_tokens
    runs = capacity > 0.0  # a model that generates nothing has a decode of no step
    parts = {name: getattr(priced.memory, name) for name in MEMORY_PARTS}
    memory = MemoryShare(**parts, limit=request.limit_bytes(choice.slice))
    head_shards = math.prod(size for axis, size in zip("xyz", mesh.sizes, strict=True) if axis in setting.head_axes)
    breakdown = _breakdown(priced, sources)
    return PhasePlan(
        phase=setting.phase,
        chip=chip.name,
        n_chips=n_chips,
        slice=str(choice.slice),
        mesh=MeshSizes(x=mesh.x.size, y=mesh.y.size, z=mesh.z.size),
        mapping=mesh.mapping,
        tp=mesh.tp,
        pp=setting.pp,
        dp=setting.dp,
        replicas=setting.dp,
        batch=choice.batch,
        n_microbatches=choice.n_microbatches,
        ffn=setting.layout,
        attention=setting.attention,
        head_shards=head_shards,
        experts=setting.experts,
        ep=_expert_shards(setting, mesh),
        n_heads_padded=max(
            int(padded_heads(*head_counts(model, block), float(head_shards))[0]) for block in model.every_block
        ),
        weights=setting.formats.weights.name,
        mixer_weights=(setting.formats.own_mixers or setting.formats.weights).name,
        expert_weights=setting.formats.experts.name,
        end_weights=(setting.formats.own_ends or setting.formats.weights).name,
        activations=setting.formats.activations.name,
        kv_dtype=setting.formats.kv.name,
        page_size=setting.page_size,
        engine=request.engine_name(choice.slice),
        users_own=calibration.users_own,
        latency_s=priced.latency_s,
        latency_low_s=low,
        latency_high_s=high,
        step_s=priced.pass_s,
        mfu=float(model_flop_utilization(model, tokens, capacity, setting.phase)) if runs else 0.0,
        hfu=priced.flop * mesh.tp * setting.pp * setting.dp / capacity if runs else 0.0,
        cost_chip_s_per_token=n_chips * priced.latency_s / all_tokens if all_tokens else None,
        usd_per_mtok=None,
        hbm_bytes_per_chip=memory.total,
        memory=memory,
        bound=_bound(breakdown),
        breakdown=breakdown,
    )


def _expert_shards(setting: PhaseSetting, mesh: Mesh) -> int:
    """Chips that hold different experts."""
    if setting.experts == "tensor":
        return 1
    layout = LAYOUTS[setting.layout]
    size = dict(zip("xyz", mesh.sizes, strict=True))
    return math.prod(size[axis] for axis in layout.expert_axes)


def _step_sources(calibration: Calibration, priced: Repriced) -> dict[str, Source]:
    """Where each step's price comes from; what crosses nodes is at its bound unless the network was fitted.

    A kernel of a shape beyond those that were measured is extrapolated.
    """
    crosses = any(getattr(priced.mesh, axis).outer > 1 for axis in "xyz")
    network_fitted = "network_efficiency" in calibration.free
    sources: dict[str, Source] = {}
    for step in priced.steps:
        network = (step.part == "handover" and priced.mesh.stages_cross) or (crosses and step.is_collective)
        known: Source = "extrapolated" if step.is_beyond else calibration.origin
        sources[step.key] = "bound" if network and not network_fitted else known
    return sources


def _needs_roofline(calibration: Calibration, priced: Repriced) -> bool:
    """Whether the fit does not speak for every step, nor were the kernels measured."""
    if calibration.interval_log is None or calibration.is_whole or not priced.latency_s:
        return False
    return set(_step_sources(calibration, priced).values()) != {"fitted"}


def _interval(calibration: Calibration, latency_s: float, roofline_s: float | None) -> tuple[float, float | None]:
    """The 90 % interval: the fit's own where it speaks for every step, or where kernels were measured.

    Elsewhere it is wider by what another chip and another engine may add, reaches down to the roofline and as far up; without
    a fit it has no end.
    """
    if not latency_s:
        return 0.0, 0.0  # no token, no time
    if calibration.interval_log is None:
        return latency_s, None
    unknown = () if roofline_s is None else (BORROWED_LOG, UNKNOWN_ENGINE_LOG)
    spread = math.exp(math.hypot(calibration.interval_log, *unknown))
    if roofline_s is None:
        return latency_s / spread, latency_s * spread
    low = min(roofline_s, latency_s / spread)
    return low, latency_s**2 / low


def _breakdown(priced: Repriced, sources: dict[str, Source]) -> tuple[StepShare, ...]:
    """One entry a step, over the whole pass: steps of one micro-batch, scaled so that they add up to the pass.

    With one stage the scale is the number of micro-batches; with more it holds the bubbles too.
    """
    scale = pass_scale(priced) if priced.steps else 1.0
    return tuple(
        StepShare(
            step=step.title,
            compute_s=scale * step.count * step.compute_s,
            memory_s=scale * step.count * step.memory_s,
            comm_s=scale * step.count * step.comm_s,
            overhead_s=scale * step.count * step.overhead_s,
            source=sources[step.key],
        )
        for step in priced.steps
    )


def pass_scale(priced: Repriced) -> float:
    """Seconds of the pass over those of one micro-batch's steps."""
    return priced.pass_s / sum(step.total_s for step in priced.steps)


def bound_seconds(breakdown: tuple[StepShare, ...]) -> dict[Bound, float]:
    """Seconds of a pass by what binds each step."""
    seconds: dict[Bound, float] = {"compute": 0.0, "hbm": 0.0, "links": 0.0, "latency": 0.0}
    for step in breakdown:
        local: Literal["compute", "hbm"] = "compute" if step.compute_s >= step.memory_s else "hbm"
        seconds[local] += max(step.compute_s, step.memory_s)
        seconds["links"] += step.comm_s
        seconds["latency"] += step.overhead_s
    return seconds


def _bound(breakdown: tuple[StepShare, ...]) -> Bound:
    seconds = bound_seconds(breakdown)
    return max(seconds, key=lambda name: seconds[name])
