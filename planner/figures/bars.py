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
    for i, part in enumerate(chart.parts):
        last = i == len(chart.parts) - 1
        figure.add_trace(
            go.Bar(
                name=part.name,
                orientation="h",
                y=bars,
                x=list(part.values),
                base=list(chart.base) if chart.base and (i == 0 or chart.overlay) else None,
                marker={"color": colour(i)},
                customdata=list(part.hover) or None,
                hovertemplate="%{customdata}<extra>%{fullData.name}</extra>" if part.hover else None,
                text=list(chart.labels) if last and chart.labels else None,
                textposition="outside",
                cliponaxis=False,
            )
        )
    figure.update_layout(
        barmode="overlay" if chart.overlay else "stack",
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
