"""Predictions beside what was measured, and what fits leave over."""

import math
from collections.abc import Sequence

from ...simulator.cost.calibrated import Fit
from ...simulator.cost.kernel_times import KernelFit
from ...validate.score import ScoredRow, source_of
from .values import BarChart, Chart, Curve, Panel, Scale, Stack


def scatter_chart(scored: Sequence[ScoredRow]) -> Chart:
    """Predicted against measured with the 90 % interval of each prediction: times on the left, rates on the right.

    A row whose interval covers the diagonal is inside it.
    """
    sources: dict[str, dict[bool, list[ScoredRow]]] = {}
    for row in scored:
        if row.value is not None and row.prediction is not None and row.target is not None:
            sources.setdefault(source_of(row.row), {}).setdefault(row.target.is_rate, []).append(row)
    panels = []
    for is_rate, title in ((False, "times (s)"), (True, "rates (a second)")):
        held = {source: kinds[is_rate] for source, kinds in sorted(sources.items()) if is_rate in kinds}
        if held:
            panels.append(_panel(title, held))
    return Chart(
        name="predicted-measured",
        title="Predicted against measured",
        says="Bars are 90 % intervals; on the dotted line a prediction is what was measured",
        panels=tuple(panels),
    )


def _panel(title: str, held: dict[str, list[ScoredRow]]) -> Panel:
    measured = [_si(row, row.value) for rows in held.values() for row in rows if row.value is not None]
    ends = (min(measured), max(measured))
    guide = Curve(name="measured", x=ends, y=ends, style="guide")
    return Panel(
        title=title,
        x=Scale(title="measured", log=True),
        y=Scale(title="predicted, low to high", log=True),
        curves=(*(_points(source, rows) for source, rows in held.items()), guide),
    )


def _si(row: ScoredRow, value: float) -> float:
    return value if row.target is None else value * row.target.factor


def _points(source: str, rows: Sequence[ScoredRow]) -> Curve:
    points = [(row, row.prediction, row.value) for row in rows if row.prediction is not None and row.value is not None]
    names = ("model", "hardware", "tp", "batch", "concurrency", "metric")
    return Curve(
        name=source,
        style="points",
        x=tuple(_si(row, value) for row, _, value in points),
        y=tuple(_si(row, made.predicted) for row, made, _ in points),
        low=tuple(None if made.low is None else _si(row, made.low) for row, made, _ in points),
        high=tuple(None if made.high is None else _si(row, made.high) for row, made, _ in points),
        hover=tuple(
            ", ".join(f"{name} {row.row[name]}" for name in names if row.row.get(name))
            + f"<br>measured {_si(row, value):.4g}, predicted {_si(row, made.predicted):.4g}"
            for row, made, value in points
        ),
    )


def residual_chart(fits: Sequence[Fit]) -> Chart:
    """Predicted over measured of each row that constants were fitted on."""
    curves = tuple(
        Curve(
            name=f"{fit.chip}, {fit.engine}",
            style="points",
            x=tuple(row.measured_s * 1e3 for row in fit.residuals),
            y=tuple(row.predicted_s / row.measured_s for row in fit.residuals),
            hover=tuple(
                f"{row.id}, {row.source}<br>measured {1e3 * row.measured_s:.4g} ms, "
                f"predicted / measured {row.predicted_s / row.measured_s:.3f}"
                for row in fit.residuals
            ),
        )
        for fit in fits
    )
    return Chart(
        name="residuals",
        title="What the fits leave over",
        says="Whole phases: predicted over measured of the rows that constants were fitted on",
        panels=(
            Panel(
                title="",
                x=Scale(title="measured (ms)", log=True),
                y=Scale(title="predicted / measured", log=True),
                curves=curves,
            ),
        ),
    )


def kernel_error_chart(fits: Sequence[KernelFit]) -> BarChart:
    """Median error of each kernel family on rows held out of its fit, with half of its 90 % interval beside it."""
    families = [(fit, family) for fit in fits for family in fit.families]
    names = tuple(
        f"{fit.chip}, {fit.stack}: " + " ".join(filter(None, (family.variant, family.op, family.kv)))
        for fit, family in families
    )
    return BarChart(
        name="kernel-errors",
        title="Kernels: error on rows held out of the fits",
        says="Median error; the words beside each bar are half of the 90 % interval",
        bars=names,
        parts=(
            Stack(
                name="median error",
                values=tuple(family.median_error for _, family in families),
                hover=tuple(
                    f"{family.n_held_out} rows held out of {family.n_rows + family.n_held_out}"
                    for _, family in families
                ),
            ),
        ),
        value=Scale(title="median error (share of the measured time)"),
        labels=tuple(f"± {math.expm1(family.interval_log):.2f}" for _, family in families),
    )
