"""Charts as files: pages by `figures`, with the command that made them and where the numbers come from."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..charts.values import AnyChart


def check_plot(path: Path | None) -> None:
    """Refuse a picture that cannot be made or written, before any work is done."""
    if path is None:
        return
    from ..figures import check_picture
    from .text import check_writable

    check_writable(path)
    check_picture(path)


def write_plot(path: Path, title: str, charts: "Sequence[AnyChart]", *, command: str = "") -> None:
    """Write charts as one page that loads nothing, or the first of them as a picture."""
    from ..figures import Page, write_charts
    from ..version import __version__

    page = Page(title=title, lead=(), charts=tuple(charts), command=command, provenance={"shardwise": __version__})
    write_charts(page, path)
    typer.echo(f"wrote {path}", err=True)


def command_of(context: typer.Context) -> str:
    """The command line that was run, with what differs from the defaults.

    Options are named by their first spelling, so the same question always reads the same.
    """
    words = ["shardwise", context.info_name or ""]
    given = context.params
    for parameter in context.command.params:
        value = given.get(parameter.name or "")
        if value is None or value == parameter.default or value == ():
            continue
        if parameter.param_type_name == "argument":
            words.insert(2, str(value))
        elif isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            for one in value if isinstance(value, list | tuple) else (value,):
                words += [parameter.opts[0], str(one)]
    return shlex.join(words)


def csv_text(columns: "Mapping[str, Sequence[object]]") -> str:
    """Columns as CSV, blank where there is no value."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
