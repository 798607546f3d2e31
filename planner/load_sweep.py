"""A plan under one rate of requests after the other, several seeds each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.errors import SpecError
from ..simulator.report import Report, SeedInterval, t_interval
from .result import PlanResult
from .serving import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRun:
    """What one rate came to over its seeds; times of the requests of all seeds together, (n,) seconds.

    `tpot_s` is NaN for answers of one token.
    """

    rate_per_s: float
    goodput_per_s: SeedInterval
    requests_per_s: SeedInterval
    within_slo: SeedInterval
    ttft_p99_s: SeedInterval
    tpot_p99_s: SeedInterval
    usd_per_mtok: float | None
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]


def sweep_rates(
    result: PlanResult,
    rates_per_s: Sequence[float],
    *,
    n_seeds: int = 3,
    n_requests: int = 500,
    advance: Callable[[int], None] = lambda n: None,
    **asked: Any,
) -> tuple[RateRun, ...]:
    """Simulate a plan at every rate, with as many seeds each; the same seeds at every rate.

    Parameters
    ----------
    asked : further arguments of `simulate`, its limits among them
    advance : called after each run

    Raises
    ------
    SpecError : no seeds, or what `simulate` refuses
    """
    if n_seeds < 1:
        raise SpecError(f"seeds {n_seeds} must be at least 1")
    runs = []
    for rate in rates_per_s:
        reports = []
        for seed in range(n_seeds):
            reports.append(simulate(result, rate_per_s=rate, n_requests=n_requests, seed=seed, **asked))
            advance(1)
        runs.append(_run(rate, reports))
    return tuple(runs)


def _run(rate: float, reports: Sequence[Report]) -> RateRun:
    summaries = [report.summary() for report in reports]
    known = [s.usd_per_mtok for s in summaries if s.usd_per_mtok is not None]

    def over(values: Sequence[float]) -> SeedInterval:
        return t_interval(list(values))

    def p99(times: Callable[[Report], NDArray[np.float64]]) -> SeedInterval:
        found = [np.nanquantile(times(r), 0.99) if np.isfinite(times(r)).any() else np.nan for r in reports]
        return over([float(value) for value in found])

    return RateRun(
        rate_per_s=rate,
        goodput_per_s=over([s.goodput_per_s for s in summaries]),
        requests_per_s=over([s.requests_per_s for s in summaries]),
        within_slo=over([float(r.meets_slo.mean()) if len(r.meets_slo) else 0.0 for r in reports]),
        ttft_p99_s=p99(lambda r: r.ttft_s),
        tpot_p99_s=p99(lambda r: r.tpot_s),
        usd_per_mtok=sum(known) / len(known) if known else None,
        ttft_s=np.concatenate([r.ttft_s for r in reports]),
        tpot_s=np.concatenate([r.tpot_s for r in reports]),
    )
