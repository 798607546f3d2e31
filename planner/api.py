"""The planner as a library: one call a question, typed answers."""

import time
from collections.abc import Sequence

from ..hardware_specs.cluster import meshes, splits
from ..hardware_specs.errors import SpecError
from ..models.description import Model
from .build import build_plans
from .certificate import check_plan
from .deploy import check_decodes
from .rated import plan_for_rate
from .request import PlanRequest, make_request
from .result import Objective, Plan, PlanResult, WorkloadShape
from .search import Found, Pair, nearest_miss, search
from .trial import RateGoal
from .version import __version__

_MAX_FRONTIER = 200


def plan(
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
    rate_per_s: float | None = None,
    attainment: float = 0.9,
    objective: Objective | None = None,
    engine: str | None = None,
    bound: bool = False,
    memory_share: float | None = None,
    price: str | float | None = None,
    top: int = 5,
) -> PlanResult:
    """Choose chips, mesh, layouts, batch and KV layout for a model and a workload.

    Parameters
    ----------
    model : catalogue name, alias or a `Model`
    on : pool: ``tpu-v4:4x4x4``, ``h100-sxm:8``, ``a100-80gb-sxm:2x8``, or ``tpu-v4:..64`` for every slice up to a count
    decode_on : a pool of its own for decode
    batch, prefill_batch, decode_batch : sequences over all replicas; None tries powers of two
    weights, kv_dtype, page_size : one or several to choose from
    output_tokens : 0 for a model that is read both ways, whose decode then has no step
    prefill, decode : layouts to allow, e.g. ``wg-xyz/batch``; None allows all
    ttft_s, tpot_s : limits
    rate_per_s : requests a second that come as Poisson traffic; the best candidates are simulated, and the smallest pool is
        found in which `attainment` of the requests keep the limits, with the highest rate it carries
    objective : what the first plan is best at; ``latency``, or ``cost`` where a limit is given
    engine : software profile, see `shardwise.simulator.cost.engines`
    bound : price by the roofline alone, without any fit
    memory_share : part of HBM a plan may fill
    price : USD of a chip-hour: a number, ``h100-sxm=2.5,l40s=0.8``, or ``on-demand`` (default), ``spot``, ``reserved``,
        ``ownership`` from the catalogue

    Raises
    ------
    SpecError : a name that does not exist or a number that does not fit, with the way out

    References
    ----------
    [Pope2022] sections 3 and 4.
    """
    request = make_request(
        model,
        on,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        decode_on=decode_on,
        batch=batch,
        prefill_batch=prefill_batch,
        decode_batch=decode_batch,
        weights=weights,
        kv_dtype=kv_dtype,
        page_size=page_size,
        prefill=prefill,
        decode=decode,
        tp=tp,
        pp=pp,
        dp=dp,
        mesh=mesh,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        objective=objective,
        engine=engine,
        bound=bound,
        memory_share=memory_share,
        price=price,
    )
    if top < 1:
        raise SpecError(f"top={top} must be at least 1")
    if output_tokens == 0 and not request.model.bidirectional:
        raise SpecError("output_tokens=0: a request has at least one output token")
    if rate_per_s is not None:
        check_decodes(request.model)
        return _answer_rate(request, RateGoal(rate_per_s=rate_per_s, attainment=attainment), top=top)
    return answer(request, top=top)


def estimate(
    model: str | Model,
    on: str,
    *,
    input_tokens: int,
    output_tokens: int,
    decode_on: str | None = None,
    batch: int | None = None,
    prefill_batch: int | None = None,
    decode_batch: int | None = None,
    weights: str | None = None,
    kv_dtype: str | None = None,
    page_size: int | Sequence[int] = 1,
    prefill: str | None = None,
    decode: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    mesh: str | None = None,
    engine: str | None = None,
    bound: bool = False,
    memory_share: float | None = None,
    price: str | float | None = None,
) -> PlanResult:
    """Price one deployment: batch 1, one stage and one replica unless said, on the best wiring of the slice.

    The result has one plan, or none and the nearest miss. Parameters and errors as in `plan`.
    """
    given = batch if batch is not None else 1
    return plan(
        model,
        on,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        decode_on=decode_on,
        prefill_batch=prefill_batch if prefill_batch is not None else given,
        decode_batch=decode_batch if decode_batch is not None else given,
        weights=weights,
        kv_dtype=kv_dtype,
        page_size=page_size,
        prefill=prefill,
        decode=decode,
        tp=tp,
        pp=_given_or_implied(pp, tp, dp),
        dp=dp if dp is not None else 1,
        mesh=mesh,
        engine=engine,
        bound=bound,
        memory_share=memory_share,
        price=price,
        top=1,
    )


def _given_or_implied(pp: int | None, tp: int | None, dp: int | None) -> int | None:
    """One stage, unless `tp` or `dp` leave chips over that only stages can take."""
    return pp if pp is not None or tp is not None or dp is not None else 1


def answer(request: PlanRequest, *, top: int) -> PlanResult:
    """Search, write out the best `top` plans that differ in more than wiring, and check each."""
    found = search(request)
    if found.n_candidates == 0 and request.is_pinned:
        raise SpecError(_nothing_to_price(request, found))
    chosen = _different(found.pairs)[:top]
    return _result(request, found, _checked(request, chosen), _checked(request, _thinned(found.frontier)))


def _answer_rate(request: PlanRequest, goal: RateGoal, *, top: int) -> PlanResult:
    """The plans of the smallest pool that carries a rate, confirmed by simulation."""
    started = time.perf_counter()
    rated = plan_for_rate(request, goal, top=top)
    made = _result(request, rated.found, rated.plans, ())
    changes = {
        "rate_per_s": goal.rate_per_s,
        "attainment": goal.attainment,
        "pool_size": rated.pool_size,
        "nearest_miss": rated.miss,
        "wall_s": time.perf_counter() - started,
    }
    return made.model_copy(update=changes)


def _checked(request: PlanRequest, pairs: list[Pair]) -> tuple[Plan, ...]:
    """Pairs written out in their order, each against its certificate."""
    plans = build_plans(request, pairs)
    for made in plans:
        check_plan(request, made)
    return plans


def _result(request: PlanRequest, found: Found, plans: tuple[Plan, ...], frontier: tuple[Plan, ...]) -> PlanResult:
    return PlanResult(
        version=__version__,
        model=request.model_reference,
        on=request.on,
        workload=WorkloadShape(
            input_tokens=request.workload.input_tokens, output_tokens=request.workload.output_tokens
        ),
        objective=request.objective,
        ttft_s=request.slo.ttft_s,
        tpot_s=request.slo.tpot_s,
        plans=plans,
        frontier=frontier,
        rejected=dict(sorted(found.rejected.items())),
        nearest_miss=nearest_miss(request, found),
        n_candidates=found.n_candidates,
        wall_s=found.wall_s,
    )


def _different(pairs: list[Pair]) -> list[Pair]:
    """Of pairs that differ in wiring, micro-batches or name alone, the first."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for pair in pairs:
        choices = (pair.prefill, pair.decode)
        priced = (
            *((c.slice, c.setting.formats, c.batch) for c in choices),
            f"{pair.latency_s:.12g}",
            f"{pair.chip_s:.12g}",
        )
        named = tuple(
            (c.slice, c.setting.layout, c.setting.attention, c.setting.formats, c.setting.pp, c.setting.dp, c.batch)
            for c in choices
        )
        if priced not in seen and named not in seen:
            kept.append(pair)
        seen |= {priced, named}
    return kept


def _thinned(frontier: list[Pair]) -> list[Pair]:
    """At most so many points, evenly along the frontier, both ends kept."""
    if len(frontier) <= _MAX_FRONTIER:
        return frontier
    last = len(frontier) - 1
    return [frontier[round(i * last / (_MAX_FRONTIER - 1))] for i in range(_MAX_FRONTIER)]


def _nothing_to_price(request: PlanRequest, found: Found) -> str:
    """Why what the user pinned down leaves no candidate, and what would."""
    if found.n_phase_cells:
        stored = "the prefill and decode layouts keep the weights in different forms, so one slice cannot serve both"
        return f"nothing to price on {request.on}: {stored}; use layouts with one stored form, or --decode-on"
    if not any(request.allows_split(*split) for slice_ in request.slices for split in splits(slice_)):
        found_splits = sorted({split for slice_ in request.slices for split in splits(slice_)})[:8]
        pairs = ", ".join(f"pp={pp} dp={dp}" for pp, dp in found_splits)
        return f"pp={request.pp or 1} dp={request.dp or 1} does not cut {request.on} into equal parts; try {pairs}"
    sizes = sorted({mesh.sizes for slice_ in request.slices for mesh in meshes(slice_)}, key=lambda s: -min(s))
    known = ", ".join("x".join(map(str, size)) for size in sizes[:6])
    reasons = "; ".join(found.rejected) or "no mesh of the slice has these sizes"
    return f"nothing to price on {request.on}: {reasons}; its meshes are {known}{', ...' if len(sizes) > 6 else ''}"
