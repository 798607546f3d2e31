"""A measured case predicted: what its row fixes is kept, what it leaves open the planner chooses."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.chip import Chip, Torus, capped_chip
from ..hardware_specs.cluster import Slice
from ..hardware_specs.errors import SpecError
from ..models.catalogue import get_model
from ..simulator.cost.engines import default_kv, engine_on, engine_running, get_engine
from ..simulator.cost.machine import make_machine, take
from ..simulator.cost.phases import price_phase
from ..simulator.types import PhaseName
from ..validate.loads import PhaseSeconds, batch_at_once, full_queue, scaled_rates
from ..validate.measured_case import MeasuredCase
from ..validate.metrics import Outcome, Quantities
from .build import build_phase
from .expert_rows import with_experts
from .predict_load import full_engine, under_load
from .request import MAX_BATCH, PlanRequest, make_request
from .result import PhasePlan, WorkloadShape
from .search import Found, Pair, note_bytes, search
from .space import Choice, phase_cells

# What GPU engines run unless a row says otherwise: Megatron's tensor parallel forms.
_SWITCH_LAYOUT = "ws-1d-allreduce/heads"
# Requests of one replica that a plan for traffic at a rate is made for; the simulation serves as many as come and fit.
_OPEN_SEQUENCES = 64
_BATCHES = tuple(sorted({round(1.15**k) for k in range(60)}))


def predict(case: MeasuredCase) -> Outcome:
    """Predict what a case can be measured by.

    Replicas share nothing but the load: one is predicted, on its share of the chips.

    Raises
    ------
    SpecError : the counts of chips disagree, no slice is that large, or nothing fits in memory
    """
    chip = get_chip(case.hardware)
    n_chips = _n_chips(case)
    if get_model(case.model).has_experts:
        case = with_experts(case, n_chips)
    elif case.ep not in (None, 1):
        raise SpecError(f"ep={case.ep}, but {case.model} has no experts")
    return _outcome(case, chip, n_chips, _answer(case, chip, n_chips))


def _answer(case: MeasuredCase, chip: Chip, n_chips: int) -> "_Replicas":
    """Answer a case; one that does not speak of pipeline stages has none, unless nothing else fits.

    A pipeline of even passes is priced as if it never waited, so that it would be chosen too often.
    """
    answers = {
        "batch": _predict_batch,
        "closed loop": _predict_load,
        "rate": _predict_load,
        "queue": _predict_queue,
    }
    answer = answers[case.load]
    if case.pp is not None or isinstance(chip.scale_up, Torus):
        return answer(case, chip, n_chips)
    try:
        return answer(replace(case, pp=1), chip, n_chips)
    except SpecError as reason:
        try:
            return answer(case, chip, n_chips)
        except SpecError:
            raise reason from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replicas:
    """The phases of one of `n` replicas (None where a phase was not asked for), and their load as a closed form."""

    n: int
    prefill: PhasePlan | None
    decode: PhasePlan | None
    answer: Callable[[PhaseSeconds], Quantities]
    n_users: int


def _n_chips(case: MeasuredCase) -> int:
    """Chips of the system; stated degrees must multiply to them."""
    degrees = {"tp": case.tp, "pp": case.pp, "dp": case.dp}
    stated = math.prod(n for n in degrees.values() if n is not None)
    if case.n_chips is None:
        if case.tp is None:
            raise SpecError("n_chips and tp are both blank; one of them is needed")
        return stated
    closed = case.tp is not None and case.pp is not None
    if (stated != case.n_chips) if closed else (case.n_chips % stated):
        text = " x ".join(f"{name}={n}" for name, n in degrees.items() if n is not None)
        raise SpecError(f"{text} = {stated} chips, but n_chips={case.n_chips}")
    return case.n_chips


def _request(case: MeasuredCase, chip: Chip, n_chips: int) -> PlanRequest:
    """One replica on its chips, which ran what they ran: beyond the model's positions too, and under a power cap."""
    default = None if isinstance(chip.scale_up, Torus) else _SWITCH_LAYOUT
    request = make_request(
        case.model,
        f"{chip.name}:{n_chips}",
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
        weights=case.weights,
        kv_dtype=case.kv_dtype or default_kv(_engine(case, chip) or "", case.weights),
        prefill=case.prefill_layout or default,
        decode=case.decode_layout or default,
        tp=case.tp,
        pp=case.pp,
        dp=1,
        mesh=case.mesh,
        objective="throughput" if case.is_rate else "latency",
        engine=_engine(case, chip),
        beyond_positions=True,
    )
    if case.power_w is None:
        return request
    slices = tuple(replace(slice_, chip=capped_chip(slice_.chip, case.power_w)) for slice_ in request.slices)
    return replace(request, slices=slices, decode_slices=slices)


def _engine(case: MeasuredCase, chip: Chip) -> str | None:
    """The profile of the software a row names."""
    if not case.framework:
        return None
    return engine_running(engine_on(chip, case.framework, case.framework_version), get_model(case.model))


def _predict_batch(case: MeasuredCase, chip: Chip, n_chips: int) -> _Replicas:
    """A batch at once; where one phase was measured alone, the other does not weigh on what is chosen."""
    n_replicas, n_requests = case.dp or 1, case.n_requests or 1
    batch = -(-n_requests // n_replicas)
    request = _with_batches(_request(case, chip, n_chips // n_replicas), (batch,), (batch,))
    prefill = decode = None
    if case.phases == ("prefill", "decode"):
        prefill, decode = _build_pair(request, _best_pair(request, f"batch {batch}"))
    elif case.phases == ("prefill",):
        prefill = build_phase(request, _best_phase(request, "prefill", f"batch {batch}"))
    else:
        decode = build_phase(request, _best_phase(request, "decode", f"batch {batch}"))

    def answer(seconds: PhaseSeconds) -> Quantities:
        return batch_at_once(seconds, n_requests=n_requests)

    return _Replicas(n=n_replicas, prefill=prefill, decode=decode, answer=answer, n_users=n_requests)


def _predict_load(case: MeasuredCase, chip: Chip, n_chips: int) -> _Replicas:
    """Users in a closed loop, or requests at a rate: simulated, on the plan of as many requests as fit."""
    if case.dp is None and case.tp is None:
        chosen = _predict_queue(case, chip, n_chips)
        prefill, decode, n_replicas = chosen.prefill, chosen.decode, chosen.n
    else:
        n_replicas = case.dp or 1
        request = _request(case, chip, n_chips // n_replicas)
        wanted = -(-case.n_requests // n_replicas) if case.n_requests is not None else _OPEN_SEQUENCES

        def running(n: int) -> PlanRequest:
            return _with_batches(request, (1,), (n,))

        n_running = _most_that_fit(running, min(wanted, MAX_BATCH))
        chosen_request = running(n_running)
        prefill, decode = _build_pair(chosen_request, _best_pair(chosen_request, f"{n_running} requests at a time"))
    assert prefill is not None
    assert decode is not None
    serve = under_load(case, prefill, decode, n_replicas)
    return _Replicas(n=n_replicas, prefill=prefill, decode=decode, answer=serve, n_users=case.n_requests or 1)


def _most_that_fit(running: Callable[[int], PlanRequest], n_users: int) -> int:
    """The largest number of users up to `n_users` that fit in memory at their full length; at least 1."""
    if search(running(n_users)).pairs:
        return n_users
    low, high = 1, n_users
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if search(running(middle)).pairs else (low, middle)
    return low


def _predict_queue(case: MeasuredCase, chip: Chip, n_chips: int) -> _Replicas:
    """Everything queued: the batch of highest throughput that fits, on the best number of replicas if none is stated."""
    open_dp = case.dp is None and case.tp is None
    choices = [d for d in range(1, n_chips + 1) if n_chips % d == 0] if open_dp else [case.dp or 1]
    best: _Replicas | None = None
    best_rate, refusals = 0.0, []
    for n_replicas in choices:
        try:
            request = _with_batches(_request(case, chip, n_chips // n_replicas), _BATCHES, _BATCHES)
            found, rate = _prompts(request) if case.phases == ("prefill",) else _full_queue(request)
        except SpecError as reason:
            refusals.append(reason)
            continue
        if rate * n_replicas > best_rate:
            best, best_rate = replace(found, n=n_replicas, n_users=found.n_users * n_replicas), rate * n_replicas
    if best is None:
        raise refusals[0]
    return _scaled(best)


def _scaled(one: _Replicas) -> _Replicas:
    """The closed form of one replica, its rates times their number."""

    def answer(seconds: PhaseSeconds) -> Quantities:
        return scaled_rates(one.answer(seconds), one.n)

    return replace(one, answer=answer)


def _full_queue(request: PlanRequest) -> tuple[_Replicas, float]:
    """One replica under a full queue, and its requests a second."""
    pair = _best_pair(replace(request, objective="throughput"), "a single request")
    prefill, decode = _build_pair(request, pair)
    shape = WorkloadShape(input_tokens=request.workload.input_tokens, output_tokens=request.workload.output_tokens)

    def answer(seconds: PhaseSeconds) -> Quantities:
        if not get_engine(decode.engine).mixes:
            return full_queue(seconds, prefill_batch=prefill.batch, decode_batch=decode.batch)
        return full_engine(decode, prefill, request.model, shape, seconds.step_s / decode.step_s)

    return _Replicas(n=1, prefill=prefill, decode=decode, answer=answer, n_users=decode.batch), pair.requests_per_s


def _prompts(request: PlanRequest) -> tuple[_Replicas, float]:
    """One replica that only reads prompts, and its prompts a second."""
    prefill = build_phase(request, _best_phase(request, "prefill", "a single prompt"))

    def answer(seconds: PhaseSeconds) -> Quantities:
        return Quantities(input_tokens_per_s=prefill.batch * seconds.input_tokens / seconds.prefill_s)

    one = _Replicas(n=1, prefill=prefill, decode=None, answer=answer, n_users=prefill.batch)
    return one, prefill.batch / prefill.latency_s


def _build_pair(request: PlanRequest, pair: Pair) -> tuple[PhasePlan, PhasePlan]:
    return build_phase(request, pair.prefill), build_phase(request, pair.decode)


def _with_batches(request: PlanRequest, prefill: tuple[int, ...], decode: tuple[int, ...]) -> PlanRequest:
    largest = max(*prefill, *decode)
    if largest > MAX_BATCH:
        raise SpecError(f"a batch of {largest} is over the limit of {MAX_BATCH}")
    return replace(request, prefill_batches=prefill, decode_batches=decode)


def _best_pair(request: PlanRequest, what: str) -> Pair:
    found = search(request)
    if not found.pairs:
        raise SpecError(_why_not(found, what))
    return found.pairs[0]


def _why_not(found: Found, what: str) -> str:
    over, needs = found.least_over_bytes
    if math.isfinite(over):
        return f"{what} does not fit: {needs}"
    return f"no layout can run {what}: {'; '.join(sorted(found.rejected)) or 'no mesh has these degrees'}"


def _best_phase(request: PlanRequest, phase: PhaseName, what: str) -> Choice:
    """The candidate of one phase that fits and takes least time a sequence, whatever the other phase would be."""
    found = Found()
    best = min(
        (quickest for slice_ in request.slices for quickest in _quickest(request, slice_, phase, found)),
        key=itemgetter(0),
        default=None,
    )
    if best is None:
        raise SpecError(_why_not(found, what))
    return best[1]


def _quickest(request: PlanRequest, slice_: Slice, phase: PhaseName, found: Found) -> Iterator[tuple[float, Choice]]:
    """Of each set of candidates on a slice the quickest that fits, behind its seconds a sequence."""
    engine, limit = request.calibration(slice_).engine, request.limit_bytes(slice_)
    for cells in phase_cells(request, slice_, phase, engine, found.rejected):
        machine = take(make_machine(slice_.chip, cells.meshes), cells.mesh)
        price = price_phase(cells.setting, machine, cells.batch, engine, n_microbatches=cells.n_microbatches)
        total = np.asarray(price.memory.total)
        seconds = np.where(total <= limit, price.latency_s / cells.batch, np.inf)
        i = int(np.argmin(seconds))
        note_bytes(found, total, limit, slice_)
        if np.isfinite(seconds[i]):
            yield float(seconds[i]), cells.choice(i)


def _outcome(case: MeasuredCase, chip: Chip, n_chips: int, replicas: _Replicas) -> Outcome:
    """The answer at the expected seconds and at both ends of the phases' intervals."""
    prefill, decode = replicas.prefill, replicas.decode

    def at(end: Callable[[PhasePlan], float]) -> Quantities:
        found = replicas.answer(
            PhaseSeconds(
                prefill_s=0.0 if prefill is None else end(prefill),
                step_s=0.0 if decode is None else decode.step_s * end(decode) / decode.latency_s,
                input_tokens=case.input_tokens,
                output_tokens=case.output_tokens,
            )
        )
        return scaled_rates(found, 1.0 / case.n_beams)

    bounded = all(plan.latency_high_s is not None for plan in (prefill, decode) if plan is not None)
    per_node = None if isinstance(chip.scale_up, Torus) else chip.scale_up.domain_chips
    return Outcome(
        expected=at(lambda plan: plan.latency_s),
        quick=at(lambda plan: plan.latency_low_s),
        slow=at(lambda plan: plan.latency_high_s or math.inf) if bounded else None,
        n_chips=n_chips,
        n_nodes=None if per_node is None else -(-n_chips // per_node),
        n_users=replicas.n_users,
    )
