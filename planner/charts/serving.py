"""A plan under traffic: its state over time, what it answers at each rate, and which limits it keeps where."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.units import format_seconds
from ...simulator.report import Report, SeedInterval
from ..load_sweep import RateRun
from .values import Chart, Curve, HeatChart, Numbers, Panel, Scale

_MOST_SAMPLES = 1500
_LIMITS = 9
# Share of requests that must keep a limit for a cell to count as inside.
ATTAINMENT = 0.9


def timeline_chart(report: Report, title: str) -> Chart:
    """Batch, cache and queue over simulated time, and replicas where their number changes."""
    series = report.series
    step = max(1, -(-len(series.time_s) // _MOST_SAMPLES))
    times = tuple(series.time_s[::step])
    shown = [
        ("running", "requests in the batch", series.n_running),
        ("cache", "KV pages in use", series.used_pages),
        ("waiting", "requests that wait", series.n_waiting),
    ]
    if len(set(series.n_replicas)) > 1:
        shown.append(("replicas", "replicas that serve", series.n_replicas))
    panels = tuple(
        Panel(
            title=says,
            x=Scale(title="simulated time (s)"),
            y=Scale(title=name, least=0.0),
            curves=(Curve(name=name, style="steps", x=times, y=tuple(map(float, values[::step]))),),
        )
        for name, says, values in shown
    )
    return Chart(
        name="timeline",
        title=title,
        says="The state of all replicas together; samples are thinned in long runs",
        panels=panels,
        stacked=True,
    )


def goodput_chart(runs: Sequence[RateRun], title: str) -> Chart:
    """Requests answered within the limits against requests that come, with 90 % intervals over the seeds."""
    rates = tuple(run.rate_per_s for run in runs)
    ends = (0.0, max(rates))
    goodput = _interval_curve("goodput", rates, [run.goodput_per_s for run in runs])
    all_ = _interval_curve("answered", rates, [run.requests_per_s for run in runs])
    times = [
        Panel(
            title=f"{name}, 99th percentile",
            x=Scale(title="requests that come (1/s)"),
            y=Scale(title="time (s)", least=0.0),
            curves=(_interval_curve(name, rates, [getattr(run, f"{name.lower()}_p99_s") for run in runs]),),
        )
        for name in ("TTFT", "TPOT")
    ]
    return Chart(
        name="goodput",
        title=title,
        says="Bands are 90 % intervals over the seeds; on the dotted line every request that comes is answered in time",
        panels=(
            Panel(
                title="requests",
                x=Scale(title="requests that come (1/s)"),
                y=Scale(title="requests answered (1/s)", least=0.0),
                curves=(goodput, all_, Curve(name="all", style="guide", x=ends, y=ends)),
            ),
            *times,
        ),
    )


def _interval_curve(name: str, x: Numbers, found: Sequence[SeedInterval]) -> Curve:
    def each(end: str) -> Numbers:
        return tuple(None if np.isnan(getattr(one, end)) else max(getattr(one, end), 0.0) for one in found)

    return Curve(name=name, x=x, y=each("mean"), low=each("low"), high=each("high"))


def slo_map(runs: Sequence[RateRun], title: str, *, of: str = "ttft", tpot_s: float | None = None) -> HeatChart:
    """Share of requests that keep each limit at each rate; cells below `ATTAINMENT` lie outside.

    Parameters
    ----------
    of : the limit along y, ``ttft`` or ``tpot``
    tpot_s : a limit that must be kept besides
    """
    limits = _limits(runs, of)
    shares = [[_share(run, of, limit, tpot_s) for run in runs] for limit in limits]
    beside = "" if tpot_s is None or of == "tpot" else f", and TPOT within {format_seconds(tpot_s)}"
    return HeatChart(
        name=f"slo-{of}",
        title=title,
        says=f"Share of requests within each limit on {of.upper()}{beside}; crossed out where it is below {ATTAINMENT:g}",
        x=Scale(title="requests that come (1/s)"),
        y=Scale(title=f"limit on {of.upper()}"),
        xs=tuple(f"{run.rate_per_s:g}" for run in runs),
        ys=tuple(format_seconds(limit) for limit in limits),
        values=tuple(tuple(row) for row in shares),
        words=tuple(tuple(f"{share:.3f} of the requests" for share in row) for row in shares),
        feasible=tuple(tuple(share >= ATTAINMENT for share in row) for row in shares),
        colour_title="share of requests",
    )


def _limits(runs: Sequence[RateRun], of: str) -> list[float]:
    """Limits over the times that were met, evenly by their ratio."""
    times: NDArray[np.float64] = np.concatenate([getattr(run, f"{of}_s") for run in runs])
    known = times[np.isfinite(times) & (times > 0.0)]
    if not len(known):
        return []
    low, high = float(np.quantile(known, 0.01)), float(np.quantile(known, 0.99))
    return list(dict.fromkeys(float(f"{limit:.2g}") for limit in np.geomspace(low, max(high, low * 1.01), _LIMITS)))


def _share(run: RateRun, of: str, limit_s: float, tpot_s: float | None) -> float:
    times: NDArray[np.float64] = getattr(run, f"{of}_s")
    if not len(times):
        return 0.0
    kept = ~(times > limit_s)
    if tpot_s is not None:
        kept &= ~(run.tpot_s > tpot_s)
    return float(kept.mean())
