"""Pictures of a what-if: what each varied figure does to latency and cost, and which points nothing beats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..pareto import pareto_indices
from ..whatif.ask import WhatIf
from ..whatif.vary import Axis
from .values import Chart, Curve, Panel, Scale

# So many curves can be told apart; of more combinations the best is drawn.
_MOST_CURVES = 8
# A page stays quick with so many marks.
_MOST_MARKS = 4000
# Ends of an axis this far apart are shown by their ratio.
_LOG_RATIO = 8.0
_MOST_TICKS = 14

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """A figure of merit: its column, what is shown of it, and how."""

    column: str
    title: str
    factor: float
    low: str = ""
    high: str = ""


_LATENCY = _Figure(
    column="request_latency_s",
    title="latency of a request (s)",
    factor=1.0,
    low="request_latency_low_s",
    high="request_latency_high_s",
)
_TPOT = _Figure(column="tpot_s", title="time per output token (ms)", factor=1e3)
_DOLLARS = _Figure(column="usd_per_mtok_output", title="cost (USD per million output tokens)", factor=1.0)
_CHIP_S = _Figure(column="chip_s_per_request", title="cost (chip-seconds a request)", factor=1.0)


def whatif_charts(answer: WhatIf) -> tuple[Chart, ...]:
    """The pictures of a what-if; none where nothing fits."""
    if not answer.n_fitting:
        return ()
    return (_response(answer), _tradeoff(answer))


def _column(answer: WhatIf, name: str) -> NDArray[np.float64]:
    """A column as numbers, NaN where there is none."""
    return np.array([np.nan if value is None else value for value in answer.columns[name]], float)


def _cost(answer: WhatIf) -> _Figure:
    """Dollars where the price is known of all that fits, else chip-seconds."""
    fits = np.array(answer.columns["fits"], bool)
    return _DOLLARS if not np.isnan(_column(answer, "usd_per_mtok_output")[fits]).any() else _CHIP_S


def main_axis(axes: Sequence[Axis]) -> Axis:
    """What lies along x: the varied number with the most values, or the first key where none is a number."""
    numbers = [axis for axis in axes if axis.numbers is not None and len(set(axis.numbers)) > 1]
    return max(numbers, key=lambda axis: len(axis.values)) if numbers else axes[0]


def _places(answer: WhatIf) -> dict[str, Places]:
    """For each axis, which of its values each point has."""
    found, after = {}, answer.n_points
    for axis in answer.axes:
        after //= len(axis.values)
        found[axis.key] = np.arange(answer.n_points) // after % len(axis.values)
    return found


def _response(answer: WhatIf) -> Chart:
    x = main_axis(answer.axes)
    others = [axis for axis in answer.axes if axis is not x]
    n_curves = int(np.prod([len(axis.values) for axis in others]))
    shown = others if n_curves <= _MOST_CURVES else _coloured(others)
    rest = [axis.key for axis in others if axis not in shown]
    says = f"What {x.says} does" + (f", at the best of {' and '.join(rest)}" if rest else "")
    if not all(answer.columns["fits"]):
        says += "; where a curve stops, nothing fits"
    return Chart(
        name="response",
        title=f"{answer.question.described.name}: latency and cost by {x.says}",
        says=says,
        panels=tuple(_panel(answer, figure, x, shown) for figure in (_LATENCY, _cost(answer))),
    )


def _coloured(others: Sequence[Axis]) -> list[Axis]:
    """The one axis that curves are told apart by: the most values that can be told apart."""
    few = [axis for axis in others if 1 < len(axis.values) <= _MOST_CURVES]
    return [max(few, key=lambda axis: len(axis.values))] if few else []


def _panel(answer: WhatIf, figure: _Figure, x: Axis, shown: Sequence[Axis]) -> Panel:
    places = _places(answer)
    values = figure.factor * _column(answer, figure.column)
    group = np.zeros(answer.n_points, np.int64)
    for axis in shown:
        group = group * len(axis.values) + places[axis.key]
    curves = []
    for number in np.unique(group):
        inside = np.flatnonzero(group == number)
        name = (
            ", ".join(_named(axis, int(places[axis.key][inside[0]])) for axis in shown)
            or answer.question.described.name
        )
        curves.append(_curve(answer, figure, x, name, inside, values))
    return Panel(
        title=figure.title.partition(" (")[0],
        x=_scale(x),
        y=Scale(title=figure.title, log=_is_wide(values)),
        curves=tuple(curves),
    )


def _named(axis: Axis, place: int) -> str:
    """A value with its key where the value alone would not say what it is."""
    value = axis.values[place]
    return value.text if value.number is None else f"{axis.key} {value.text}"


def _curve(answer: WhatIf, figure: _Figure, x: Axis, name: str, inside: Places, values: NDArray[np.float64]) -> Curve:
    """The best point at each value of x."""
    at = _places(answer)[x.key][inside]
    best: list[int | None] = []
    for place in range(len(x.values)):
        here = inside[(at == place) & ~np.isnan(values[inside])]
        best.append(int(here[np.argmin(values[here])]) if len(here) else None)
    order = np.argsort(x.numbers, kind="stable") if x.numbers is not None else np.arange(len(x.values))

    def each(read: Callable[[int], float]) -> tuple[float | None, ...]:
        return tuple(None if best[k] is None else read(best[k] or 0) for k in order)

    def of(column: str) -> tuple[float | None, ...]:
        if not column:
            return ()
        found = figure.factor * _column(answer, column)
        return tuple(None if end is None or np.isnan(end) else end for end in each(lambda i: float(found[i])))

    return Curve(
        name=name,
        style="both" if x.numbers is not None else "points",
        x=tuple(x.numbers[k] if x.numbers is not None else x.values[k].text for k in order),
        y=each(lambda i: float(values[i])),
        low=of(figure.low),
        high=of(figure.high),
        hover=tuple("nothing fits" if best[k] is None else point_text(answer, best[k] or 0) for k in order),
    )


def point_text(answer: WhatIf, i: int) -> str:
    """A point in three lines: what was asked, how it is cut, what it takes."""
    c = answer.columns
    asked = ", ".join(f"{axis.key} {c[axis.column][i]}" for axis in answer.axes)
    cut = f"{c['slice'][i]}: tp {c['tp'][i]} pp {c['pp'][i]} dp {c['dp'][i]}, {c['prefill_layout'][i]}, {c['decode_layout'][i]}"
    price = c["usd_per_mtok_output"][i]
    dollars = "" if price is None else f", ${price:.4g} a million output tokens"
    took = f"TTFT {c['ttft_s'][i]:.4g} s, TPOT {c['tpot_s'][i]:.4g} s, {c['output_tokens_per_s'][i]:.4g} output tokens/s{dollars}"
    return f"{asked}<br>{cut}<br>{took}"


def _scale(axis: Axis) -> Scale:
    numbers = axis.numbers
    if numbers is None:
        return Scale(title=axis.says)
    ticks = tuple((value.number or 0.0, value.text) for value in axis.values) if len(axis.values) <= _MOST_TICKS else ()
    return Scale(
        title=axis.says if axis.key in axis.says else f"{axis.says} ({axis.key})",
        log=_is_wide(np.array(numbers)),
        ticks=ticks,
    )


def _is_wide(values: NDArray[np.float64]) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 0 and bool(known.min() > 0.0 and known.max() >= _LOG_RATIO * known.min())


def _tradeoff(answer: WhatIf) -> Chart:
    """Every point that fits, and those that nothing beats on both counts."""
    cost = _cost(answer)
    x, y = _TPOT.factor * _column(answer, _TPOT.column), cost.factor * _column(answer, cost.column)
    fits = np.flatnonzero(np.array(answer.columns["fits"], bool))
    front = fits[pareto_indices(x[fits], y[fits])]
    colours = _coloured(answer.axes)
    step = max(1, -(-len(fits) // _MOST_MARKS))
    curves = [_marks(answer, name, inside[::step], x, y, "faint") for name, inside in _by_colour(answer, colours, fits)]
    best = _marks(answer, "nothing beats these", front, x, y, "both")
    return Chart(
        name="tradeoff",
        title=f"{answer.question.described.name}: latency against cost",
        says=f"{len(fits):,} points that fit, {len(front)} of them beaten by no other on both counts",
        panels=(
            Panel(
                title="",
                x=Scale(title=_TPOT.title, log=_is_wide(x)),
                y=Scale(title=cost.title, log=_is_wide(y)),
                curves=(*curves, best),
            ),
        ),
    )


def _by_colour(answer: WhatIf, colours: Sequence[Axis], fits: Places) -> list[tuple[str, Places]]:
    if not colours:
        return [("fits", fits)]
    axis = colours[0]
    at = _places(answer)[axis.key][fits]
    parts = [(_named(axis, k), fits[at == k]) for k in range(len(axis.values))]
    return [(name, inside) for name, inside in parts if len(inside)]


def _marks(
    answer: WhatIf, name: str, inside: Places, x: NDArray[np.float64], y: NDArray[np.float64], style: str
) -> Curve:
    return Curve(
        name=name,
        style=style,  # type: ignore[arg-type]
        x=tuple(x[inside].tolist()),
        y=tuple(y[inside].tolist()),
        hover=tuple(point_text(answer, int(i)) for i in inside),
    )
