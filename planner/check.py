"""A measured run of a plan beside what is predicted of the very traffic that was sent, and what to calibrate where they part."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..hardware_specs.errors import SpecError
from ..hardware_specs.names import name_key
from ..models.catalogue import get_model
from ..simulator.report import QUANTILES, Report
from ..simulator.workload.lengths import Empirical, Fixed, Lengths, LogNormal
from ..simulator.workload.traces import read_measured
from ..validate.load_results import RATES, Figure, LoadResults
from .checked import CheckedFigure, CheckedRun, advice
from .export.launch import planned_sequences
from .result import PhasePlan, PlanResult
from .serving import simulate
from .tool_figures import value_of

# Draws of arrivals and lengths that nobody recorded.
_SEEDS = 5
# A percentile is judged where so many requests lie beyond it.
_BEYOND = 10
# Lengths this part away from the plan's are said.
_LENGTHS_APART = 0.05
# Lengths that vary less, standard deviation over mean, are taken as all alike.
_ALIKE_LENGTHS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predicted:
    """Runs at the plan's step times, and at the low and the high end of its interval."""

    runs: list[Report]
    low: list[Report]
    high: list[Report] | None


def check_results(
    result: PlanResult,
    results: LoadResults,
    path: Path,
    *,
    rank: int = 1,
    rate_per_s: float | None = None,
    concurrency: int | None = None,
    scheduler: str | None = None,
    max_sequences: int | None = None,
    token_budget: int | None = None,
) -> CheckedRun:
    """Predict what a load generator measured, and lay both side by side.

    The plan is simulated under the traffic that was sent: the very requests where the file has them and they did not wait for
    each other, else as many of the same lengths at the same rate or concurrency. The interval is the plan's own on every step,
    and what is drawn is drawn anew a few times.

    Parameters
    ----------
    path : the file, which is replayed where it has every request
    rate_per_s, concurrency : traffic, where the file does not say; it is believed over the file
    scheduler : of the simulation; chunked, or disaggregated where prefill and decode have slices of their own
    max_sequences, token_budget : as the engine was started, where other than `export` writes them

    Raises
    ------
    SpecError : no such plan, or traffic that nobody knows
    """
    plan = result.of_rank(rank)
    asked, said = _traffic(results, path, rate_per_s, concurrency)
    asked |= {
        "rank": rank,
        "scheduler": scheduler or ("chunked" if plan.shared else "disaggregated"),
        "max_sequences": max_sequences or planned_sequences(plan, plan.decode),
        "token_budget": token_budget,
    }
    is_open = asked.get("rate_per_s") is not None and math.isfinite(asked["rate_per_s"])
    is_drawn = "trace" not in asked and (is_open or not isinstance(asked["lengths"], Fixed))
    predicted = _predict(result, asked, (plan.prefill, plan.decode), n_seeds=_SEEDS if is_drawn else 1)
    paced = is_open or "trace" in asked
    figures = tuple(_figure(figure, results, predicted, paced=paced) for figure in results.figures)
    return CheckedRun(
        tool=results.tool,
        version=results.version,
        model=results.model,
        requests=results.n_requests,
        traffic=said,
        figures=figures,
        advice=advice(figures, (plan.prefill, plan.decode), can_replay=results.can_replay),
        notes=_notes(result, results, figures),
    )


def _traffic(
    results: LoadResults, path: Path, rate_per_s: float | None, concurrency: int | None
) -> tuple[dict[str, Any], str]:
    """Arguments of `simulate` for the traffic that was sent, and the same in words."""
    if rate_per_s is not None and concurrency is not None:
        raise SpecError("--rate is open traffic and --concurrency closed traffic; give one of them")
    given = rate_per_s is not None or concurrency is not None
    if not given:
        rate_per_s, concurrency = results.rate_per_s, results.concurrency
    if results.can_replay and not given and concurrency is None:
        return {"trace": path, "skip_bad_rows": True}, f"the {results.n_requests} requests as they were sent"
    if rate_per_s is None and concurrency is None:
        raise SpecError(f"{path} does not say what traffic was sent; say it with --rate or --concurrency")
    if results.inputs.mean is None or results.outputs.mean is None:
        raise SpecError(f"{path} does not say how long the requests were; measure with lengths, or save the requests")
    n_in, n_out = max(round(results.inputs.mean), 1), max(round(results.outputs.mean), 1)
    asked: dict[str, Any] = {"lengths": _lengths(n_in, n_out, results, path), "n_requests": results.n_requests}
    sizes = f"{results.n_requests} requests of {n_in} tokens in and {n_out} out" + (
        " on average" if varies(results) else ""
    )
    if concurrency is not None:
        return asked | {"concurrency": concurrency}, f"{sizes} by {concurrency} users"
    assert rate_per_s is not None
    how = {"rate_per_s": rate_per_s, "arrivals": results.arrivals, "burstiness": results.burstiness}
    return asked | how, f"{sizes}, all at once" if math.isinf(rate_per_s) else f"{sizes} at {rate_per_s:.4g} requests/s"


def varies(results: LoadResults) -> bool:
    """Whether the file says that lengths vary."""
    return any(cv is not None and cv > _ALIKE_LENGTHS for cv in (results.inputs.cv, results.outputs.cv))


def _lengths(n_in: int, n_out: int, results: LoadResults, path: Path) -> Lengths:
    """Lengths drawn from the requests where the file has them, else as alike or as varied as it says, lognormal."""
    run = read_measured(path, skip_bad_rows=True) if results.can_replay else None
    if run is not None:
        return Empirical(tuple(zip(run.input_tokens.tolist(), run.output_tokens.tolist(), strict=True)))
    if not varies(results):
        return Fixed(input_tokens=n_in, output_tokens=n_out)
    spread = {"input_cv": results.inputs.cv or 0.0, "output_cv": results.outputs.cv or 0.0}
    return LogNormal(input_mean=n_in, output_mean=n_out, **spread)


def _predict(result: PlanResult, asked: dict[str, Any], phases: tuple[PhasePlan, ...], *, n_seeds: int) -> _Predicted:
    """The traffic under the plan, as it is priced and with every step at the ends of its interval."""
    low, high = step_scales(phases)

    def runs(scale: float) -> list[Report]:
        made = [simulate(result, **asked, step_scale=scale, seed=seed) for seed in range(n_seeds)]
        if not all(report.kept.any() for report in made):
            raise SpecError("the plan answers none of the requests that were sent; is it the plan that was measured?")
        return made

    middle = runs(1.0)
    return _Predicted(
        runs=middle,
        low=middle if low == 1.0 else runs(low),
        high=None if high is None else middle if high == 1.0 else runs(high),
    )


def step_scales(phases: tuple[PhasePlan, ...]) -> tuple[float, float | None]:
    """Factors on every step time at the ends of the plan's interval: the wider of its phases'; no upper one for a bound."""
    priced = [phase for phase in phases if phase.latency_s]
    low = min((phase.latency_low_s / phase.latency_s for phase in priced), default=1.0)
    highs = [phase.latency_high_s for phase in priced]
    if any(value is None for value in highs):
        return low, None
    pairs = zip(highs, priced, strict=True)
    return low, max((value / phase.latency_s for value, phase in pairs if value is not None), default=1.0)


def _figure(figure: Figure, results: LoadResults, predicted: _Predicted, *, paced: bool) -> CheckedFigure:
    definition = figure.definition
    ends = [value_of(report, definition, figure.statistic) for report in predicted.low]
    if predicted.high is not None:
        ends += [value_of(report, definition, figure.statistic) for report in predicted.high]
    middle = [value_of(report, definition, figure.statistic) for report in predicted.runs]
    # what more time makes smaller, a rate, has no lower end where times have no upper one
    is_rate = definition.quantity in RATES
    open_end = predicted.high is None
    return CheckedFigure(
        name=definition.quantity,
        statistic=figure.statistic,
        word=definition.word,
        definition=definition.formula,
        measured=figure.value,
        predicted=float(np.mean(middle)),
        low=0.0 if is_rate and open_end else min(*ends, *middle),
        high=None if open_end and not is_rate else max(*ends, *middle),
        judged=_is_judged(figure, results) and not (is_rate and paced),
    )


def _is_judged(figure: Figure, results: LoadResults) -> bool:
    """Means and medians are; further out only with requests enough, whose lengths are known one by one."""
    share = QUANTILES.get(figure.statistic, 0.5)
    known = results.can_replay or not varies(results)
    return share <= 0.5 or (known and (1.0 - share) * results.n_requests >= _BEYOND)


def _notes(result: PlanResult, results: LoadResults, figures: tuple[CheckedFigure, ...]) -> tuple[str, ...]:
    """What makes the comparison less than like with like."""
    notes = []
    if results.n_failed:
        notes.append(f"{results.n_failed} requests failed; figures are of the {results.n_requests} that were answered")
    work = result.workload
    for name, planned, sent in (
        ("input", work.input_tokens, results.inputs.mean),
        ("output", work.output_tokens, results.outputs.mean),
    ):
        if sent is not None and abs(sent / planned - 1.0) > _LENGTHS_APART:
            notes.append(
                f"{name} tokens: {sent:.4g} were measured, the plan is for {planned}; what was measured is predicted"
            )
    if results.model is not None and _other_model(result.model, results.model):
        notes.append(f"{results.model} was measured, the plan is for {result.model}")
    left = [figure for figure in figures if not figure.judged]
    if left:
        notes.append(
            f"{len(left)} figures are shown and not judged: rates that the traffic sets, percentiles of too few requests"
        )
    return tuple(notes)


def _other_model(planned: str, measured: str) -> bool:
    """Whether a measured model's name is another model's of the catalogue."""
    name = measured.rsplit("/", 1)[-1]
    try:
        return get_model(name).name != get_model(planned).name
    except SpecError:
        return name_key(name) != name_key(planned)
