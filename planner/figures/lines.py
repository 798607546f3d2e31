"""Curves in panels."""

from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from ..charts.values import Chart, Curve, Numbers, Panel, Scale
from .look import BAND_OPACITY, DASHES, FAINT_OPACITY, GUIDE, colour, dash, styled, symbol

# Up to so many series are named at their ends; more have a legend.
_MOST_NAMED = 7
# A label at every point is read up to so many of them.
_MOST_LABELS = 240
_MODES = {
    "both": "lines+markers",
    "points": "markers",
    "line": "lines",
    "steps": "lines",
    "faint": "markers",
    "published": "markers",
    "guide": "lines",
}


def draw_chart(chart: Chart) -> go.Figure:
    """Panels beside each other, or under each other with one x axis."""
    n = len(chart.panels)
    if not n:
        return styled(go.Figure(), chart.title, subtitle="there is nothing to show")
    rows, columns = (n, 1) if chart.stacked else (1, n)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[panel.title for panel in chart.panels] if n > 1 else None,
        shared_xaxes=chart.stacked,
        horizontal_spacing=0.12 if n > 1 else 0.0,
        vertical_spacing=0.1,
    )
    styled(figure, chart.title, subtitle=chart.says)
    families = list(dict.fromkeys(curve.family for curve in chart.curves() if curve.style != "guide"))
    named = len(families) <= _MOST_NAMED and _are_short(families)
    listed: set[str] = set()
    for i, panel in enumerate(chart.panels):
        place = {"row": i + 1, "col": 1} if chart.stacked else {"row": 1, "col": i + 1}
        for curve in panel.curves:
            for trace in _traces(curve, families, ends=named, listed=listed):
                figure.add_trace(trace, **place)
        _scale(figure, panel, place, last=not chart.stacked or i == n - 1)
    if named and len(families) > 1 and any(curve.style == "published" for curve in chart.curves()):
        named = False  # a mark needs its legend
    figure.update_layout(
        showlegend=not named and len(families) > 1,
        height=max(420, 230 * n) if chart.stacked else 480,
        margin={"r": 150 if named and len(families) > 1 else 32},
    )
    return figure


def _are_short(names: list[str]) -> bool:
    return all(len(name) <= 26 for name in names)


def _scale(figure: go.Figure, panel: Panel, place: dict[str, int], *, last: bool) -> None:
    figure.update_xaxes(**_axis(panel.x, titled=last), **place)
    figure.update_yaxes(**_axis(panel.y, titled=True), **place)
    for note in panel.notes:
        figure.add_annotation(
            text=note, xref="x domain", yref="y domain", x=0, y=1, showarrow=False, xanchor="left", **place
        )


def _axis(scale: Scale, *, titled: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": scale.title if titled else ""}}
    if scale.log:
        made |= {"type": "log", "dtick": "D2" if not scale.ticks else None}
    if scale.ticks:
        made |= {"tickvals": [at for at, _ in scale.ticks], "ticktext": [text for _, text in scale.ticks]}
    if (scale.least is not None or scale.most is not None) and not scale.log:
        made |= {"range": [scale.least, scale.most]}
    return made


def _traces(curve: Curve, families: list[str], *, ends: bool, listed: set[str]) -> list[go.Scatter]:
    """A curve's points, and under them its interval."""
    if curve.style == "guide":
        return [_guide(curve)]
    i = families.index(curve.family)
    first = curve.family not in listed
    listed.add(curve.family)
    made = _points(curve, i, named=ends and len(families) > 1, showlegend=first)
    return [made] if curve.style == "points" else [*_band(curve, i), made]


def _guide(curve: Curve) -> go.Scatter:
    return go.Scatter(
        x=list(curve.x),
        y=list(curve.y),
        mode="lines+text" if curve.labels else "lines",
        text=list(curve.labels) or None,
        textposition="bottom right",
        line={"color": GUIDE, "width": 1, "dash": "dot"},
        name=curve.name,
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )


def _points(curve: Curve, i: int, *, named: bool, showlegend: bool) -> go.Scatter:
    published = curve.style == "published"
    text = _texts(curve, named=named and not published)
    mode = _MODES[curve.style] + ("+text" if any(text) else "")
    hover = (
        "%{customdata}<extra>%{fullData.name}</extra>"
        if curve.hover
        else "%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>"
    )
    return go.Scatter(
        x=list(curve.x),
        y=list(curve.y),
        name=curve.family if showlegend and not published else curve.name,
        legendgroup=curve.family,
        showlegend=showlegend or published,
        mode=mode,
        text=text if any(text) else None,
        textposition=["middle right" if named and k == len(text) - 1 else "top center" for k in range(len(text))],
        textfont={"size": 11},
        customdata=list(curve.hover) or None,
        hovertemplate=hover,
        line={
            "color": colour(i),
            "dash": dash(i) if curve.dash is None else DASHES[curve.dash % len(DASHES)],
            "width": 2,
            "shape": "hv" if curve.style == "steps" else "linear",
        },
        marker=_marker(curve, i),
        error_y=_bars(curve) if curve.style == "points" else None,
        cliponaxis=False,
        connectgaps=False,
    )


def _bars(curve: Curve) -> dict[str, Any] | None:
    """The interval of each point as a bar through it."""
    if not curve.low or not curve.high:
        return None

    def to(ends: Numbers) -> list[float]:
        return [
            abs((y if end is None else end) - (y or 0.0)) if y is not None else 0.0
            for y, end in zip(curve.y, ends, strict=True)
        ]

    return {
        "type": "data",
        "symmetric": False,
        "array": to(curve.high),
        "arrayminus": to(curve.low),
        "thickness": 0.6,
        "width": 0,
    }


def _marker(curve: Curve, i: int) -> dict[str, Any]:
    if curve.style == "published":
        return {"symbol": "star-open", "size": 12, "color": colour(i), "line": {"width": 2}}
    if curve.style == "faint":
        return {"symbol": "circle", "size": 4, "color": colour(i), "opacity": FAINT_OPACITY}
    return {"symbol": symbol(i), "size": 7, "color": colour(i)}


def _texts(curve: Curve, *, named: bool) -> list[str]:
    """Labels of points; the last one with a value also says whose it is where curves are named at their ends."""
    labels = list(curve.labels) if curve.labels and len(curve.x) <= _MOST_LABELS else [""] * len(curve.x)
    if named and labels:
        known = [k for k, y in enumerate(curve.y) if y is not None]
        if known:
            labels[known[-1]] = " ".join(filter(None, (labels[known[-1]], curve.name)))
    return labels


def _band(curve: Curve, i: int) -> list[go.Scatter]:
    """The interval as a band around a line."""
    known = [
        (x, low, high) for x, low, high in zip(curve.x, curve.low, curve.high, strict=False) if None not in (low, high)
    ]
    if not known:
        return []
    xs = [x for x, _, _ in known]
    outline = {
        "x": xs + xs[::-1],
        "y": [high for _, _, high in known] + [low for _, low, _ in reversed(known)],
    }
    return [
        go.Scatter(
            **outline,
            fill="toself",
            fillcolor=colour(i),
            opacity=BAND_OPACITY,
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            legendgroup=curve.family,
            showlegend=False,
            name=f"{curve.name}, 90 % interval",
        )
    ]
