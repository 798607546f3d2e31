"""Bars with their parts: waterfalls, memory, sensitivities."""

from plotly import graph_objects as go

from ..charts.values import BarChart
from .look import GUIDE, colour, styled

# Room for one bar.
_BAR_PX = 30


def draw_bars(chart: BarChart) -> go.Figure:
    """Lying bars from the top down, with what each part is."""
    figure = styled(go.Figure(), chart.title, subtitle=chart.says)
    bars = list(chart.bars)
    ends = [start or 0.0 for start in chart.base] or [0.0] * len(bars)
    for i, part in enumerate(chart.parts):
        base = [end or 0.0 for end in (chart.base if chart.overlay else ends)]
        ends = [start + (value or 0.0) for start, value in zip(base, part.values, strict=True)]
        figure.add_trace(
            go.Bar(
                name=part.name,
                orientation="h",
                y=bars,
                x=list(part.values),
                base=base,
                marker={"color": colour(i)},
                customdata=list(part.hover) or None,
                hovertemplate="%{customdata}<extra>%{fullData.name}</extra>" if part.hover else None,
            )
        )
    if chart.labels:
        figure.add_trace(_labels(bars, ends, chart.labels))
    figure.update_layout(
        barmode="overlay",
        height=max(320, 150 + _BAR_PX * len(bars)),
        showlegend=len(chart.parts) > 1,
        margin={"r": 90},
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(title={"text": chart.value.title}, type="log" if chart.value.log else "linear")
    if chart.limit is not None:
        at, what = chart.limit
        figure.add_vline(x=at, line={"color": GUIDE, "dash": "dot"}, annotation={"text": what, "font": {"size": 11}})
    return figure


def _labels(bars: list[str], ends: list[float], labels: tuple[str, ...]) -> go.Scatter:
    """Words behind the end of each bar."""
    return go.Scatter(
        x=ends,
        y=bars,
        text=[f" {label}" for label in labels],
        mode="text",
        textposition="middle right",
        textfont={"size": 11},
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
    )
