"""The pictures of Pope et al. for any model on any chips, with the paper's public points on them where there are any.

References
----------
[Pope2022] Figures 1, 3, 6, 7, 8, 9, B.1 and C.1, Table 1.
"""

from collections.abc import Callable, Sequence

from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.errors import SpecError, UnknownNameError
from .paper_case import PaperCase
from .paper_frontier import cost_latency_chart, mfu_latency_chart
from .paper_layouts import chips_chart, prefill_chart
from .paper_memory import context_chart
from .paper_requests import runtime_chart, shortest_prefill_chart
from .paper_volume import volume_chart
from .published import FIGURES
from .values import Chart


def paper_charts(case: PaperCase, names: Sequence[str] = ()) -> tuple[tuple[Chart, ...], dict[str, str]]:
    """The figures by name, all of them unless said; and for each that cannot be drawn, why.

    Raises
    ------
    UnknownNameError : no such figure
    SpecError : the one figure that was asked for cannot be drawn
    """
    for name in names:
        if name not in FIGURES:
            raise UnknownNameError("figure of the paper", name, FIGURES)
    made: list[Chart] = []
    missing: dict[str, str] = {}
    for name in names or FIGURES:
        try:
            made.append(_DRAWN[name](case))
        except SpecError as error:
            if len(names) == 1:
                raise
            missing[name] = str(error)
    return tuple(made), missing


def _volume(case: PaperCase) -> Chart:
    return volume_chart(case.model, parse_pool(case.on)[0])


def _context(case: PaperCase) -> Chart:
    return context_chart(case.model, case.on)


_DRAWN: dict[str, Callable[[PaperCase], Chart]] = {
    "1": cost_latency_chart,
    "3": _volume,
    "6": chips_chart,
    "7": prefill_chart,
    "8": _context,
    "9": runtime_chart,
    "B.1": shortest_prefill_chart,
    "C.1": mfu_latency_chart,
}
