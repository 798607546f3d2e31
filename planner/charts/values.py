"""What a figure shows, as values: curves in panels, with their axes. `figures` draws them and knows no plan."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Numbers = tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points that belong together.

    Parameters
    ----------
    labels : beside each point; blank for none
    hover : one line for each point
    low, high : ends of an interval around y
    group : curves of one group have one colour and one entry in the legend; its own name unless said
    dash : number of the line's pattern; by the colour unless said
    style : a line through points, points alone, a line alone, steps, or what was published and stands beside the curves
    """

    name: str
    x: tuple[float | str | None, ...]
    y: Numbers
    labels: tuple[str, ...] = ()
    hover: tuple[str, ...] = ()
    low: Numbers = ()
    high: Numbers = ()
    group: str = ""
    dash: int | None = None
    style: Literal["both", "points", "line", "steps", "faint", "published", "guide"] = "both"

    @property
    def family(self) -> str:
        """What its colour goes by."""
        return self.group or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis: what it shows with its unit, and how."""

    title: str
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Scale
    y: Scale
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure: panels beside each other, or `stacked` with one x axis.

    `name` is what files and anchors call it; `says` is what a reader should see in it.
    """

    name: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    stacked: bool = False

    def curves(self) -> Iterator[Curve]:
        """Every curve of every panel."""
        for panel in self.panels:
            yield from panel.curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Parts of a bar: one value a bar."""

    name: str
    values: Numbers
    hover: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """Bars with their parts.

    Parameters
    ----------
    bars : names, from the top down where they lie
    base : where each bar begins; () is 0
    limit : a line that bars should stay below, and what it is
    labels : beside each bar
    """

    name: str
    title: str
    says: str
    bars: tuple[str, ...]
    parts: tuple[Stack, ...]
    value: Scale
    base: Numbers = ()
    limit: tuple[float, str] | None = None
    labels: tuple[str, ...] = ()
    overlay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatChart:
    """A value over two axes; cells with a reason instead of a value are hatched by it.

    Parameters
    ----------
    values : (rows of y) x (columns of x)
    words : in each cell
    feasible : which cells lie inside the region that is outlined
    """

    name: str
    title: str
    says: str
    x: Scale
    y: Scale
    xs: tuple[str, ...]
    ys: tuple[str, ...]
    values: tuple[Numbers, ...]
    words: tuple[tuple[str, ...], ...] = field(default=())
    feasible: tuple[tuple[bool, ...], ...] = field(default=())
    colour_title: str = ""


AnyChart = Chart | BarChart | HeatChart
