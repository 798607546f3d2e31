"""A measured case under load: the serving simulator answers."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.catalogue import get_model
from ..simulator.engine.deployment import Deployment, Pool
from ..simulator.report import QUANTILES, Report
from ..simulator.run import simulate
from ..simulator.workload.arrival import Traffic
from ..simulator.workload.gaps import Gamma
from ..simulator.workload.lengths import Fixed, UniformRatio
from ..simulator.workload.synthetic import ClosedLoop, SyntheticTraffic
from ..validate.loads import PhaseSeconds
from ..validate.measured_case import MeasuredCase
from ..validate.metrics import Quantities, Statistic
from .deploy import ServingOptions, replica_spec
from .result import PhasePlan, WorkloadShape

# Requests that a load generator sends: ten a user, at a rate five hundred (InferenceX; TensorRT-LLM's own tables).
_REQUESTS_A_USER = 10
_REQUESTS_AT_A_RATE = 500
# A run of many users is cut off here: by then every one of them has sent several.
_MOST_REQUESTS = 8192
# Load generators in a closed loop draw each length between this part of the nominal one and all of it (InferenceX).
_SHORTEST_RATIO = 0.8
_STATISTICS: tuple[Statistic, ...] = ("p50", "p90", "p99")


def under_load(
    case: MeasuredCase, prefill: PhasePlan, decode: PhasePlan, n_replicas: int
) -> Callable[[PhaseSeconds], Quantities]:
    """What a case is answered by: a simulation with its step times scaled to the seconds that are asked about.

    One factor scales prefill and decode, the larger of the two where they differ: errors of one replica are shared.
    """
    traffic = traffic_of(case)
    shape = WorkloadShape(input_tokens=case.input_tokens, output_tokens=case.output_tokens)

    @cache
    def run(scale: float) -> Report:
        spec = replica_spec(prefill, decode, get_model(case.model), shape, ServingOptions(step_scale=scale))
        return simulate(Deployment(pools=(Pool(replica=spec, n_replicas=n_replicas),)), traffic)

    def answer(seconds: PhaseSeconds) -> Quantities:
        ratios = (seconds.prefill_s / prefill.latency_s, seconds.step_s / decode.step_s)
        return quantities(run(max(ratios, key=lambda ratio: abs(np.log(ratio)))))

    return answer


def traffic_of(case: MeasuredCase) -> Traffic | ClosedLoop:
    """The requests that the load generator of a case sends."""
    if case.rate_per_s is not None:
        lengths = Fixed(input_tokens=case.input_tokens, output_tokens=case.output_tokens)
        return SyntheticTraffic(
            process=Gamma(rate_per_s=case.rate_per_s), lengths=lengths, n_requests=_REQUESTS_AT_A_RATE
        )
    n_users = case.n_requests or 1
    return ClosedLoop(
        n_users=n_users,
        lengths=UniformRatio(input_tokens=case.input_tokens, output_tokens=case.output_tokens, ratio=_SHORTEST_RATIO),
        n_requests=max(min(_REQUESTS_A_USER * n_users, _MOST_REQUESTS), 2 * n_users),
    )


def quantities(report: Report) -> Quantities:
    """What a run can be measured by."""
    kept, duration = report.kept, report.duration_s
    counts = [float(report.columns[name][kept].sum()) for name in ("prompt_tokens", "output_tokens")]
    rates: dict[str, Any] = {
        "requests_per_s": float(kept.sum()) / duration,
        "output_tokens_per_s": counts[1] / duration,
        "all_tokens_per_s": sum(counts) / duration,
        "input_tokens_per_s": counts[0] / duration,
    }
    times = {
        "ttft_s": report.ttft_s,
        "tpot_s": report.tpot_s,
        "e2e_s": report.e2e_s,
        "generate_s": report.e2e_s - report.ttft_s,
    }

    def at(reduce: Callable[[NDArray[np.float64]], Any]) -> dict[str, Any]:
        return {name: None if np.isnan(values).all() else float(reduce(values)) for name, values in times.items()}

    percentiles: dict[Statistic, Quantities] = {
        name: Quantities(**at(partial(np.nanquantile, q=QUANTILES[name])), **rates) for name in _STATISTICS
    }
    return Quantities(**at(np.nanmean), **rates, percentiles=percentiles)
