"""Plans by latency and cost: the paper's Figure 1 for any result."""

from collections.abc import Iterable

from ..result import PhasePlan, PlanResult
from .values import Chart, Curve, Panel, Scale


def frontier_chart(result: PlanResult) -> Chart:
    """Latency against chip-seconds a token for each phase: a curve a chip count and layout, a label a batch.

    Decode on the left (latency per output token), prefill on the right (latency of the whole prompt batch).

    References
    ----------
    [Pope2022] Figure 1.
    """
    work = result.workload
    plans = (*result.frontier, *result.plans)
    return Chart(
        name="frontier",
        title=f"{result.model} on {result.on}: {work.input_tokens} tokens in, {work.output_tokens} out",
        says="Latency against cost of the plans that nothing beats; numbers at the points are batches",
        panels=(
            _panel("decode: one output token", [plan.decode for plan in plans]),
            _panel("prefill: the prompts of a batch", [plan.prefill for plan in plans]),
        ),
    )


def _panel(title: str, phases: Iterable[PhasePlan]) -> Panel:
    return Panel(
        title=title,
        x=Scale(title="latency (ms)", log=True),
        y=Scale(title="cost (chip-ms a token)", log=True),
        curves=tuple(_curve(name, points) for name, points in _series(phases).items()),
    )


def _series(phases: Iterable[PhasePlan]) -> dict[str, list[PhasePlan]]:
    """Distinct phases by chip count and layout, by rising latency."""
    series: dict[str, dict[tuple[float, float], PhasePlan]] = {}
    for phase in phases:
        if phase.cost_chip_s_per_token is not None:
            name = f"{phase.n_chips} chips, {phase.layout}"
            series.setdefault(name, {})[(phase.step_s, phase.cost_chip_s_per_token)] = phase
    return {name: [points[key] for key in sorted(points)] for name, points in sorted(series.items())}


def _curve(name: str, points: list[PhasePlan]) -> Curve:
    return Curve(
        name=name,
        x=tuple(1e3 * p.step_s for p in points),
        y=tuple(1e3 * (p.cost_chip_s_per_token or 0.0) for p in points),
        labels=tuple(str(p.batch) for p in points),
        hover=tuple(
            f"batch {p.batch}: {1e3 * p.step_s:.4g} ms, {1e3 * (p.cost_chip_s_per_token or 0.0):.4g} chip-ms a token<br>"
            f"mesh {p.mesh.x}x{p.mesh.y}x{p.mesh.z}, MFU {p.mfu:.2f}, weights {p.weights}"
            for p in points
        ),
    )
