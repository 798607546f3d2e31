"""``shardwise score``: every row of a table of measured cases predicted beside its measurement."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from rich.console import Console

    from ...validate.measured_csv import MeasuredTable
    from ...validate.score import ScoredRow
    from ...validate.score_groups import GroupScore

_MOST_GROUPS = 12
_MOST_REASONS = 15


def score(
    cases: Annotated[Path, typer.Argument(help="CSV with at least the columns model, hardware, metric, unit.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV to write: every row with its prediction beside it.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Columns to group errors by, comma-separated, e.g. source,metric.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes that predict side by side; one a core unless said.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write predicted against measured as an offline page.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Predict every row of a table of measured cases and sum up the errors."""
    import json

    from ...validate.measured_csv import ADDED_COLUMNS, read_measured, write_scored
    from ...validate.score_groups import DEFAULT_BY, parse_by
    from .plots import check_plot
    from .text import check_writable

    if output is not None:
        check_writable(output)
    check_plot(plot)
    table = read_measured(cases)
    columns = None if by is None else parse_by(by, table.columns)
    scored = _score(table, opt.cores() if jobs is None else jobs)
    if output is not None:
        rows = ([*(s.row[name] for name in table.columns), *s.added()] for s in scored)
        write_scored(output, [*table.columns, *ADDED_COLUMNS], rows)
        typer.echo(f"{len(scored)} rows written to {output}", err=True)
    if plot is not None:
        from ..charts.accuracy import scatter_chart
        from .plots import write_plot

        write_plot(plot, f"Predicted against measured: {cases.name}", [scatter_chart(scored)])
    if as_json:
        typer.echo(json.dumps(_summary(scored, columns or DEFAULT_BY), indent=1, allow_nan=False))
    else:
        _print_summary(scored, columns)


def _score(table: "MeasuredTable", jobs: int) -> "list[ScoredRow]":
    """Score with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from ...validate.score import score as score_rows
    from ..predict_row import predict_row

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=len(table.rows))
        return score_rows(table.rows, predict_row, jobs=jobs, advance=lambda: progress.advance(task))


def _summary(scored: "list[ScoredRow]", by: Sequence[str]) -> dict[str, object]:
    from dataclasses import asdict

    from ...validate.decisions import decision_score, find_tasks, scores_by_model
    from ...validate.score import count_reasons
    from ...validate.score_groups import SHORT_BY, group_scores, total_score

    tasks = find_tasks(scored)
    return {
        **total_score(scored).to_json(),
        "by_source_and_metric": [group.to_json() for group in group_scores(scored, SHORT_BY)],
        "by": list(by),
        "groups": [group.to_json() for group in group_scores(scored, by)],
        "decisions": {
            **asdict(decision_score(tasks)),
            "groups": [
                {"source": source, "model": model, **asdict(made)}
                for (source, model), made in scores_by_model(tasks).items()
            ],
        },
        "reasons": count_reasons(scored),
    }


def _print_summary(scored: "list[ScoredRow]", by: Sequence[str] | None) -> None:
    from ...validate.score_groups import DEFAULT_BY, SHORT_BY, group_scores, total_score
    from .text import console

    out = console()
    total = total_score(scored)
    for columns in (by,) if by else (SHORT_BY, DEFAULT_BY):
        groups = [group for group in group_scores(scored, columns) if group.predicted]
        _print_groups(out, f"by {', '.join(columns)}", [total, *groups])
    _print_decisions(out, scored)
    _print_reasons(out, scored)


def _print_groups(out: "Console", title: str, groups: "Sequence[GroupScore]") -> None:
    from rich.markup import escape

    from .text import table

    right = ("rows", "pred", "med|e|", "mean|e|", "bias", "inside", "width", "rank")
    made = table(*right, right=right, title=f"{title}; the largest errors first")
    made.add_column("group", overflow="fold")
    for group in groups[: _MOST_GROUPS + 1]:
        made.add_row(*_numbers(group), escape(", ".join(name for name in group.names.values() if name) or "all"))
    out.print(made, highlight=False)
    left = len(groups) - _MOST_GROUPS - 1
    out.print(f"and {left} groups with smaller errors; --json lists all\n" if left > 0 else "", highlight=False)


def _numbers(group: "GroupScore") -> tuple[str, ...]:
    shares = (group.inside, group.width, group.rank)
    return (
        str(group.rows),
        str(group.predicted),
        *("-" if e is None else f"{e:.3f}" for e in (group.median_abs_error, group.mean_abs_error)),
        "-" if group.bias is None else f"{group.bias:+.3f}",
        *("-" if share is None else "open" if math.isinf(share) else f"{share:.2f}" for share in shares),
    )


def _print_decisions(out: "Console", scored: "list[ScoredRow]") -> None:
    """How good the choices are, where several configurations of a task were measured."""
    from rich.markup import escape

    from ...validate.decisions import decision_score, find_tasks, scores_by_model
    from .text import table

    tasks = find_tasks(scored)
    if not tasks:
        return
    right = ("tasks", "choices", "same tp", "same point", "missed", "reached")
    made = table(*right, right=right, title="choices of the highest throughput a chip under a TPOT limit")
    made.add_column("group", overflow="fold")
    for names, found in ((("all", ""), decision_score(tasks)), *scores_by_model(tasks).items()):
        shares = (found.same_tp, found.same_point, found.missed, found.reached)
        texts = ("-" if share is None else f"{share:.2f}" for share in shares)
        made.add_row(str(found.tasks), str(found.decisions), *texts, escape(", ".join(filter(None, names))))
    out.print(made, highlight=False)
    out.print(highlight=False)


def _print_reasons(out: "Console", scored: "list[ScoredRow]") -> None:
    from ...validate.score import count_reasons

    reasons = list(count_reasons(scored).items())
    if reasons:
        out.print("rows without a prediction:", highlight=False)
    for reason, count in reasons[:_MOST_REASONS]:
        out.print(f"{count:>6}  {reason}", highlight=False, markup=False, soft_wrap=False)
    if len(reasons) > _MOST_REASONS:
        out.print(f"and {len(reasons) - _MOST_REASONS} more reasons; --json lists all", highlight=False)
