"""One candidate under simulated traffic: what it keeps at a rate, the highest rate it carries, and how sure that is."""

from collections.abc import Callable
from dataclasses import dataclass

from ..hardware_specs.errors import SpecError
from ..simulator.report import Report
from ..simulator.run import simulate
from ..simulator.workload.gaps import ArrivalProcess, Burst, Gamma
from ..simulator.workload.lengths import Fixed
from ..simulator.workload.synthetic import SyntheticTraffic
from .deploy import ServingOptions, deploy_plan
from .request import PlanRequest
from .result import LoadEnd, Plan, UnderLoad, WorkloadShape

_REQUESTS = 2000
# Requests that come one after the other to tell whether a pool keeps the limits at all, and their rate over its saturation.
_LONE_REQUESTS = 20
_LONE_SHARE = 1e-4
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
class Trial:
    """A candidate that was simulated at the rate; `run` simulates so many requests under other arrivals."""

    plan: Plan
    goal: RateGoal
    run: Callable[[ArrivalProcess, int], Report]
    step_scale: float
    saturation_per_s: float
    report: Report

    @property
    def is_met(self) -> bool:
        """Whether it carries the rate."""
        return self.keeps(self.goal.rate_per_s, self.report)

    def keeps(self, rate_per_s: float, report: Report) -> bool:
        """Whether enough requests keep the limits at a rate below saturation."""
        return rate_per_s < self.saturation_per_s and within(report) >= self.goal.attainment

    def keeps_alone(self) -> bool:
        """Whether requests that meet nobody else keep the limits."""
        rate = _LONE_SHARE * self.saturation_per_s
        return rate > 0.0 and self.keeps(rate, self.run(Gamma(rate_per_s=rate), _LONE_REQUESTS))

    @property
    def n_reading(self) -> float:
        """Requests whose prompts are read at a time, on the mean: rate x time from schedule to first token."""
        columns, kept = self.report.columns, self.report.kept
        return self.goal.rate_per_s * float((columns["first_token_s"] - columns["scheduled_s"])[kept].mean())

    @property
    def n_writing(self) -> float:
        """Requests that write at a time, on the mean: rate x time from first to last token."""
        return self.goal.rate_per_s * float((self.report.e2e_s - self.report.ttft_s).mean())


def try_plan(request: PlanRequest, plan: Plan, goal: RateGoal, *, step_scale: float = 1.0) -> Trial | None:
    """Simulate a plan at the rate and with everything queued; None where its cache holds no request.

    Parameters
    ----------
    step_scale : factor on every step time
    """
    work = request.workload
    shape = WorkloadShape(input_tokens=work.input_tokens, output_tokens=work.output_tokens)
    try:
        deployment = deploy_plan(plan, request.model, shape, ServingOptions(step_scale=step_scale))
    except SpecError:
        return None
    lengths = Fixed(input_tokens=work.input_tokens, output_tokens=work.output_tokens)

    def run(process: ArrivalProcess, n_requests: int = _REQUESTS) -> Report:
        traffic = SyntheticTraffic(process=process, lengths=lengths, n_requests=n_requests)
        return simulate(deployment, traffic, slo=request.slo)

    report = run(Gamma(rate_per_s=goal.rate_per_s))
    if not report.kept.any():
        return None
    return Trial(
        plan=plan,
        goal=goal,
        run=run,
        step_scale=step_scale,
        saturation_per_s=run(Burst()).answer_rate_per_s,
        report=report,
    )


def quick_scale(plan: Plan) -> float:
    """Factor on every step time at the low end of the interval of a plan's phases."""
    return min(phase.latency_low_s / phase.latency_s for phase in (plan.prefill, plan.decode))


def slow_scale(plan: Plan) -> float | None:
    """The same at the high end, None where there is none."""
    ends = [(phase.latency_high_s, phase.latency_s) for phase in (plan.prefill, plan.decode)]
    known = [high / middle for high, middle in ends if high is not None]
    return max(known) if len(known) == len(ends) else None


def within(report: Report) -> float:
    """Share of the answered requests that keep every limit."""
    return float(report.meets_slo.mean()) if len(report.meets_slo) else 0.0


def highest_rate(trial: Trial) -> float:
    """The highest rate below saturation that is met, by bisection; 0 where even a lone request is late."""
    if not trial.keeps_alone():
        return 0.0
    low, high = 0.0, trial.saturation_per_s
    while high - low > _RATE_TOLERANCE * high and high > _RATE_TOLERANCE**2 * trial.saturation_per_s:
        middle = (low + high) / 2.0
        met = trial.keeps(middle, trial.run(Gamma(rate_per_s=middle), _REQUESTS))
        low, high = (middle, high) if met else (low, middle)
    return low


def under_load(trial: Trial) -> UnderLoad:
    """A trial's figures, and the highest rate it carries."""
    return UnderLoad(
        **load_end(trial).model_dump(),
        rate_per_s=trial.goal.rate_per_s,
        goodput_per_s=trial.report.summary().goodput_per_s,
        saturation_per_s=trial.saturation_per_s,
        usd_per_mtok=None,
    )


def load_end(trial: Trial) -> LoadEnd:
    """The same figures where every step takes one end of its interval."""
    summary = trial.report.summary()
    assert summary.ttft_s.p50 is not None
    assert summary.ttft_s.p99 is not None
    return LoadEnd(
        step_scale=trial.step_scale,
        within_slo=within(trial.report),
        is_met=trial.is_met,
        ttft_p50_s=summary.ttft_s.p50,
        ttft_p99_s=summary.ttft_s.p99,
        tpot_p50_s=summary.tpot_s.p50,
        tpot_p99_s=summary.tpot_s.p99,
        highest_rate_per_s=highest_rate(trial),
    )
