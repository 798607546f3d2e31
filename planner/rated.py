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
from .build import build_plan
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


def plan_for_rate(request: PlanRequest, goal: RateGoal, *, top: int) -> RatedPlans:
    """Find the smallest pool that carries a rate within the limits, by bisection over the sizes the request allows.

    Where none does, the plans are none and `miss` says how far the largest pool comes.
    """
    sizes = _sizes(request)
    best = _rated(sizes[-1][1], goal, top)
    if best.miss is not None:
        return best
    low, high = -1, len(sizes) - 1
    while high - low > 1:
        middle = (low + high) // 2
        tried = _rated(sizes[middle][1], goal, top)
        if tried.miss is None:
            high, best = middle, tried
        else:
            low = middle
    return best


def _sizes(request: PlanRequest) -> list[tuple[int, PlanRequest]]:
    """The request cut down to each number of chips that its pool allows."""
    if request.sharing == "separate":
        return [(request.max_chips, request)]
    counts = sorted({slice_.n_chips for slice_ in request.slices})
    made = []
    for n in counts:
        slices = tuple(slice_ for slice_ in request.slices if slice_.n_chips == n)
        made.append((n, replace(request, slices=slices, decode_slices=slices, sharing="shared", max_chips=n)))
    return made


def _rated(request: PlanRequest, goal: RateGoal, top: int) -> RatedPlans:
    """The candidates of one pool size under load."""
    # a batch is what the traffic makes of it, so the limits are checked by simulation alone
    found = search(replace(request, slo=Slo(), objective="cost"))
    plans = []
    for pair in _each_cut(found.pairs)[:_CANDIDATES]:
        plan = build_plan(request, pair, rank=1)
        check_plan(replace(request, slo=Slo()), plan)
        loaded = _under_load(request, plan, goal)
        if loaded is not None:
            plans.append(plan.model_copy(update={"under_load": loaded}))
    met = sorted((plan for plan in plans if _load(plan).is_met), key=_merit)
    ranked = tuple(plan.model_copy(update={"rank": i}) for i, plan in enumerate(met[:top], start=1))
    return RatedPlans(plans=ranked, found=found, miss=None if met else _miss(request, goal, plans, found))


def _load(plan: Plan) -> UnderLoad:
    assert plan.under_load is not None
    return plan.under_load


def _merit(plan: Plan) -> tuple[float, float]:
    return (plan.n_chips, -_load(plan).highest_rate_per_s)


def _each_cut(pairs: list[Pair]) -> list[Pair]:
    """The best pair of each way to cut the pool; the first in the order they are ranked."""
    kept: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        cut = tuple((c.slice, c.setting.pp, c.setting.dp, c.setting.formats) for c in (pair.prefill, pair.decode))
        kept.setdefault(cut, pair)
    return list(kept.values())


def _under_load(request: PlanRequest, plan: Plan, goal: RateGoal) -> UnderLoad | None:
    """Simulate a plan at the rate, and look for the highest it carries; None where its cache holds no request."""
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

    saturation = run(Burst()).answer_rate_per_s
    report = run(Gamma(rate_per_s=goal.rate_per_s))
    summary = report.summary()
    if not summary.finished or summary.ttft_s.p50 is None or summary.ttft_s.p99 is None:
        return None

    def is_met(rate_per_s: float, at: Report) -> bool:
        return rate_per_s < saturation and _within(at) >= goal.attainment

    return UnderLoad(
        rate_per_s=goal.rate_per_s,
        within_slo=_within(report),
        is_met=is_met(goal.rate_per_s, report),
        ttft_p50_s=summary.ttft_s.p50,
        ttft_p99_s=summary.ttft_s.p99,
        tpot_p50_s=summary.tpot_s.p50,
        tpot_p99_s=summary.tpot_s.p99,
        goodput_per_s=summary.goodput_per_s,
        highest_rate_per_s=_highest_rate(saturation, lambda rate: is_met(rate, run(Gamma(rate_per_s=rate)))),
        saturation_per_s=saturation,
        usd_per_mtok=summary.usd_per_mtok,
    )


def _within(report: Report) -> float:
    """Share of the answered requests that keep every limit."""
    return float(report.meets_slo.mean()) if len(report.meets_slo) else 0.0


def _highest_rate(saturation_per_s: float, is_met: Callable[[float], bool]) -> float:
    """The highest rate below saturation that is met, by bisection; 0 where even a lone request is late."""
    low, high = 0.0, saturation_per_s
    while high - low > _RATE_TOLERANCE * max(high, 1e-12):
        middle = (low + high) / 2.0
        low, high = (middle, high) if is_met(middle) else (low, middle)
        if high < _RATE_TOLERANCE**2 * saturation_per_s:
            return 0.0
    return low


def _miss(request: PlanRequest, goal: RateGoal, plans: list[Plan], found: Found) -> str:
    """How far the pool comes, and what binds it."""
    if not plans:
        return found.least_over_bytes[1] or "; ".join(sorted(found.rejected)) or "no candidate"
    best = max(plans, key=lambda plan: (_load(plan).highest_rate_per_s, _load(plan).saturation_per_s))
    load = _load(best)
    pool = f"{best.n_chips} chips of {request.on}"
    if goal.rate_per_s >= load.saturation_per_s:
        most = f"they saturate at {load.saturation_per_s:.4g} requests/s"
        return f"{goal.rate_per_s:.4g} requests/s are more than {pool} carry: {most}"
    limits = ", ".join(
        f"{name} {value:.4g} s" for name, value in (("TTFT", request.slo.ttft_s), ("TPOT", request.slo.tpot_s)) if value
    )
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
