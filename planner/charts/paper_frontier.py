"""Figures 1 and C.1: cost and MFU of every batch against latency."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ...hardware_specs.errors import SpecError
from ..whatif.ask import WhatIf, what_if
from .paper_case import LATENCY_TITLES, PaperCase, Row, batch_label, batches, hover, number
from .published import published_points
from .values import Chart, Curve, Panel, Scale


@lru_cache(maxsize=4)
def _frontier(case: PaperCase) -> WhatIf:
    """Every batch on every count of chips, in every format of the weights."""
    return what_if(
        case.model,
        f"{case.chip}:{case.n_chips}",
        vary=[
            f"chips={','.join(map(str, case.counts))}",
            f"weights={','.join(case.weights)}",
            batches(2 * case.batch),
        ],
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
        objective="latency",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """What is drawn of a phase: x and y of a row, as shown."""

    x: Callable[[Row], float]
    y: Callable[[Row], float]


def _phase_panel(
    case: PaperCase, answer: WhatIf, phase: str, title: str, x_title: str, y: Scale, read: _Measure, figure: str
) -> Panel:
    """Curves by chip count, format and layout over the batch; colour tells the first two, the dash the layout."""
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in answer.rows():
        if row["fits"]:
            key = f"{row['chips']} chips, {row['weights']}", str(row[f"{phase}_layout"])
            curves.setdefault(key, []).append(row)
    layouts = list(dict.fromkeys(layout for _, layout in curves))
    drawn = [
        Curve(
            name=f"{group}, {layout}",
            group=group,
            dash=layouts.index(layout),
            x=tuple(read.x(row) for row in rows),
            y=tuple(read.y(row) for row in rows),
            labels=tuple(batch_label(row) for row in rows),
            hover=tuple(hover(row, phase) for row in rows),
        )
        for (group, layout), rows in curves.items()
    ]
    return Panel(
        title=title,
        x=Scale(title=x_title, log=True),
        y=y,
        curves=(*drawn, *published_points(case.model, case.chip, figure, phase)),
    )


def _latency(phase: str) -> Callable[[Row], float]:
    return (lambda row: 1e3 * number(row, "tpot_s")) if phase == "decode" else (lambda row: number(row, "ttft_s"))


def _two_phases(case: PaperCase, figure: str, column: str, factor: float, y: Scale) -> tuple[Panel, ...]:
    answer = _frontier(case)
    if not answer.n_fitting:
        raise SpecError(f"{case.model.name} fits on none of {', '.join(map(str, case.counts))} chips of {case.chip}")

    def read(phase: str) -> _Measure:
        return _Measure(x=_latency(phase), y=lambda row: factor * number(row, f"{phase}_{column}"))

    return tuple(
        _phase_panel(case, answer, phase, phase, LATENCY_TITLES[phase], y, read(phase), figure)
        for phase in ("decode", "prefill")
    )


def cost_latency_chart(case: PaperCase) -> Chart:
    """Figure 1: cost of a token against latency, batch by batch."""
    return Chart(
        name="1",
        title=f"Figure 1: {case.model.name} on {case.chip}, cost against latency",
        says=f"{case.lengths}; numbers are batches, dashes tell layouts apart",
        panels=_two_phases(case, "1", "chip_s_per_token", 1e3, Scale(title="cost (chip-ms a token)", log=True)),
    )


def mfu_latency_chart(case: PaperCase) -> Chart:
    """Figure C.1: MFU against latency, batch by batch."""
    return Chart(
        name="C.1",
        title=f"Figure C.1: {case.model.name} on {case.chip}, MFU against latency",
        says=f"{case.lengths}; numbers are batches, dashes tell layouts apart",
        panels=_two_phases(case, "C.1", "mfu", 1.0, Scale(title="MFU", least=0.0)),
    )
