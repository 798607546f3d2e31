"""``shardwise explain``: where each microsecond goes, and why the runners-up lost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from ..charts.values import AnyChart
    from ..result import PlanResult


def explain(
    file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Output of `plan --json` or `estimate --json`.")],
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file to explain.")] = 1,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw its steps, rooflines, memory and what moves it most.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say where the time of a plan goes, what binds it, and why the others lost."""
    from ..explain import explain_plan, read_result
    from .plots import check_plot
    from .text import console, print_phases, table

    check_plot(plot)
    result = read_result(file)
    told = explain_plan(result, rank)
    if plot is not None:
        _draw(result, rank, plot)
    if as_json:
        typer.echo(told.model_dump_json(indent=1))
        return
    out = console()
    out.print(told.headline, highlight=False)
    print_phases(next(plan for plan in result.plans if plan.rank == rank))
    if told.runners_up:
        made = table("#", "prefill", "decode", "more by", "why", right=("#", "more by"))
        for other in told.runners_up:
            made.add_row(str(other.rank), other.prefill, other.decode, other.delta, other.why)
        out.print(made)
    for line in told.notes:
        out.print(line, highlight=False)


def _draw(result: "PlanResult", rank: int, path: Path) -> None:
    """The pictures of one plan as a page."""
    from ...models.catalogue import get_model
    from ..charts.sensitivity import tornado_chart
    from ..charts.steps import memory_chart, roofline_chart, waterfall_chart
    from ..sensitivity import sensitivities
    from .plots import write_plot

    plan, model = result.of_rank(rank), get_model(result.model)
    charts: list[AnyChart] = [
        waterfall_chart(plan.decode),
        waterfall_chart(plan.prefill),
        roofline_chart(plan, model, result.workload),
        memory_chart(plan),
    ]
    if plan.shared:
        moved = sensitivities(result, model, rank=rank)
        charts.append(tornado_chart(moved, title=f"{result.model}: what moves the latency of a request most"))
    write_plot(path, f"{result.model} on {plan.decode.slice}: where the time goes", charts)
