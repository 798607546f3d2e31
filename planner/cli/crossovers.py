"""``shardwise reproduce crossovers``: claims of papers about architectures beside what is predicted."""

import dataclasses
import json

import typer

from ..crossovers.every import CROSSOVERS
from ..crossovers.values import Check, Crossover
from .text import console, table


def print_crossovers(*, as_json: bool) -> None:
    """Work every crossover out and print its claims.

    Raises
    ------
    typer.Exit : 1 where a prediction differs and nothing says why
    """
    found = [work_out() for work_out in CROSSOVERS.values()]
    if as_json:
        typer.echo(json.dumps([_document(each) for each in found], indent=1))
    else:
        _print(found)
    failed = [row.claim.id for each in found for row in each.checks if row.judgement == "differs" and not row.claim.why]
    if failed:
        typer.echo(f"{len(failed)} claims differ: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _document(found: Crossover) -> dict[str, object]:
    checks = [row.claim.model_dump() | {"ours": row.ours, "judgement": row.judgement} for row in found.checks]
    return dataclasses.asdict(dataclasses.replace(found, checks=())) | {"checks": checks}


def _print(found: list[Crossover]) -> None:
    out = console()
    made = table("claim", "of", "measure", "published", "ours", "judged", right=("published", "ours"))
    for column in made.columns[:3]:
        column.no_wrap, column.ratio = False, 1
    made.expand = True
    for each in found:
        for row in each.checks:
            claim = row.claim
            made.add_row(claim.says, claim.citation, claim.measure, _published(row), f"{row.ours:.4g}", row.judgement)
    out.print(made)
    for row in (row for each in found for row in each.checks if row.claim.why and row.judgement != "holds"):
        out.print(f"{row.claim.id}: {row.claim.why}", highlight=False)


def _published(row: Check) -> str:
    claim = row.claim
    if claim.low is None or claim.high is None:
        return "-"
    return f"{claim.low:.4g}" if claim.low == claim.high else f"{claim.low:.4g} to {claim.high:.4g}"
