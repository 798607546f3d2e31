"""Why a plan is as quick as it is, and what the others pay more for."""

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..hardware_specs.errors import SpecError
from ..hardware_specs.units import format_seconds
from .build import bound_seconds
from .result import Bound, Plan, PlanResult

_STRICT = ConfigDict(frozen=True, extra="forbid")
_WORDS: dict[Bound, str] = {"compute": "compute", "hbm": "HBM traffic", "links": "links", "latency": "fixed latency"}


class RunnerUp(BaseModel):
    """A plan that lost, and to what."""

    model_config = _STRICT
    rank: int
    prefill: str
    decode: str
    delta: str
    why: str


class Explanation(BaseModel):
    """What binds a plan, and why the runners-up lost."""

    model_config = _STRICT
    headline: str
    bound: dict[str, dict[str, float]]
    runners_up: tuple[RunnerUp, ...]
    notes: tuple[str, ...]


def read_result(path: Path) -> PlanResult:
    """Read what ``plan --json`` wrote.

    Raises
    ------
    SpecError : no such file, no JSON, or not a plan
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from None
    try:
        return PlanResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SpecError(
            f"{path} is no plan: {where}: {first['msg']}; write one with `shardwise plan ... --json`"
        ) from None


def explain_plan(result: PlanResult, rank: int = 1) -> Explanation:
    """Explain one plan of a result against the others."""
    best = result.of_rank(rank)
    return Explanation(
        headline=_headline(result, best),
        bound={
            p.phase: {str(k): v for k, v in bound_seconds(p.breakdown).items()} for p in (best.prefill, best.decode)
        },
        runners_up=tuple(_runner_up(result, best, other) for other in result.plans if other.rank != rank),
        notes=_notes(result, best),
    )


def _headline(result: PlanResult, plan: Plan) -> str:
    p, d = plan.prefill, plan.decode
    reading = (
        f"{result.model} on {result.on}, rank {plan.rank}: prefill of {p.batch} takes {format_seconds(p.latency_s)}, "
        f"bound by {_WORDS[p.bound]}"
    )
    if not d.breakdown:
        return f"{reading}; nothing is generated."
    return f"{reading};\na decode step of {d.batch} takes {format_seconds(d.step_s)}, bound by {_WORDS[d.bound]}."


def _request_seconds(plan: Plan, output_tokens: int) -> dict[Bound, float]:
    """Seconds of a request by what binds them: one prefill, and every decode step."""
    prefill, decode = bound_seconds(plan.prefill.breakdown), bound_seconds(plan.decode.breakdown)
    return {name: prefill[name] + output_tokens * decode[name] for name in prefill}


def _runner_up(result: PlanResult, best: Plan, other: Plan) -> RunnerUp:
    """The category in which the other loses most, on the measure the plans are ranked by."""
    ours = _request_seconds(best, result.workload.output_tokens)
    theirs = _request_seconds(other, result.workload.output_tokens)
    worst: Bound = max(ours, key=lambda name: theirs[name] - ours[name])
    if result.objective == "latency":
        lost = other.request_latency_s - best.request_latency_s
        more = theirs[worst] - ours[worst]
        delta = format_seconds(lost) if lost > 0 else "0 s"
        why = f"{format_seconds(more)} more {_WORDS[worst]}" if more > 0 else "a tie"
    else:
        delta = f"{other.chip_s_per_request - best.chip_s_per_request:+.3g} chip-s"
        tie = math.isclose(other.chip_s_per_request, best.chip_s_per_request, rel_tol=1e-9)
        why = "a tie" if tie else _batch_reason(best, other) or f"more {_WORDS[worst]} a request"
    return RunnerUp(
        rank=other.rank, prefill=_phase(other, "prefill"), decode=_phase(other, "decode"), delta=delta, why=why
    )


def _batch_reason(best: Plan, other: Plan) -> str | None:
    """Where the batches differ, what that does to the cost."""
    for name in ("decode", "prefill"):
        ours, theirs = getattr(best, name).batch, getattr(other, name).batch
        if theirs < ours:
            return f"{name} shared by {theirs}, not {ours} requests"
    return None


def _phase(plan: Plan, name: str) -> str:
    phase = getattr(plan, name)
    return f"{phase.layout.removeprefix('ws-')} b{phase.batch}"


def _notes(result: PlanResult, plan: Plan) -> tuple[str, ...]:
    notes = [f"refused {count:,}: {reason}" for reason, count in sorted(result.rejected.items(), key=lambda i: -i[1])]
    if plan.handoff_s is None:
        notes.append("the cache's way between the slices is not priced: the chip claims no network between slices")
    return tuple(notes)
