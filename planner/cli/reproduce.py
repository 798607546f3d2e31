"""``shardwise reproduce``: a paper's tables and conclusions beside ours."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from ...validate.compared import Compared, ErrorTable
    from ...validate.reproduce import Reproduction
    from ..paper_rows import PaperRow

PAPERS = ("pope2022", "crossovers")


def reproduce(
    name: Annotated[str, typer.Argument(help="Published work: pope2022, or crossovers of architectures.")] = "pope2022",
    as_json: Json = False,
) -> None:
    """Put published tables beside what the model says, and check the paper's conclusions on the planner."""
    import json

    from ...hardware_specs.errors import UnknownNameError
    from ...validate.reproduce import reproduce_pope2022
    from ..paper_rows import paper_rows
    from .text import console

    if name not in PAPERS:
        raise UnknownNameError("published work", name, PAPERS)
    if name == "crossovers":
        from .crossovers import print_crossovers

        print_crossovers(as_json=as_json)
        return
    report = reproduce_pope2022()
    rows = paper_rows(report)
    if as_json:
        tables = report.model_dump(mode="json")
        typer.echo(json.dumps({"tables": tables, "rows": [row.model_dump(mode="json") for row in rows]}, indent=1))
    else:
        print_report(console(), report)
        print_rows(console(), rows)
    failed = [row.id for row in rows if row.verdict == "differs"]
    if failed:
        typer.echo(f"{len(failed)} rows differ from the paper: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def print_report(out: "Console", report: "Reproduction") -> None:
    """Every table, one after the other."""
    out.print(f"{report.title}\n", highlight=False, soft_wrap=True)
    _grouped(out, "Figure 3: volume of one FFN layer on 4x4x4", "layout", report.figure3, "{:.3%}")
    _plain(out, "Figure 3: tokens at which the layouts change places", "change", report.switch_points)
    _plain(out, "Table 1: longest context, 30 % of memory for the cache", "model/attention", report.table1)
    _grouped(out, "Table D.2: MFU of the published times, by our definition", "model", report.mfu, "{:.4f}")
    _timed(out, "Figures 6 and 7, Table 2: TPU v4, the rows its constants are fitted on", report.fitted)
    _timed(out, "Tables 3 and D.2: TPU v4, held out of the fit", report.held_out)
    _gpus(out, report)
    _memory(out, report)


def print_rows(out: "Console", rows: "Sequence[PaperRow]") -> None:
    """The conclusions: paper, ours, verdict."""
    from .text import table

    made = table("row", "paper", "ours", "verdict")
    for column in (made.columns[1], made.columns[2]):
        column.no_wrap, column.ratio = False, 1
    made.expand = True
    for row in rows:
        made.add_row(row.id, row.paper, row.ours, row.verdict)
    _titled(out, "Conclusions; in brackets the paper's times", made)


def _titled(out: "Console", title: str, made: "Table", *notes: str) -> None:
    """A table between its title and its notes."""
    out.print(title, highlight=False)
    out.print(made)
    for note in notes:
        out.print(note, highlight=False)
    out.print()


def _grouped(out: "Console", title: str, first: str, rows: "Sequence[Compared]", shape: str) -> None:
    """The largest error of each group."""
    from ...validate.compared import largest_error
    from .text import table

    made = table(first, "points", "largest error", right=("points", "largest error"))
    for group in dict.fromkeys(row.group for row in rows):
        same = [row for row in rows if row.group == group]
        made.add_row(group, str(len(same)), shape.format(largest_error(same)))
    _titled(out, title, made)


def _plain(out: "Console", title: str, first: str, rows: "Sequence[Compared]") -> None:
    from .text import table

    made = table(first, "published", "ours", "error", right=("published", "ours", "error"))
    for row in rows:
        made.add_row(row.id, f"{row.published:,.0f}", f"{row.ours:,.0f}", f"{row.error:+.2%}")
    _titled(out, title, made)


def _timed(out: "Console", title: str, errors: "ErrorTable") -> None:
    from ...hardware_specs.units import format_seconds
    from .text import table

    made = table("row", "published", "ours", "error", right=("published", "ours", "error"))
    for row in errors.rows:
        made.add_row(row.id, format_seconds(row.published), format_seconds(row.ours), f"{row.error:+.1%}")
    _titled(out, title, made, _summary(errors))


def _summary(errors: "ErrorTable") -> str:
    told = f"median error {errors.median_abs_error:.1%}, worst {errors.worst_abs_error:.1%}; prices {errors.origin}"
    return (
        told if errors.n_within is None else f"{told}; {errors.n_within} of {len(errors.rows)} inside the 90 % interval"
    )


def _gpus(out: "Console", report: "Reproduction") -> None:
    """One line a batch: each deployment's prediction and published time, and whether their order agrees."""
    from ...hardware_specs.units import format_seconds
    from .text import table

    rows = report.fastertransformer.rows
    groups = list(dict.fromkeys(row.group for row in rows))
    made = table("batch", *groups, "order", right=("batch", *groups))
    for order in report.fastertransformer_order:
        same = {row.group: row for row in rows if row.id == f"batch {order.batch}"}
        cells = (f"{format_seconds(same[g].ours)} ({format_seconds(same[g].published)})" for g in groups)
        made.add_row(str(order.batch), *cells, "right" if order.same else "wrong")
    title = "Table D.2: MT-NLG on A100 under FasterTransformer, ours (published)"
    note = "constants of a fit on one node; the network between nodes at its bound"
    _titled(out, title, made, _summary(report.fastertransformer), note)


def _memory(out: "Console", report: "Reproduction") -> None:
    from ...hardware_specs.units import format_bytes
    from .text import table

    made = table("in/out", "batch", "published", "needs", "may use", "agrees", right=("batch", "needs", "may use"))
    for row in report.out_of_memory:
        made.add_row(
            f"{row.input}/{row.output}",
            str(row.batch),
            "ran out" if row.ran_out else "ran",
            format_bytes(row.needs_bytes),
            format_bytes(row.limit_bytes),
            "yes" if row.same else "no",
        )
    _titled(out, "Tables D.3 and D.4: FasterTransformer TP16 on A100, out of memory", made)
