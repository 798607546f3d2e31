"""Plans for a rate of requests: the smallest pool that carries it, how sure that number is, and why not fewer chips."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ..hardware_specs.units import format_seconds
from ..simulator.types import Slo
from .build import build_plans
from .certificate import check_plan
from .cost import with_cost
from .request import MAX_BATCH, PlanRequest
from .result import Binds, Plan, PoolSize, TriedSize, UnderLoad, WorkloadShape
from .search import Found, Pair, nearest_miss, search
from .space import Choice
from .trial import RateGoal, Trial, highest_rate, load_end, quick_scale, slow_scale, try_plan, under_load, within

# Candidates of one pool that are simulated: the best of each way to cut it into stages and replicas.
_CANDIDATES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPlans:
    """Plans of one pool size under load, best first, and what the search for them found."""

    plans: tuple[Plan, ...]
    found: Found
    pool_size: PoolSize | None = None
    miss: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    pair: Pair
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """One pool size: its candidates, and what each came to at the rate."""

    request: PlanRequest
    found: Found
    candidates: list[_Candidate]
    trials: dict[int, Trial]

    @property
    def is_met(self) -> bool:
        """Whether one of its candidates carries the rate."""
        return any(trial.is_met for trial in self.trials.values())


@dataclass(slots=True, kw_only=True)
class _Sizes:
    """Every pool size the request allows, the smallest first, each searched and simulated when first asked for."""

    requests: list[PlanRequest]
    goal: RateGoal
    known: dict[int, _Size] = field(default_factory=dict)

    def size(self, i: int) -> _Size:
        """One of them."""
        if i not in self.known:
            self.known[i] = _try_size(self.requests[i], self.goal)
        return self.known[i]

    def is_met(self, i: int) -> bool:
        """Whether one of its candidates carries the rate."""
        return self.size(i).is_met

    def is_met_at(self, i: int, scale_of: Callable[[Plan], float]) -> bool:
        """The same where every step takes an end of its interval."""
        size = self.size(i)
        trials = (
            try_plan(size.request, candidate.plan, self.goal, step_scale=scale_of(candidate.plan))
            for candidate in size.candidates
        )
        return any(trial is not None and trial.is_met for trial in trials)


def plan_for_rate(request: PlanRequest, goal: RateGoal, *, top: int) -> RatedPlans:
    """Find the smallest pool that carries a rate within the limits, by bisection over the sizes the request allows.

    Where none does, the plans are none and `miss` says how far the largest pool comes.
    """
    sizes = _Sizes(requests=_cut_down(request), goal=goal)
    last = len(sizes.requests) - 1
    if not sizes.is_met(last):
        return RatedPlans(plans=(), found=sizes.size(last).found, miss=_miss(sizes.size(last), goal, with_rate=True))
    best = _smallest(sizes.is_met, last)
    size = sizes.size(best)
    plans = _loaded_plans(size, top)
    return RatedPlans(plans=plans, found=size.found, pool_size=_pool_size(sizes, best, plans[0]))


def _cut_down(request: PlanRequest) -> list[PlanRequest]:
    """The request cut down to each number of chips that its pool allows, the smallest first."""
    if request.sharing == "separate":
        return [request]
    made = []
    for n in sorted({slice_.n_chips for slice_ in request.slices}):
        slices = tuple(slice_ for slice_ in request.slices if slice_.n_chips == n)
        made.append(replace(request, slices=slices, decode_slices=slices, sharing="shared", max_chips=n))
    return made


def _smallest(is_met: Callable[[int], bool], high: int, low: int = -1) -> int:
    """The first index above `low` that meets, where `high` does."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_met(middle) else (middle, high)
    return high


def _unlimited(request: PlanRequest) -> PlanRequest:
    """The request without its limits: a batch is what the traffic makes of it, so simulation alone checks them."""
    return replace(request, slo=Slo(), objective="cost")


def _try_size(request: PlanRequest, goal: RateGoal) -> _Size:
    """Simulate the candidates of one pool size at the rate."""
    unlimited = _unlimited(request)
    found = search(unlimited)
    candidates = []
    for pair in _each_cut(found.pairs)[:_CANDIDATES]:
        (plan,) = build_plans(unlimited, [pair])
        check_plan(unlimited, plan)
        candidates.append(_Candidate(pair=pair, plan=plan))
    trials: dict[int, Trial] = {}
    for i, candidate in enumerate(candidates):
        trial = try_plan(request, candidate.plan, goal)
        if trial is not None:
            candidates[i], trials[i] = _fitted(request, candidate, trial)
    return _Size(request=request, found=found, candidates=candidates, trials=trials)


def _fitted(request: PlanRequest, candidate: _Candidate, trial: Trial) -> tuple[_Candidate, Trial]:
    """The candidate with the layouts that suit the batches of its traffic, where it keeps more so.

    The search prefers layouts for the largest batch there is room for; few requests at a time may want others.
    """
    pair = candidate.pair
    found = next((p for p in search(_at_traffic(request, pair, trial)).pairs if _is_wired_alike(p, pair)), None)
    if found is None or all(_layout(a) == _layout(b) for a, b in zip(_choices(found), _choices(pair), strict=True)):
        return candidate, trial
    (plan,) = build_plans(_unlimited(request), [found])
    check_plan(_unlimited(request), plan)
    again = try_plan(request, plan, trial.goal)
    if again is None or _merit(again) <= _merit(trial):
        return candidate, trial
    return _Candidate(pair=found, plan=plan), again


def _merit(trial: Trial) -> tuple[bool, float, float]:
    """What the better of two trials has more of."""
    return trial.is_met, within(trial.report), trial.saturation_per_s


def _choices(pair: Pair) -> tuple[Choice, Choice]:
    return pair.prefill, pair.decode


def _is_wired_alike(one: Pair, other: Pair) -> bool:
    """Whether two pairs lie on the same slices in the same stages, replicas and formats."""
    cuts = [[(c.slice, c.setting.pp, c.setting.dp, c.setting.formats) for c in _choices(pair)] for pair in (one, other)]
    return cuts[0] == cuts[1]


def _each_cut(pairs: list[Pair]) -> list[Pair]:
    """The best pair of each way to cut the pool; the first in the order they are ranked."""
    kept: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        cut = tuple((c.slice, c.setting.pp, c.setting.dp, c.setting.formats) for c in (pair.prefill, pair.decode))
        kept.setdefault(cut, pair)
    return list(kept.values())


def _loaded_plans(size: _Size, top: int) -> tuple[Plan, ...]:
    """The candidates that carry the rate, by the highest rate they carry; the first with the ends of its interval."""
    loads = _best_loads(size, top)
    order = sorted(loads, key=lambda i: -loads[i].highest_rate_per_s)[:top]
    work = size.request.workload
    shape = WorkloadShape(input_tokens=work.input_tokens, output_tokens=work.output_tokens)
    plans = []
    for rank, i in enumerate(order, start=1):
        served = _as_served(size.request, size.candidates[i], size.trials[i])
        load = loads[i] if rank > 1 else loads[i].model_copy(update=_ends(size, i))
        loaded = served.model_copy(update={"rank": rank, "under_load": load})
        plans.append(with_cost(loaded, shape, size.request.payment))
    return tuple(plans)


def _best_loads(size: _Size, top: int) -> dict[int, UnderLoad]:
    """Those that carry the rate, by their places; what saturates below `top` highest rates known is left out."""
    met = [i for i, trial in size.trials.items() if trial.is_met]
    loads: dict[int, UnderLoad] = {}
    for i in sorted(met, key=lambda i: -size.trials[i].saturation_per_s):
        known = sorted((load.highest_rate_per_s for load in loads.values()), reverse=True)
        if len(known) >= top and known[top - 1] >= size.trials[i].saturation_per_s:
            break
        loads[i] = under_load(size.trials[i])
    return loads


def _ends(size: _Size, i: int) -> dict[str, object]:
    """A candidate's figures under load where every step takes the low or the high end of its interval."""
    plan, goal = size.candidates[i].plan, size.trials[i].goal
    ends = {"quick": quick_scale(plan), "slow": slow_scale(plan)}
    made: dict[str, object] = {}
    for name, scale in ends.items():
        trial = None if scale is None else try_plan(size.request, plan, goal, step_scale=scale)
        made[name] = None if trial is None else load_end(trial)
    return made


def _at_traffic(request: PlanRequest, pair: Pair, trial: Trial) -> PlanRequest:
    """The request at the batches that the traffic makes of a pair on the mean."""
    decode = pair.decode.setting
    writing = _filled(trial.n_writing, decode.dp * decode.pp)
    reading = _filled(trial.n_reading, pair.prefill.setting.dp)
    return replace(
        _unlimited(request),
        slices=(pair.prefill.slice,),
        decode_slices=(pair.decode.slice,),
        prefill_batches=(min(reading, writing) if pair.shared else reading,),
        decode_batches=(writing,),
    )


def _as_served(request: PlanRequest, candidate: _Candidate, trial: Trial) -> Plan:
    """The candidate at the batches that the traffic makes of it on the mean; as it was searched where they do not fit."""
    pair = candidate.pair
    pinned = replace(
        _at_traffic(request, pair, trial),
        prefill_layouts=(_layout(pair.prefill),),
        decode_layouts=(_layout(pair.decode),),
    )
    for found in search(pinned).pairs:
        if all(_is_cut_alike(a, b) for a, b in zip(_choices(found), _choices(pair), strict=True)):
            (plan,) = build_plans(_unlimited(request), [found])
            check_plan(_unlimited(request), plan)
            return plan
    return candidate.plan


def _filled(n_mean: float, unit: int) -> int:
    """Sequences, up to a multiple of what they are divided over."""
    return min(max(math.ceil(n_mean / unit), 1), MAX_BATCH // unit) * unit


def _layout(choice: Choice) -> str:
    setting = choice.setting
    return f"{setting.layout}/{setting.attention}" + (f"/{setting.experts}" if setting.experts != "tensor" else "")


def _is_cut_alike(one: Choice, other: Choice) -> bool:
    """Whether two choices differ in their batches alone."""
    return (one.setting, one.slice, one.mesh_index) == (other.setting, other.slice, other.mesh_index)


def _pool_size(sizes: _Sizes, best: int, plan: Plan) -> PoolSize:
    """The number of chips, its ends where steps take the ends of their intervals, and what binds one size less."""
    low = _smallest(lambda i: sizes.is_met_at(i, quick_scale), best)
    high = _largest_needed(sizes, best, plan)
    why = f"{plan.n_chips} is the fewest that {sizes.requests[0].on} allows"
    return PoolSize(
        n_chips=plan.n_chips,
        n_chips_low=plan.n_chips if low == best else sizes.requests[low].max_chips,
        n_chips_high=None if high is None else plan.n_chips if high == best else sizes.requests[high].max_chips,
        why_not_fewer=why if best == 0 else _miss(sizes.size(best - 1), sizes.goal),
        tried=tuple(_tried(size, sizes.goal) for _, size in sorted(sizes.known.items())),
    )


def _tried(size: _Size, goal: RateGoal) -> TriedSize:
    """A pool size at the rate, by its best candidate."""
    trial = _best_trial(size)
    return TriedSize(
        n_chips=size.request.max_chips,
        binds=_binds(size, goal),
        within_slo=None if trial is None else within(trial.report),
        saturation_per_s=max((t.saturation_per_s for t in size.trials.values()), default=None),
    )


def _largest_needed(sizes: _Sizes, best: int, plan: Plan) -> int | None:
    """The smallest size that carries the rate where steps take the high end; None where none does or there is no end."""
    last = len(sizes.requests) - 1
    if slow_scale(plan) is None:
        return None

    def is_met(i: int) -> bool:
        return sizes.is_met_at(i, lambda plan: slow_scale(plan) or math.inf)

    if is_met(best):
        return best
    return _smallest(is_met, last, best) if last > best and is_met(last) else None


def _best_trial(size: _Size) -> Trial | None:
    """The candidate that comes nearest."""
    trials = size.trials.values()
    return max(trials, key=lambda trial: (trial.is_met, within(trial.report), trial.saturation_per_s), default=None)


def _binds(size: _Size, goal: RateGoal) -> Binds | None:
    """What keeps a size from carrying the rate: memory, the chips' speed, or the limit that most requests miss."""
    trial = _best_trial(size)
    if size.is_met:
        return None
    if trial is None:
        return "memory"
    if goal.rate_per_s >= max(trial.saturation_per_s for trial in size.trials.values()):
        return "saturation"
    return min(_limits(size.request, trial), key=lambda limit: limit.kept).name


def _miss(size: _Size, goal: RateGoal, *, with_rate: bool = False) -> str:
    """How far a pool comes, and what binds it; `with_rate` finds the highest rate it carries, which takes a while."""
    pool, trial, binds = _pool_name(size.request), _best_trial(size), _binds(size, goal)
    if trial is None:
        return nearest_miss(size.request, size.found) or f"the cache of {pool} holds no request beside the weights"
    if binds == "saturation":
        most = max(trial.saturation_per_s for trial in size.trials.values())
        return f"{goal.rate_per_s:.4g} requests/s are more than {pool} carry: they saturate at {most:.4g} requests/s"
    limits = _limits(size.request, trial)
    reached = ", ".join(f"{limit.name} p50 {limit.p50}, p99 {limit.p99}" for limit in limits)
    return (
        f"{binds} binds: at {goal.rate_per_s:.4g} requests/s {pool} keep "
        f"{' and '.join(f'{limit.name} {limit.limit}' for limit in limits)} for {within(trial.report):.2f} of the requests, "
        f"{goal.attainment:.2f} are asked for ({reached}){_at_best(trial, with_rate=with_rate)}"
    )


def _at_best(trial: Trial, *, with_rate: bool) -> str:
    """What a pool that misses a limit carries at all."""
    if not trial.keeps_alone():
        return "; they do not keep them at any rate"
    return f"; the highest rate they keep them at is {highest_rate(trial):.4g} requests/s" if with_rate else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A limit of the request, the share of requests that keep it, and what is reached."""

    name: Literal["TTFT", "TPOT"]
    limit: str
    kept: float
    p50: str
    p99: str


def _limits(request: PlanRequest, trial: Trial) -> list[_Limit]:
    report, slo = trial.report, request.slo
    found = []
    names: tuple[Literal["TTFT", "TPOT"], ...] = ("TTFT", "TPOT")
    for name, limit, times in zip(names, (slo.ttft_s, slo.tpot_s), (report.ttft_s, report.tpot_s), strict=True):
        known = times[~np.isnan(times)]
        if limit is not None and len(known):
            p50, p99 = (format_seconds(float(np.quantile(known, q))) for q in (0.5, 0.99))
            kept = float((known <= limit).mean())
            found.append(_Limit(name=name, limit=format_seconds(limit), kept=kept, p50=p50, p99=p99))
    return found


def _pool_name(request: PlanRequest) -> str:
    """How many chips of what."""
    chips = {slice_.chip.name for slice_ in (*request.slices, *request.decode_slices)}
    if request.sharing == "separate" or len(chips) > 1:
        return f"the chips of {request.on}"
    return f"{request.max_chips} {chips.pop()}"
