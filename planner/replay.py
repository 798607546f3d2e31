"""A measured run replayed: what was measured beside what is simulated, and the one factor that can be fitted to it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..hardware_specs.errors import SpecError
from ..simulator.report import QUANTILES, Report, tpot_s
from ..simulator.workload.traces import read_measured
from .result import PlanResult
from .serving import simulate

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
# Factors on step times among which the fit looks.
_LEAST_SCALE, _MOST_SCALE = 0.05, 20.0
_SCALE_TOLERANCE = 1e-3


class ComparedTime(BaseModel):
    """One percentile of one time, measured and simulated."""

    model_config = _STRICT
    name: str
    measured_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """Simulated / measured - 1."""
        return self.simulated_s / self.measured_s - 1.0


class ComparedRun(BaseModel):
    """A measured run beside its simulation.

    `ttft_rank_correlation` is Spearman's, over the requests.
    """

    model_config = _STRICT
    requests: int
    rows: tuple[ComparedTime, ...]
    ttft_rank_correlation: float
    e2e_rank_correlation: float


def compare(report: Report, trace: Path, *, skip_bad_rows: bool = False) -> ComparedRun | None:
    """Lay a simulation of a trace beside the times the trace carries; None where it carries none."""
    run = read_measured(trace, skip_bad_rows=skip_bad_rows)
    if run is None:
        return None
    from scipy.stats import spearmanr

    at = report.columns["index"][report.kept]
    pairs = {
        "TTFT": (run.ttft_s[at], report.ttft_s),
        "e2e": (run.e2e_s[at], report.e2e_s),
        "TPOT": (tpot_s(run.ttft_s, run.e2e_s, run.output_tokens)[at], report.tpot_s),
    }
    if len(at) < 2:
        raise SpecError(f"{trace}: {len(at)} of its requests were answered; there is nothing to compare")
    return ComparedRun(
        requests=len(at),
        rows=tuple(row for name, (measured, simulated) in pairs.items() for row in _rows(name, measured, simulated)),
        ttft_rank_correlation=float(spearmanr(*pairs["TTFT"]).statistic),
        e2e_rank_correlation=float(spearmanr(*pairs["e2e"]).statistic),
    )


def _rows(name: str, measured: NDArray[np.float64], simulated: NDArray[np.float64]) -> list[ComparedTime]:
    return [
        ComparedTime(
            name=f"{name} {point}",
            measured_s=float(np.nanquantile(measured, q)),
            simulated_s=float(np.nanquantile(simulated, q)),
        )
        for point, q in QUANTILES.items()
    ]


def decode_rate_per_s(decode_s: NDArray[np.float64], output_tokens: NDArray[np.int64]) -> float:
    """Output tokens after the first a sequence writes in a second, over all requests."""
    return float((output_tokens - 1).sum() / decode_s.sum())


def fit_step_scale(result: PlanResult, asked: dict[str, Any], *, seed: int) -> float:
    """The factor on every step time with which the simulated decode rate is the measured one.

    Parameters
    ----------
    asked : arguments of `simulate`, with a `trace` that carries measured times

    Raises
    ------
    SpecError : no such trace, or no factor in a sane range does it
    """
    trace = asked.get("trace")
    run = None if trace is None else read_measured(trace, skip_bad_rows=bool(asked.get("skip_bad_rows")))
    if run is None:
        raise SpecError(
            "--fit-steps needs a --trace that carries measured times: results of a load generator, or a run's log"
        )
    measured = decode_rate_per_s(run.e2e_s - run.ttft_s, run.output_tokens)

    def surplus(log_scale: float) -> float:
        report = simulate(result, **asked, step_scale=math.exp(log_scale), seed=seed)
        kept = report.kept
        rate = decode_rate_per_s(report.e2e_s - report.ttft_s, report.columns["output_tokens"][kept])
        return math.log(rate / measured)

    from scipy.optimize import brentq

    low, high = math.log(_LEAST_SCALE), math.log(_MOST_SCALE)
    if surplus(low) < 0.0 or surplus(high) > 0.0:
        raise SpecError(
            f"no factor between {_LEAST_SCALE} and {_MOST_SCALE} on the step times gives the measured {measured:.4g} tokens/s a "
            "sequence; is it the plan that was measured?"
        )
    return math.exp(float(brentq(surplus, low, high, xtol=_SCALE_TOLERANCE)))
