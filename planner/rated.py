"""Plans for a rate of requests: candidates under simulated traffic, the smallest pool that carries it, and its limit."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..hardware_specs.errors import SpecError
from ..simulator.report import Report
from ..simulator.run import simulate
from ..simulator.types import Slo
from ..simulator.workload.gaps import ArrivalProcess, Burst, Gamma
from ..simulator.workload.lengths import Fixed
from ..simulator.workload.synthetic import SyntheticTraffic
from .build import build_plans
from .certificate import check_plan
from .deploy import ServingOptions, deploy_plan
from .request import PlanRequest
from .result import Plan, UnderLoad, WorkloadShape
from .search import Found, Pair, search

# Candidates of one pool that are simulated: the best of each way to cut it into stages and replicas.
_CANDIDATES = 6
_REQUESTS = 2000
# The highest rate is found to this part of itself.
_RATE_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RateGoal:
    """What the traffic asks for.

    Parameters
    ----------
    rate_per_s : requests a second, Poisson
    attainment : share of requests that must keep every limit
    """

    rate_per_s: float
    attainment: float

    def __post_init__(self) -> None:
        """Refuse what is no goal."""
        if not 0.0 < self.rate_per_s < 1e9:
            raise SpecError(f"a rate of {self.rate_per_s} requests/s must be a positive number")
        if not 0.0 < self.attainment <= 1.0:
            raise SpecError(
                f"attainment {self.attainment} must lie in (0, 1]: the share of requests that keep the limits"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPlans:
    """Plans of one pool size under load, best first, and what the search for them found."""

    plans: tuple[Plan, ...]
    found: Found
    miss: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A candidate that was simulated at the rate; `run` simulates it under other arrivals."""

    plan: Plan
    goal: RateGoal
    run: Callable[[ArrivalProcess], Report]
    saturation_per_s: float
    report: Report

    @property
    def is_met(self) -> bool:
        """Whether it carries the rate."""
        return self.keeps(self.goal.rate_per_s, self.report)

    def keeps(self, rate_per_s: float, report: Report) -> bool:
        """Whether enough requests keep the limits at a rate below saturation."""
        return rate_per_s < self.saturation_per_s and _within(report) >= self.goal.attainment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """What one pool size came to."""

    request: PlanRequest
    found: Found
    tried: list[_Tried]

    @property
    def is_met(self) -> bool:
        """Whether one of its candidates carries the rate."""
        return any(tried.is_met for tried in self.tried)


def plan_for_rate(request: PlanRequest, goal: RateGoal, *, top: int) -> RatedPlans:
    """Find the smallest pool that carries a rate within the limits, by bisection over the sizes the request allows.

    Where none does, the plans are none and `miss` says how far the largest pool comes.
    """
    sizes = _sizes(request)
    best = _try_size(sizes[-1], goal)
    if not best.is_met:
        return RatedPlans(plans=(), found=best.found, miss=_miss(best, goal))
    low, high = -1, len(sizes) - 1
    while high - low > 1:
        middle = (low + high) // 2
        size = _try_size(sizes[middle], goal)
        low, high, best = (low, middle, size) if size.is_met else (middle, high, best)
    loaded = [_with_load(tried) for tried in best.tried if tried.is_met]
    ranked = sorted(loaded, key=lambda plan: -_load(plan).highest_rate_per_s)[:top]
    plans = tuple(plan.model_copy(update={"rank": i}) for i, plan in enumerate(ranked, start=1))
    return RatedPlans(plans=plans, found=best.found, miss=None)


def _sizes(request: PlanRequest) -> list[PlanRequest]:
    """The request cut down to each number of chips that its pool allows, the smallest first."""
    if request.sharing == "separate":
        return [request]
    made = []
    for n in sorted({slice_.n_chips for slice_ in request.slices}):
        slices = tuple(slice_ for slice_ in request.slices if slice_.n_chips == n)
        made.append(replace(request, slices=slices, decode_slices=slices, sharing="shared", max_chips=n))
    return made


def _try_size(request: PlanRequest, goal: RateGoal) -> _Size:
    """Simulate the candidates of one pool size at the rate."""
    # a batch is what the traffic makes of it, so the limits are checked by simulation alone
    unlimited = replace(request, slo=Slo(), objective="cost")
    found = search(unlimited)
    tried = []
    for pair in _each_cut(found.pairs)[:_CANDIDATES]:
        (plan,) = build_plans(unlimited, [pair])
        check_plan(unlimited, plan)
        tried.append(_try_plan(request, plan, goal))
    return _Size(request=request, found=found, tried=[t for t in tried if t is not None])


def _load(plan: Plan) -> UnderLoad:
    assert plan.under_load is not None
    return plan.under_load


def _each_cut(pairs: list[Pair]) -> list[Pair]:
    """The best pair of each way to cut the pool; the first in the order they are ranked."""
    kept: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        cut = tuple((c.slice, c.setting.pp, c.setting.dp, c.setting.formats) for c in (pair.prefill, pair.decode))
        kept.setdefault(cut, pair)
    return list(kept.values())


def _try_plan(request: PlanRequest, plan: Plan, goal: RateGoal) -> _Tried | None:
    """Simulate a plan at the rate and with everything queued; None where its cache holds no request."""
    work = request.workload
    shape = WorkloadShape(input_tokens=work.input_tokens, output_tokens=work.output_tokens)
    try:
        deployment = deploy_plan(plan, request.model, shape, ServingOptions())
    except SpecError:
        return None
    lengths = Fixed(input_tokens=work.input_tokens, output_tokens=work.output_tokens)

    def run(process: ArrivalProcess) -> Report:
        traffic = SyntheticTraffic(process=process, lengths=lengths, n_requests=_REQUESTS)
        return simulate(deployment, traffic, slo=request.slo)

    report = run(Gamma(rate_per_s=goal.rate_per_s))
    if not report.kept.any():
        return None
    return _Tried(plan=plan, goal=goal, run=run, saturation_per_s=run(Burst()).answer_rate_per_s, report=report)


def _with_load(tried: _Tried) -> Plan:
    """The plan with its figures under load, and the highest rate it carries."""
    summary = tried.report.summary()
    assert summary.ttft_s.p50 is not None
    assert summary.ttft_s.p99 is not None
    loaded = UnderLoad(
        rate_per_s=tried.goal.rate_per_s,
        within_slo=_within(tried.report),
        is_met=tried.is_met,
        ttft_p50_s=summary.ttft_s.p50,
        ttft_p99_s=summary.ttft_s.p99,
        tpot_p50_s=summary.tpot_s.p50,
        tpot_p99_s=summary.tpot_s.p99,
        goodput_per_s=summary.goodput_per_s,
        highest_rate_per_s=_highest_rate(tried),
        saturation_per_s=tried.saturation_per_s,
        usd_per_mtok=summary.usd_per_mtok,
    )
    return tried.plan.model_copy(update={"under_load": loaded})


def _within(report: Report) -> float:
    """Share of the answered requests that keep every limit."""
    return float(report.meets_slo.mean()) if len(report.meets_slo) else 0.0


def _highest_rate(tried: _Tried) -> float:
    """The highest rate below saturation that is met, by bisection; 0 where even a lone request is late."""
    low, high = 0.0, tried.saturation_per_s
    while high - low > _RATE_TOLERANCE * high:
        middle = (low + high) / 2.0
        met = tried.keeps(middle, tried.run(Gamma(rate_per_s=middle)))
        low, high = (middle, high) if met else (low, middle)
        if high < _RATE_TOLERANCE**2 * tried.saturation_per_s:
            return 0.0
    return low


def _miss(size: _Size, goal: RateGoal) -> str:
    """How far the pool comes, and what binds it."""
    if not size.tried:
        return size.found.least_over_bytes[1] or "; ".join(sorted(size.found.rejected)) or "no candidate"
    plan = _with_load(max(size.tried, key=lambda tried: (_within(tried.report), tried.saturation_per_s)))
    load, slo = _load(plan), size.request.slo
    pool = f"{plan.n_chips} chips of {size.request.on}"
    most = max(tried.saturation_per_s for tried in size.tried)
    if goal.rate_per_s >= most:
        return f"{goal.rate_per_s:.4g} requests/s are more than {pool} carry: they saturate at {most:.4g} requests/s"
    limits = ", ".join(f"{name} {value:.4g} s" for name, value in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s)) if value)
    reached = f"TTFT p50 {load.ttft_p50_s:.4g} s, p99 {load.ttft_p99_s:.4g} s"
    if load.tpot_p50_s is not None and load.tpot_p99_s is not None:
        reached += f", TPOT p50 {load.tpot_p50_s:.4g} s, p99 {load.tpot_p99_s:.4g} s"
    best_rate = f"the highest rate they keep them at is {load.highest_rate_per_s:.4g} requests/s"
    if not load.highest_rate_per_s:
        best_rate = "they do not keep them at any rate"
    return (
        f"at {goal.rate_per_s:.4g} requests/s {pool} keep {limits} for {load.within_slo:.2f} of the requests, "
        f"{goal.attainment:.2f} are asked for ({reached}); {best_rate}"
    )
