"""The one look of every figure: colours that colour-blind readers tell apart, axes with units, light and dark."""

from typing import Any

from plotly import graph_objects as go

# Okabe and Ito's palette without the yellow that paper swallows; all of them stand out on white and on near-black.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#7f7f7f")
# Colour comes round again with another mark and another dash, so that no two series look alike.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
DASHES = ("solid", "dash", "dot", "dashdot")
BAND_OPACITY = 0.18
FAINT_OPACITY = 0.5
# The page must not offer to send anything anywhere.
CONFIG: dict[str, Any] = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": "", "responsive": True}

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
_LIGHT = {"ink": "#1a1a1a", "grid": "#e3e3e3", "axis": "#8a8a8a", "paper": "#ffffff"}
_DARK = {"ink": "#e8e8e8", "grid": "#3a3f44", "axis": "#8f969c", "paper": "#16191d"}


def _axis(colours: dict[str, str]) -> dict[str, Any]:
    return {
        "gridcolor": colours["grid"],
        "linecolor": colours["axis"],
        "zerolinecolor": colours["axis"],
        "tickcolor": colours["axis"],
        "showline": True,
        "ticks": "outside",
        "automargin": True,
        "title": {"standoff": 10},
        "exponentformat": "SI",
    }


def _template(colours: dict[str, str]) -> go.layout.Template:
    layout = go.Layout(
        font={"family": _FONT, "size": 13, "color": colours["ink"]},
        title={
            "x": 0.0,
            "xref": "container",
            "pad": {"l": 12, "t": 8},
            "yanchor": "top",
            "y": 0.98,
            "font": {"size": 16},
        },
        paper_bgcolor=colours["paper"],
        plot_bgcolor=colours["paper"],
        colorway=list(COLOURS),
        xaxis=_axis(colours),
        yaxis=_axis(colours),
        legend={
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0.0,
            "x": 0.0,
            "bgcolor": "rgba(0,0,0,0)",
            "traceorder": "normal",
        },
        hoverlabel={"font": {"family": _FONT}},
        margin={"l": 64, "r": 32, "t": 76, "b": 96},
    )
    return go.layout.Template(layout=layout)


LIGHT = _template(_LIGHT)
DARK = _template(_DARK)
GUIDE = "#7f7f7f"
# Stands out on both ends of the map's colours.
CROSS = "#d55e00"


def styled(figure: go.Figure, title: str, *, subtitle: str = "") -> go.Figure:
    """Give a figure the look; what its reader should see stands under its title."""
    figure.update_layout(template=LIGHT, title={"text": title, "subtitle": {"text": subtitle, "font": {"size": 12}}})
    return figure


def colour(i: int) -> str:
    """Colour of the i-th series."""
    return COLOURS[i % len(COLOURS)]


def symbol(i: int) -> str:
    """Mark of the i-th series."""
    return SYMBOLS[(i + i // len(COLOURS)) % len(SYMBOLS)]


def dash(i: int) -> str:
    """Line of the i-th series."""
    return DASHES[i // len(COLOURS) % len(DASHES)]


def themes() -> dict[str, dict[str, Any]]:
    """Both templates as the page switches between them."""
    return {"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()}
