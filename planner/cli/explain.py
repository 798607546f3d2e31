"""``shardwise explain``: where each microsecond goes, and why the runners-up lost."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json


def explain(
    file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Output of `plan --json` or `estimate --json`.")],
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file to explain.")] = 1,
    as_json: Json = False,
) -> None:
    """Say where the time of a plan goes, what binds it, and why the others lost."""
    from ..explain import explain_plan, read_result
    from .text import console, print_phases, table

    result = read_result(file)
    told = explain_plan(result, rank)
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
