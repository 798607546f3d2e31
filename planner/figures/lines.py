"""Curves in panels."""

from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from ..charts.values import Chart, Curve, Numbers, Panel, Scale
from .look import BAND_OPACITY, DASHES, FAINT_OPACITY, GUIDE, colour, dash, styled, symbol

# Up to so many series are named at their ends; more have a legend.
_MOST_NAMED = 7
_LONGEST_NAME = 26
# A label at every point is read up to so many of them.
_MOST_LABELS = 240
_PUBLISHED = "published"
_MODES = {
    "both": "lines+markers",
    "points": "markers",
    "line": "lines",
    "steps": "lines",
    "faint": "markers",
    "published": "markers",
    "guide": "lines",
}


def draw_chart(chart: Chart, *, narrow: bool = False) -> go.Figure:
    """Panels beside each other, or under each other with one x axis; under each other wherever the page is `narrow`."""
    n = len(chart.panels)
    if not n:
        return styled(go.Figure(), chart.title, subtitle="there is nothing to show")
    below = chart.stacked or narrow
    rows, columns = (n, 1) if below else (1, n)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[panel.title for panel in chart.panels] if n > 1 else None,
        shared_xaxes=chart.stacked,
        horizontal_spacing=0.12 if n > 1 else 0.0,
        vertical_spacing=0.1 if chart.stacked else 0.2 / n,
    )
    styled(figure, chart.title, subtitle=chart.says)
    families = list(dict.fromkeys(curve.family for curve in chart.curves() if curve.style != "guide"))
    named = _are_named(chart, families)
    listed: set[str] = set()
    for i, panel in enumerate(chart.panels):
        place = {"row": i + 1, "col": 1} if below else {"row": 1, "col": i + 1}
        for curve in panel.curves:
            for trace in _traces(curve, families, named=named, listed=listed):
                figure.add_trace(trace, **place)
        _scale(figure, panel, place, last=not chart.stacked or i == n - 1)
    listed_below = not named and _most_in_one_panel(chart) > 1
    figure.update_layout(
        showlegend=listed_below,
        height=_height(chart, n_listed=len(families) * listed_below, narrow=narrow),
        margin={"r": (90 if narrow else 150) if named else 32, "b": 96 if listed_below else 60},
    )
    return figure


def _height(chart: Chart, *, n_listed: int, narrow: bool) -> int:
    """Pixels: room for every panel, and for the entries of the legend below them."""
    n = len(chart.panels)
    if chart.stacked:
        return max(420, 230 * n)
    return 340 * n + 30 * n_listed if narrow else 440 + 20 * min(n_listed, 8)


_LINES = ("both", "line", "steps", "guide")


def _are_named(chart: Chart, families: list[str]) -> bool:
    """Whether curves are named at their ends: few lines with short names, none of them a cloud or a mark."""
    lines = all(curve.style in _LINES for curve in chart.curves())
    short = all(len(name) <= _LONGEST_NAME for name in families)
    return lines and short and _most_in_one_panel(chart) > 1 and len(families) <= _MOST_NAMED


def _most_in_one_panel(chart: Chart) -> int:
    return max(len({curve.family for curve in panel.curves if curve.style != "guide"}) for panel in chart.panels)


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
        made |= {"type": "log"}
    if scale.ticks:
        made |= {"tickvals": [at for at, _ in scale.ticks], "ticktext": [text for _, text in scale.ticks]}
    if (scale.least is not None or scale.most is not None) and not scale.log:
        made |= {"range": [scale.least, scale.most]}
    return made


def _traces(curve: Curve, families: list[str], *, named: bool, listed: set[str]) -> list[go.Scatter]:
    """A curve's points, and under them its interval."""
    if curve.style == "guide":
        return [_guide(curve)]
    i = families.index(curve.family)
    entry = _PUBLISHED if curve.style == "published" else curve.family
    first = entry not in listed
    listed.add(entry)
    made = _points(curve, i, named=named, showlegend=first)
    return [made] if curve.style == "points" else [*_band(curve, i), made]


def _guide(curve: Curve) -> go.Scatter:
    return go.Scatter(
        x=list(curve.x),
        y=list(curve.y),
        mode="lines+text" if curve.labels else "lines",
        text=list(curve.labels) or None,
        textposition="top left",
        line={"color": GUIDE, "width": 1, "dash": "dot"},
        name=curve.name,
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )


def _points(curve: Curve, i: int, *, named: bool, showlegend: bool) -> go.Scatter:
    published = curve.style == "published"
    text = _texts(curve, named=named)
    mode = _MODES[curve.style] + ("+text" if any(text) else "")
    hover = (
        "%{customdata}<extra>%{fullData.name}</extra>"
        if curve.hover
        else "%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>"
    )
    return go.Scatter(
        x=list(curve.x),
        y=list(curve.y),
        name=(_PUBLISHED if published else curve.family) if showlegend else curve.name,
        legendgroup=_PUBLISHED if published else curve.family,
        showlegend=showlegend,
        mode=mode,
        text=text if any(text) else None,
        textposition=_positions(curve, len(text), named=named),
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


# Labels of a cloud stand around their points in turn, so that neighbours' do not cover each other.
_AROUND = ("top center", "bottom right", "middle left", "bottom center", "middle right", "top left")


def _positions(curve: Curve, n: int, *, named: bool) -> list[str]:
    if curve.style == "points":
        return [_AROUND[k % len(_AROUND)] for k in range(n)]
    return ["middle right" if named and k == n - 1 else "top center" for k in range(n)]


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
        return {"symbol": "circle", "size": 6, "color": colour(i), "opacity": FAINT_OPACITY}
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
