"""A crossover as a chart."""

from ..crossovers.values import Crossover
from .values import Chart, Curve, Panel, Scale


def crossover_chart(found: Crossover) -> Chart:
    """Its curves, with the published claims under the title."""
    claims = "; ".join(f"{row.claim.says} [{row.claim.citation}, {row.claim.source}]" for row in found.checks)
    return Chart(
        name=found.name,
        title=found.title,
        says=f"{found.setting}. Published: {claims}",
        panels=(
            Panel(
                title="",
                x=Scale(title=found.x, log=True),
                y=Scale(title=found.y, log=True),
                curves=tuple(
                    Curve(name=name, x=tuple(points), y=tuple(points.values())) for name, points in found.curves.items()
                ),
            ),
        ),
    )
