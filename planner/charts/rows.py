"""What charts show, as rows: a row a point, so that every picture has its numbers beside it."""

from collections.abc import Sequence

from .values import AnyChart, BarChart, Chart, HeatChart

Cell = str | float | None
NAMES = ("figure", "panel", "curve", "kind", "x", "y", "low", "high", "label")
SAYS = {
    "figure": "the figure",
    "panel": "its part",
    "curve": "the curve, or part of a bar",
    "kind": "ours, or published",
    "x": "as on the axis below",
    "y": "as on the axis beside",
    "low": "low end of the 90 % interval",
    "high": "high end of the 90 % interval",
    "label": "what stands at the point",
}


def chart_columns(charts: Sequence[AnyChart]) -> dict[str, list[Cell]]:
    """Every point of some charts as columns."""
    rows = [row for chart in charts for row in _rows(chart)]
    return {name: [row[i] for row in rows] for i, name in enumerate(NAMES)}


def _rows(chart: AnyChart) -> list[tuple[Cell, ...]]:
    if isinstance(chart, Chart):
        return _points(chart)
    if isinstance(chart, BarChart):
        return [
            (chart.name, "", part.name, "ours", bar, value, None, None, "")
            for part in chart.parts
            for bar, value in zip(chart.bars, part.values, strict=True)
        ]
    return _cells(chart)


def _points(chart: Chart) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for panel in chart.panels:
        for curve in panel.curves:
            n = len(curve.x)
            kind = "published" if curve.style == "published" else "ours"
            ends = ((*values, *(None,) * (n - len(values))) for values in (curve.low, curve.high))
            labels = (*curve.labels, *("",) * (n - len(curve.labels)))
            rows += [
                (chart.name, panel.title, curve.name, kind, x, y, low, high, label)
                for x, y, low, high, label in zip(curve.x, curve.y, *ends, labels, strict=True)
            ]
    return rows


def _cells(chart: HeatChart) -> list[tuple[Cell, ...]]:
    return [
        (chart.name, y, "", "ours", x, value, None, None, "")
        for y, row in zip(chart.ys, chart.values, strict=True)
        for x, value in zip(chart.xs, row, strict=True)
    ]
