"""A measured case under load: the serving simulator answers."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.catalogue import get_model
from ..models.description import Model
from ..simulator.cost.engines import get_engine
from ..simulator.engine.deployment import Deployment, EngineOptions, Pool
from ..simulator.engine.policies import get_scheduler
from ..simulator.report import QUANTILES, Report
from ..simulator.run import simulate
from ..simulator.workload.arrival import Traffic
from ..simulator.workload.gaps import Gamma
from ..simulator.workload.lengths import Fixed, LogNormal, UniformRatio
from ..simulator.workload.synthetic import ClosedLoop, SyntheticTraffic
from ..validate.loads import PhaseSeconds, scaled_rates, steady
from ..validate.measured_case import MeasuredCase
from ..validate.metrics import Quantities, Statistic
from .deploy import ServingOptions, phase_run, replica_spec
from .result import PhasePlan, WorkloadShape

# Requests that a load generator sends: ten a user (InferenceX); at a rate five hundred (TensorRT-LLM's own tables), and no
# fewer than come in ten seconds, or there would be no more than the beginning of the run.
_REQUESTS_A_USER = 10
_LEAST_AT_A_RATE = 500
_LEAST_S_AT_A_RATE = 10.0
# A run of many users is cut off here: by then every one of them has sent several.
_MOST_REQUESTS = 8192
# A benchmark over a data set goes on for minutes: so many times what a request takes, and the part of the arrivals that is
# counted, between filling and emptying.
_LIVES = 6.0
_MOST_OF_A_LONG_RUN = 16384
_COUNTED = (0.4, 0.9)
# Load generators in a closed loop draw each length between a part of the nominal one and all of it (InferenceX from 0.8 on) or
# send requests that are all alike, which then bunch; a table does not say which, so something between is taken.
_SHORTEST_RATIO = 0.95
# Half of a 90 % interval of a normal variable, in standard deviations.
_Z_90 = 1.645
_STATISTICS: tuple[Statistic, ...] = ("p50", "p90", "p99")


def under_load(
    case: MeasuredCase, prefill: PhasePlan, decode: PhasePlan, n_replicas: int
) -> Callable[[PhaseSeconds], Quantities]:
    """What a case is answered by: a simulation with its step times scaled to the seconds that are asked about.

    One factor scales prefill and decode, the larger of the two where they differ: errors of one replica are shared.
    """
    shape = WorkloadShape(input_tokens=case.input_tokens, output_tokens=case.output_tokens)

    def run_of(scale: float, traffic: Traffic | ClosedLoop) -> Report:
        scheduler = get_scheduler("chunked" if get_engine(decode.engine).mixes else "vllm")
        options = ServingOptions(engine=EngineOptions(scheduler=scheduler, prefix_caching=False), step_scale=scale)
        spec = replica_spec(prefill, decode, get_model(case.model), shape, options)
        return simulate(Deployment(pools=(Pool(replica=spec, n_replicas=n_replicas),), options=options.engine), traffic)

    @cache
    def traffic() -> Traffic | ClosedLoop:
        short = traffic_of(case)
        if not isinstance(short, SyntheticTraffic) or not _is_long(case):
            return short
        wanted = round(_LIVES * (case.rate_per_s or 0.0) * float(np.nanmean(run_of(1.0, short).e2e_s)))
        return replace(short, n_requests=min(max(wanted, short.n_requests), _MOST_OF_A_LONG_RUN))

    @cache
    def run(scale: float) -> Report:
        return run_of(scale, traffic())

    def answer(seconds: PhaseSeconds) -> Quantities:
        ratios = (seconds.prefill_s / prefill.latency_s, seconds.step_s / decode.step_s)
        scale = max(ratios, key=lambda ratio: abs(np.log(ratio)))
        report = run(scale)
        found = quantities(report, case.rate_per_s, counted=_COUNTED if _is_long(case) else (0.0, 1.0))
        # the ends of the interval also hold the chance of which requests came
        n = max(int(report.kept.sum()), 1)
        if case.load == "closed loop" and scale > 1.0:
            n_users = -(-(case.n_requests or 1) // n_replicas)
            found = _no_sooner(found, ttft_s=n_users * seconds.prefill_s / prefill.batch)
        if _is_long(case) and scale > 1.0:
            full = full_engine(decode, prefill, get_model(case.model), shape, scale)
            if (case.rate_per_s or 0.0) >= n_replicas * (full.requests_per_s or math.inf):
                found = _no_sooner(found, ttft_s=full.e2e_s, tpot_s=full.tpot_s, e2e_s=full.e2e_s)
        return scaled_rates(found, 1.0 - float(np.sign(np.log(scale))) * _Z_90 / math.sqrt(n))

    return answer


def full_engine(
    decode: PhasePlan, prefill: PhasePlan, model: Model, shape: WorkloadShape, scale: float = 1.0
) -> Quantities:
    """One replica that is kept full with the plan's batch, its times multiplied by `scale`."""
    seconds = PhaseSeconds(
        prefill_s=prefill.latency_s / prefill.batch * scale,
        step_s=decode.step_s * scale,
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
    )
    mixed_s = None
    if get_engine(decode.engine).mixes:
        mixed_s = phase_run(decode, model, shape).mixed_s(decode.batch, decode.n_microbatches) * scale
    return steady(seconds, n_sequences=decode.batch, mixed_s=mixed_s)


def _no_sooner(found: Quantities, **seconds: float | None) -> Quantities:
    """The slow end where requests may wait longer than those simulated: no time below these, at any percentile.

    Users of a closed loop may come all at once, again and again, and wait for each other's prompts; a rate above what slower
    passes carry fills the engine for good.
    """

    def raised(of: Quantities) -> Quantities:
        larger: dict[str, Any] = {
            name: max(value, least)
            for name, least in seconds.items()
            if least is not None and (value := getattr(of, name)) is not None
        }
        return replace(of, **larger)

    return replace(raised(found), percentiles={name: raised(of) for name, of in found.percentiles.items()})


def _is_long(case: MeasuredCase) -> bool:
    """Whether the benchmark ran over a data set until it was steady."""
    return case.rate_per_s is not None and case.input_cv > 0


def traffic_of(case: MeasuredCase) -> Traffic | ClosedLoop:
    """The requests that the load generator of a case sends."""
    if case.rate_per_s is not None:
        lengths = _lengths(case)
        n_requests = min(max(round(_LEAST_S_AT_A_RATE * case.rate_per_s), _LEAST_AT_A_RATE), _MOST_REQUESTS)
        return SyntheticTraffic(process=Gamma(rate_per_s=case.rate_per_s), lengths=lengths, n_requests=n_requests)
    n_users = case.n_requests or 1
    return ClosedLoop(
        n_users=n_users,
        lengths=UniformRatio(input_tokens=case.input_tokens, output_tokens=case.output_tokens, ratio=_SHORTEST_RATIO),
        n_requests=max(min(_REQUESTS_A_USER * n_users, _MOST_REQUESTS), 2 * n_users),
    )


def _lengths(case: MeasuredCase) -> Fixed | LogNormal:
    """Every request alike where numbers say how long they are, else spread as the data set's."""
    if not (case.input_cv or case.output_cv):
        return Fixed(input_tokens=case.input_tokens, output_tokens=case.output_tokens)
    return LogNormal(
        input_mean=case.input_tokens,
        output_mean=case.output_tokens,
        input_cv=case.input_cv,
        output_cv=case.output_cv,
    )


def quantities(report: Report, offered_per_s: float | None, *, counted: tuple[float, float] = (0.0, 1.0)) -> Quantities:
    """What a run can be measured by.

    Rates of traffic that comes at `offered_per_s` are those of the middle of the run, where it neither fills nor empties; no
    more can be answered than comes. Those of a closed loop are over all of it, as load generators count them.

    Parameters
    ----------
    counted : first and last part of the requests, in order of arrival, whose times count
    """
    kept, in_all = report.kept, float(report.kept.sum()) / report.duration_s
    rate = in_all if offered_per_s is None else min(report.answer_rate_per_s, offered_per_s)
    n_in, n_out = (float(report.columns[name][kept].mean()) for name in ("prompt_tokens", "output_tokens"))
    rates: dict[str, Any] = {
        "requests_per_s": rate,
        "output_tokens_per_s": rate * n_out,
        "all_tokens_per_s": rate * (n_in + n_out),
        "input_tokens_per_s": rate * n_in,
    }
    first, last = (round(part * len(report.e2e_s)) for part in counted)
    times = {
        name: values[first:last]
        for name, values in {
            "ttft_s": report.ttft_s,
            "tpot_s": report.tpot_s,
            "e2e_s": report.e2e_s,
            "generate_s": report.e2e_s - report.ttft_s,
        }.items()
    }

    def at(reduce: Callable[[NDArray[np.float64]], Any]) -> dict[str, Any]:
        return {name: None if np.isnan(values).all() else float(reduce(values)) for name, values in times.items()}

    percentiles: dict[Statistic, Quantities] = {
        name: Quantities(**at(partial(np.nanquantile, q=QUANTILES[name])), **rates) for name in _STATISTICS
    }
    return Quantities(**at(np.nanmean), **rates, percentiles=percentiles)
