"""A tornado: which figure moves the answer most."""

from ..sensitivity import LESS, MORE, Sensitivities
from .values import BarChart, Scale, Stack

_MOST_BARS = 12


def tornado_chart(
    found: Sensitivities, *, title: str, unit: str = "latency of a request (ms)", factor: float = 1e3
) -> BarChart:
    """Bars from the answer as it stands to what it is with less and with more of each figure."""
    rows = found.rows[:_MOST_BARS]
    base = factor * found.base

    def part(name: str, which: str) -> Stack:
        values = [getattr(row, f"{which}_value") for row in rows]
        return Stack(
            name=name,
            values=tuple(None if v is None else factor * v - base for v in values),
            hover=tuple(
                f"{row.figure} {getattr(row, which)}: " + ("nothing fits" if v is None else f"{factor * v:.4g}")
                for row, v in zip(rows, values, strict=True)
            ),
        )

    return BarChart(
        name="tornado",
        title=title,
        says=f"Each figure at {LESS:g} and at {MORE:g} of itself, all else as it is; {base:.4g} as it stands",
        bars=tuple(f"{row.figure} ({row.kind})" for row in rows),
        parts=(part(f"{LESS:g} of it", "less"), part(f"{MORE:g} of it", "more")),
        base=tuple(base for _ in rows),
        value=Scale(title=unit),
        limit=(base, "as it stands"),
        overlay=True,
    )
