"""Figures as offline plotly pages."""

import math
from collections.abc import Sequence
from pathlib import Path

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from ..hardware_specs.documents import write_atomically
from ..simulator.cost.calibrated import Fit
from ..simulator.cost.kernel_times import KernelFit
from ..validate.score import ScoredRow, source_of
from .result import PhasePlan, PlanResult

# The page must not offer to send anything anywhere.
_CONFIG = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""}
_COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)


def frontier_page(result: PlanResult) -> go.Figure:
    """Latency against chip-seconds a token for each phase, in the form of the paper's Figure 1.

    Decode on the left (latency per output token), prefill on the right (latency of the whole prompt batch): colour tells
    chip count and layout, the label is the batch.

    References
    ----------
    [Pope2022] Figure 1.
    """
    figure = make_subplots(cols=2, subplot_titles=("decode: one output token", "prefill: the prompts of a batch"))
    colours: dict[str, str] = {}
    for column, phase_name in ((1, "decode"), (2, "prefill")):
        phases = [getattr(plan, phase_name) for plan in (*result.frontier, *result.plans)]
        for name, points in _series(phases).items():
            colour = colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])
            figure.add_trace(_trace(name, points, colour, showlegend=not _has(figure, name)), row=1, col=column)
    figure.update_xaxes(title_text="latency (ms)", type="log")
    figure.update_yaxes(title_text="cost (chip-ms a token)", type="log")
    work = result.workload
    figure.update_layout(
        title=f"{result.model} on {result.on}: {work.input_tokens} tokens in, {work.output_tokens} out",
        template="plotly_white",
        legend={"title": "chips, layout"},
    )
    return figure


def _has(figure: go.Figure, name: str) -> bool:
    return any(trace.name == name for trace in figure.data)


def _series(phases: list[PhasePlan]) -> dict[str, list[PhasePlan]]:
    """Distinct phases by chip count and layout, by rising latency."""
    series: dict[str, dict[tuple[float, float], PhasePlan]] = {}
    for phase in phases:
        if phase.cost_chip_s_per_token is not None:
            name = f"{phase.n_chips} chips, {phase.layout}"
            series.setdefault(name, {})[(phase.step_s, phase.cost_chip_s_per_token)] = phase
    return {name: [points[key] for key in sorted(points)] for name, points in sorted(series.items())}


def _trace(name: str, points: list[PhasePlan], colour: str, *, showlegend: bool) -> go.Scatter:
    return go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=showlegend,
        mode="lines+markers+text",
        x=[1e3 * p.step_s for p in points],
        y=[1e3 * (p.cost_chip_s_per_token or 0.0) for p in points],
        text=[str(p.batch) for p in points],
        textposition="top center",
        marker={"color": colour, "size": 8},
        line={"color": colour, "width": 1},
        customdata=[f"mesh {p.mesh.x}x{p.mesh.y}x{p.mesh.z}, MFU {p.mfu:.2f}, weights {p.weights}" for p in points],
        hovertemplate="batch %{text}<br>%{x:.4g} ms<br>%{y:.4g} chip-ms a token<br>%{customdata}<extra>%{fullData.name}</extra>",
    )


def residual_page(fits: Sequence[Fit], kernels: Sequence[KernelFit]) -> go.Figure:
    """What fits leave over: predicted over measured of each row on the left, error and interval of kernels on the right."""
    figure = make_subplots(
        cols=2,
        subplot_titles=("whole phases: predicted / measured", "kernels: median error, half of the 90 % interval"),
    )
    for number, fit in enumerate(fits):
        trace = go.Scatter(
            x=[row.measured_s * 1e3 for row in fit.residuals],
            y=[row.predicted_s / row.measured_s for row in fit.residuals],
            text=[f"{row.id}, {row.source}" for row in fit.residuals],
            mode="markers",
            name=f"{fit.chip}, {fit.engine}",
            marker={"color": _COLOURS[number % len(_COLOURS)]},
            hovertemplate="%{text}<br>measured %{x:.4g} ms<br>predicted / measured %{y:.3f}",
        )
        figure.add_trace(trace, row=1, col=1)
    for number, made in enumerate(kernels):
        trace = go.Bar(
            x=[" ".join(filter(None, (family.variant, family.op, family.kv))) for family in made.families],
            y=[family.median_error for family in made.families],
            error_y={"array": [math.expm1(family.interval_log) for family in made.families], "thickness": 1},
            text=[
                f"{family.n_held_out} rows held out of {family.n_rows + family.n_held_out}" for family in made.families
            ],
            textposition="none",
            name=f"{made.chip}, {made.stack}",
            marker={"color": _COLOURS[(len(fits) + number) % len(_COLOURS)]},
            hovertemplate="%{x}<br>error %{y:.3f}<br>%{text}",
        )
        figure.add_trace(trace, row=1, col=2)
    figure.update_xaxes(title_text="measured (ms)", type="log", row=1, col=1)
    figure.update_yaxes(title_text="predicted / measured", type="log", row=1, col=1)
    figure.update_layout(title="What the fits leave over", template="plotly_white", legend={"title": "fit"})
    return figure


def scatter_page(scored: Sequence[ScoredRow]) -> go.Figure:
    """Predicted against measured with the 90 % interval of each prediction: times on the left, rates on the right.

    Colour tells the source; a row whose interval covers the diagonal is inside it.
    """
    figure = make_subplots(cols=2, subplot_titles=("times (s)", "rates (a second)"))
    sources: dict[str, dict[int, list[ScoredRow]]] = {}
    for row in scored:
        if row.value is not None and row.prediction is not None and row.target is not None:
            column = 2 if row.target.is_rate else 1
            sources.setdefault(source_of(row.row), {}).setdefault(column, []).append(row)
    for number, (source, columns) in enumerate(sorted(sources.items())):
        for column, rows in columns.items():
            trace = _scatter(source, rows, _COLOURS[number % len(_COLOURS)], showlegend=column == min(columns))
            figure.add_trace(trace, row=1, col=column)
    for column in sorted({column for columns in sources.values() for column in columns}):
        ends = _ends([row for columns in sources.values() for row in columns.get(column, ())])
        line = {"color": "#888888", "width": 1, "dash": "dot"}
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", line=line, name="measured", showlegend=False, hoverinfo="skip"),
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text="measured", type="log")
    figure.update_yaxes(title_text="predicted, low to high", type="log")
    figure.update_layout(title="Predicted against measured", template="plotly_white", legend={"title": "source"})
    return figure


def _si(row: ScoredRow, value: float) -> float:
    return value if row.target is None else value * row.target.factor


def _ends(rows: Sequence[ScoredRow]) -> list[float]:
    measured = [_si(row, row.value) for row in rows if row.value is not None]
    return [min(measured), max(measured)]


def _scatter(source: str, rows: Sequence[ScoredRow], colour: str, *, showlegend: bool) -> go.Scatter:
    points = [(row, row.prediction, row.value) for row in rows if row.prediction is not None and row.value is not None]
    names = ("model", "hardware", "tp", "batch", "concurrency", "metric")
    return go.Scatter(
        name=source,
        legendgroup=source,
        showlegend=showlegend,
        mode="markers",
        x=[_si(row, value) for row, _, value in points],
        y=[_si(row, made.predicted) for row, made, _ in points],
        error_y={
            "array": [_si(row, (made.high or made.predicted) - made.predicted) for row, made, _ in points],
            "arrayminus": [_si(row, made.predicted - (made.low or made.predicted)) for row, made, _ in points],
            "thickness": 0.5,
            "width": 0,
        },
        marker={"color": colour, "size": 5, "opacity": 0.6},
        text=[", ".join(f"{name} {row.row[name]}" for name in names if row.row.get(name)) for row, _, _ in points],
        hovertemplate="%{text}<br>measured %{x:.4g}<br>predicted %{y:.4g}<extra>%{fullData.name}</extra>",
    )


def write_page(figure: go.Figure, path: Path) -> None:
    """Write a figure as one page that loads nothing, whole or not at all."""
    write_atomically(path, figure.to_html(include_plotlyjs=True, config=_CONFIG, div_id="shardwise"))
