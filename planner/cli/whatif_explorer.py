"""``shardwise whatif --interactive``: the explorer as one file."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from ..result import Objective
from .options import cores

# More sheets than this are computed once the user says so: about a minute and ten megabytes.
_MANY_SHEETS = 200
# What a page chooses by itself, by its option.
_CHOSEN = {
    "prefill": "--prefill",
    "decode": "--decode",
    "tp": "--tp",
    "pp": "--pp",
    "dp": "--dp",
    "prefill_batch": "--prefill-batch",
    "decode_batch": "--decode-batch",
}


def write_interactive(
    base: str,
    on: str | None,
    vary: Sequence[str],
    *,
    rank: int,
    objective: Objective | None,
    yes: bool,
    given: Mapping[str, Any],
    out: Path | None,
    command: str,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Compute the grid and write the page; where it is, on stdout."""
    from rich.console import Console
    from rich.progress import Progress

    from ...hardware_specs.errors import SpecError
    from ..explorer.around import explored
    from ..explorer.page import write_explorer
    from ..whatif.ask import base_question
    from ..whatif.vary import parse_vary

    if out is None or out.suffix.lower() != ".html":
        raise SpecError("--interactive writes a page: name it with -o, e.g. -o explorer.html")
    chosen = [option for field, option in _CHOSEN.items() if given[field] is not None]
    if chosen:
        raise SpecError(f"--interactive leaves {chosen[0]} to the page, which chooses it again; leave it out")
    made = explored(base_question(base, on, rank, given), parse_vary(vary), objective)
    n_sheets = made.offer.n_questions
    if n_sheets > _MANY_SHEETS and not yes:
        raise SpecError(
            f"{made.offer.product} = {n_sheets:,} sheets, more than {_MANY_SHEETS}; vary less, or pass --yes"
        )
    started = time.perf_counter()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sheets", total=n_sheets)
        write_explorer(
            made.offer,
            made.start,
            out,
            made_by=command,
            jobs=cores() if jobs is None else jobs,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    n_bytes = out.stat().st_size
    wall_s = time.perf_counter() - started
    if as_json:
        typer.echo(json.dumps({"file": str(out), "n_sheets": n_sheets, "bytes": n_bytes, "wall_s": wall_s}))
    else:
        typer.echo(f"{out}: {n_sheets} sheets, {n_bytes / 1e6:.1f} MB; open it in a browser, offline")
    typer.echo(f"computed in {wall_s:.1f} s", err=True)
