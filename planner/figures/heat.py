"""A value over two axes, with the region where it is feasible outlined."""

from plotly import graph_objects as go

from ..charts.values import HeatChart
from .look import CROSS, styled

# Perceptually even, and its order survives every colour blindness.
_SCALE = "Cividis"


def draw_heat(chart: HeatChart) -> go.Figure:
    """Cells with their words; those outside the feasible region are crossed out by a mark."""
    figure = styled(go.Figure(), chart.title, subtitle=chart.says)
    figure.add_trace(
        go.Heatmap(
            x=list(chart.xs),
            y=list(chart.ys),
            z=[list(row) for row in chart.values],
            customdata=[list(row) for row in chart.words] or None,
            hovertemplate="%{x}, %{y}<br>%{customdata}<extra></extra>" if chart.words else None,
            colorscale=_SCALE,
            colorbar={"title": {"text": chart.colour_title, "side": "right"}, "thickness": 14},
            xgap=1,
            ygap=1,
        )
    )
    outside = [
        (x, y)
        for y, row in zip(chart.ys, chart.feasible, strict=False)
        for x, ok in zip(chart.xs, row, strict=True)
        if not ok
    ]
    if outside:
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in outside],
                y=[y for _, y in outside],
                mode="markers",
                marker={"symbol": "x-thin", "size": 9, "line": {"color": CROSS, "width": 2}},
                name="outside of the limits",
                showlegend=True,
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(title={"text": chart.x.title}, type="category")
    figure.update_yaxes(title={"text": chart.y.title}, type="category")
    figure.update_layout(height=480)
    return figure
