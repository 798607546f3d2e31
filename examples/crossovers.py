"""Where one architecture or layout overtakes another, with what was published of it beside what is predicted.

`python examples/crossovers.py` prints tables; `python examples/crossovers.py page.html` draws the curves too.
"""

import sys
from pathlib import Path

from shardwise.planner.crossovers.every import CROSSOVERS
from shardwise.planner.crossovers.values import Check, Crossover


def number(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def published(row: Check) -> str:
    """The claim's number, if it gives one."""
    claim = row.claim
    if claim.low is None or claim.high is None:
        return "-"
    return number(claim.low) if claim.low == claim.high else f"{number(claim.low)} to {number(claim.high)}"


def show(found: Crossover) -> None:
    """Curves as a table, then the claims."""
    print(f"{found.title}\n  {found.setting}; {found.y} by {found.x}")
    xs = sorted({x for points in found.curves.values() for x in points})
    wide = max(map(len, found.curves))
    print(f"  {'':{wide}}" + "".join(f"{number(x):>9}" for x in xs))
    for name, points in found.curves.items():
        print(f"  {name:{wide}}" + "".join(f"{number(points[x]) if x in points else '-':>9}" for x in xs))
    for row in found.checks:
        print(f"  * {row.claim.says} [{row.claim.citation}, {row.claim.source}]")
        print(f"    {row.claim.measure}: published {published(row)}, predicted {number(row.ours)}: {row.judgement}")
        if row.claim.why:
            print(f"    {row.claim.why}")
    print()


all_found = [work_out() for work_out in CROSSOVERS.values()]
for each in all_found:
    show(each)

if len(sys.argv) > 1:
    from shardwise.planner.charts.crossovers import crossover_chart
    from shardwise.planner.figures.page import Page, write_charts

    page = Page(
        title="Crossovers",
        lead=("Published claims stand under each title, predictions are the curves.",),
        charts=tuple(crossover_chart(each) for each in all_found),
        provenance={each.name: each.setting for each in all_found},
    )
    write_charts(page, Path(sys.argv[1]))
