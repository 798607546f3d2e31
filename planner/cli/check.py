"""``shardwise check``: what a load generator measured beside what was predicted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..checked import CheckedFigure, CheckedRun


def check(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS",
            help="What vllm bench, SGLang, GuideLLM, aiperf, inference-perf or a Benchmark Report say.",
        ),
    ],
    plan: Annotated[
        Path, typer.Option("--plan", help="The plan that ran: output of `plan --json` or `estimate --json`.")
    ],
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file.")] = 1,
    run: Annotated[int | None, typer.Option("--run", help="Run of the results, where they have several.")] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests a second, where the results do not say.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Users in a closed loop, where the results do not say.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Scheduler to simulate with.")] = None,
    max_sequences: Annotated[
        int | None, typer.Option("--max-sequences", help="Requests of a replica at a time, as the engine was started.")
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option("--token-budget", help="Tokens of a pass, as the engine was started.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Lay a measured run beside its prediction; exit code 1 where it lies outside the 90 % interval."""
    import json

    from ...validate.load_formats import read_load_results
    from ..check import check_results
    from ..explain import read_result

    planned = read_result(plan)
    found = check_results(
        planned,
        read_load_results(results, run),
        results,
        rank=rank,
        rate_per_s=rate,
        concurrency=concurrency,
        scheduler=scheduler,
        max_sequences=max_sequences,
        token_budget=token_budget,
    )
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        _print(found)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if not found.is_inside:
        raise typer.Exit(1)


def _print(found: "CheckedRun") -> None:
    """A row a figure, the tool's definitions below, and what to calibrate."""
    from .text import console, table

    out = console()
    version = "" if found.version is None else f" {found.version}"
    out.print(f"measured by {found.tool}{version}; predicted: {found.traffic}", highlight=False, soft_wrap=True)
    columns = ("figure", "measured", "predicted", "low - high", "ratio", "inside")
    made = table(*columns, right=columns[1:5])
    for figure in found.figures:
        inside = ("yes" if figure.is_inside else "NO") if figure.judged else "-"
        numbers = (_shown(figure, figure.measured), _shown(figure, figure.predicted), _interval(figure))
        made.add_row(f"{figure.name} {figure.statistic}", *numbers, f"{figure.ratio:.3f}", inside)
    out.print(made, highlight=False)
    for name, said in {figure.name: f"{figure.word}, {figure.definition}" for figure in found.figures}.items():
        out.print(f"{name}: {found.tool}'s {said}", highlight=False, soft_wrap=True)
    if found.mean_error is not None:
        judged = [figure for figure in found.figures if figure.judged]
        n_inside = sum(figure.is_inside for figure in judged)
        said = "every judged figure lies" if found.is_inside else f"{n_inside} of {len(judged)} judged figures lie"
        out.print(f"{said} inside the 90 % interval; mean error {found.mean_error:.3f}", highlight=False)
    for sentence in found.advice:
        out.print(f"recalibrate: {sentence}", highlight=False, soft_wrap=True)


def _shown(figure: "CheckedFigure", value: float) -> str:
    from ...hardware_specs.units import format_seconds

    return f"{value:.4g}/s" if figure.name.endswith("_per_s") else format_seconds(value)


def _interval(figure: "CheckedFigure") -> str:
    high = "?" if figure.high is None else _shown(figure, figure.high)
    return f"{_shown(figure, figure.low)} - {high}"
