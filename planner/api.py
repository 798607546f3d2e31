"""The planner as a library: one call a question, typed answers."""

from collections.abc import Sequence

from ..hardware_specs.errors import SpecError
from ..models.description import Model
from .build import build_plan
from .certificate import check_plan
from .request import PlanRequest, make_request
from .result import Objective, Plan, PlanResult, WorkloadShape
from .search import Found, Pair, nearest_miss, search
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
    objective: Objective | None = None,
    engine: str | None = None,
    bound: bool = False,
    memory_share: float | None = None,
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
    prefill, decode : layouts to allow, e.g. ``wg-xyz/batch``; None allows all
    ttft_s, tpot_s : limits
    objective : what the first plan is best at; ``latency``, or ``cost`` where a limit is given
    engine : software profile, see `shardwise.simulator.cost.engines`
    bound : price by the roofline alone, without any fit
    memory_share : part of HBM a plan may fill

    Raises
    ------
    SpecError : a name that does not exist or a number that does not fit, with the way out

    References
    ----------
    [Pope2022] sections 3 and 4.
    """
    extra = {} if memory_share is None else {"memory_share": memory_share}
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
        **extra,
    )
    if top < 1:
        raise SpecError(f"top={top} must be at least 1")
    return answer(request, top=top)


def answer(request: PlanRequest, *, top: int) -> PlanResult:
    """Search, write out the best `top` plans that differ in more than wiring, and check each."""
    found = search(request)
    chosen = _different(found.pairs)[:top]
    plans = tuple(build_plan(request, pair, rank) for rank, pair in enumerate(chosen, start=1))
    for made in plans:
        check_plan(request, made)
    frontier = tuple(build_plan(request, pair, rank) for rank, pair in enumerate(_thinned(found.frontier), start=1))
    return _result(request, found, plans, frontier)


def _result(request: PlanRequest, found: Found, plans: tuple[Plan, ...], frontier: tuple[Plan, ...]) -> PlanResult:
    return PlanResult(
        version=__version__,
        model=request.model.name,
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
        seconds=found.seconds,
    )


def _different(pairs: list[Pair]) -> list[Pair]:
    """Of pairs that are priced alike to the last digit (one plan under another wiring or name), the first."""
    seen: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        choices = [(c.slice, c.setting.formats, c.batch, c.n_microbatches) for c in (pair.prefill, pair.decode)]
        seen.setdefault((*choices, f"{pair.latency_s:.12g}", f"{pair.chip_s:.12g}"), pair)
    return list(seen.values())


def _thinned(frontier: list[Pair]) -> list[Pair]:
    """At most so many points, evenly along the frontier, both ends kept."""
    if len(frontier) <= _MAX_FRONTIER:
        return frontier
    last = len(frontier) - 1
    return [frontier[round(i * last / (_MAX_FRONTIER - 1))] for i in range(_MAX_FRONTIER)]
