"""``shardwise score``: every row of a table of measured cases predicted beside its measurement."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from ...validate.measured_csv import MeasuredTable
    from ...validate.score import GroupScore, ScoredRow

_MOST_GROUPS = 20
_MOST_REASONS = 15


def score(
    cases: Annotated[Path, typer.Argument(help="CSV with at least the columns model, hardware, metric, unit.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV to write: every row with its prediction beside it.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Predict every row of a table of measured cases and sum up the errors."""
    import json

    from ...validate.measured_csv import ADDED_COLUMNS, read_measured, write_scored
    from .text import check_writable

    if output is not None:
        check_writable(output)
    table = read_measured(cases)
    scored = _score(table)
    if output is not None:
        rows = ([*(s.row[name] for name in table.columns), *s.added()] for s in scored)
        write_scored(output, [*table.columns, *ADDED_COLUMNS], rows)
        typer.echo(f"{len(scored)} rows written to {output}", err=True)
    if as_json:
        typer.echo(json.dumps(_summary(scored), indent=1, allow_nan=False))
    else:
        _print_summary(scored)


def _score(table: "MeasuredTable") -> "list[ScoredRow]":
    """Score with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from ...validate.score import score as score_rows
    from ..predict import predict

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=len(table.rows))
        return score_rows(table.rows, predict, advance=lambda: progress.advance(task))


def _summary(scored: "list[ScoredRow]") -> dict[str, object]:
    from dataclasses import asdict

    from ...validate.score import count_reasons, group_scores, total_score

    total = asdict(total_score(scored))
    names = ("rows", "predicted", "median_abs_error", "mean_abs_error", "bias", "inside")
    return {
        **{name: total[name] for name in names},
        "groups": [asdict(group) for group in group_scores(scored)],
        "reasons": count_reasons(scored),
    }


def _print_summary(scored: "list[ScoredRow]") -> None:
    from rich.markup import escape

    from ...validate.score import count_reasons, group_scores, total_score
    from .text import console, table

    right = ("rows", "pred", "med|e|", "mean|e|", "bias", "inside")
    groups = [group for group in group_scores(scored) if group.predicted]
    made = table(*right, right=right)
    made.add_column("group", overflow="fold", max_width=38)
    made.add_row(*_numbers(total_score(scored)), "all")
    for group in groups[:_MOST_GROUPS]:
        names = (group.model, group.hardware, group.metric, group.source)
        made.add_row(*_numbers(group), escape(", ".join(name for name in names if name)))
    out = console()
    out.print(made, highlight=False)
    if len(groups) > _MOST_GROUPS:
        out.print(f"and {len(groups) - _MOST_GROUPS} groups with smaller errors; --json lists all", highlight=False)
    reasons = list(count_reasons(scored).items())
    if reasons:
        out.print("\nrows without a prediction:", highlight=False)
    for reason, count in reasons[:_MOST_REASONS]:
        out.print(f"{count:>6}  {reason}", highlight=False, markup=False, soft_wrap=False)
    if len(reasons) > _MOST_REASONS:
        out.print(f"and {len(reasons) - _MOST_REASONS} more reasons; --json lists all", highlight=False)


def _numbers(group: "GroupScore") -> tuple[str, ...]:
    errors = (group.median_abs_error, group.mean_abs_error, group.bias)
    texts = ("-" if e is None else f"{e:+.3f}" if e is group.bias else f"{e:.3f}" for e in errors)
    return str(group.rows), str(group.predicted), *texts, "-" if group.inside is None else f"{group.inside:.2f}"
