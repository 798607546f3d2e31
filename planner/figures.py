"""Figures as offline plotly pages."""

from pathlib import Path

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from ..hardware_specs.documents import write_atomically
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


def write_page(figure: go.Figure, path: Path) -> None:
    """Write a figure as one page that loads nothing, whole or not at all."""
    write_atomically(path, figure.to_html(include_plotlyjs=True, config=_CONFIG, div_id="shardwise"))
