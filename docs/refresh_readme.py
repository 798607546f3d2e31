"""Run every command the README shows and put what it prints, and the tables made from it, back into the file.

A line ``<!-- command: shardwise ... -->`` stands before the fenced block of its output; ``| head -N`` at its end keeps the first
lines. A line ``<!-- table: NAME -->`` stands before a table that is made here.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent.parent / "README.md"
_BLOCK = re.compile(
    r"<!-- command: (?P<command>shardwise .+?) -->\n```text\n(?P<output>.*?)```\n"
    r"|<!-- table: (?P<table>[\w-]+) -->\n(?P<rows>(?:\|[^\n]*\n)+)",
    re.DOTALL,
)
_HEAD = re.compile(r"(.*?)\s*\|\s*head -(\d+)")
_TERMINAL = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True, slots=True)
class Block:
    """One generated part of the README: what makes it, and its text as it stands there."""

    name: str
    text: str


@cache
def run(command: str) -> str:
    """Stdout of a command as a terminal of 80 columns shows it, without spaces at the ends of lines."""
    from shardwise.planner.cli import app
    from typer.testing import CliRunner

    head = _HEAD.fullmatch(command)
    words = shlex.split(head[1] if head else command)
    before = {name: os.environ.get(name) for name in _TERMINAL}
    os.environ.update(_TERMINAL)
    try:
        result = CliRunner().invoke(app, words[1:])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if result.exit_code != 0:
        raise RuntimeError(f"{command!r} ended with {result.exit_code}: {result.output}") from result.exception
    lines = [line.rstrip() for line in result.stdout.rstrip("\n").split("\n")]
    return "\n".join(lines[: int(head[2])] if head else lines) + "\n"


def _seconds(value: float) -> str:
    from shardwise.hardware_specs.units import format_seconds

    return format_seconds(value)


def accuracy_table(n_rows: int = 10) -> str:
    """The published times that the predictions miss by most, of those that no constant was fitted on; worst first."""
    from shardwise.validate.reproduce import reproduce_pope2022

    report = reproduce_pope2022()
    rows = [*report.held_out.rows, *report.fastertransformer.rows]
    lines = ["| case | measured | predicted | error | source |", "| --- | ---: | ---: | ---: | --- |"]
    for row in sorted(rows, key=lambda row: -abs(row.error))[:n_rows]:
        case = row.id if row.id not in {r.id for r in report.fastertransformer.rows} else f"MT-NLG {row.group} {row.id}"
        lines.append(
            f"| {case} | {_seconds(row.published)} | {_seconds(row.ours)} | {row.error:+.3f} "
            f"| {row.source.removeprefix('Pope2022 ')} |"
        )
    return "\n".join(lines) + "\n"


def accuracy_summary_table() -> str:
    """Each group of published times, and how far off the predictions are."""
    from shardwise.validate.reproduce import reproduce_pope2022

    report = reproduce_pope2022()
    lines = [
        "| group | rows | median error | worst error | in the 90 % interval |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    groups = {
        "TPU v4, not fitted on: Table 3, Table D.2": report.held_out,
        "TPU v4, fitted on: Figures 6 and 7, Table 2": report.fitted,
        "A100 under FasterTransformer, MT-NLG 530B over 2 to 4 nodes: Table D.2": report.fastertransformer,
    }
    for name, table in groups.items():
        within = "no fit" if table.n_within is None else f"{table.n_within} of {len(table.rows)}"
        lines.append(
            f"| {name} | {len(table.rows)} | {table.median_abs_error:.3f} | {table.worst_abs_error:.3f} | {within} |"
        )
    return "\n".join(lines) + "\n"


_PROBLEMS = (
    "llama-2-70b --on h100-sxm:8 --tp 8 --batch 1",
    "llama-2-70b --on h100-sxm:8 --tp 8 --batch 32",
    "llama-2-70b --on h100-sxm:8 --tp 8 --batch 64",
    "llama-3-8b --on h100-sxm:1 --batch 1",
    "llama-3-8b --on h100-sxm:1 --batch 32",
)


def _estimate(problem: str, *options: str) -> dict[str, Any]:
    command = shlex.join(
        ["shardwise", "estimate", *shlex.split(problem), "--input", "2048", "--output", "64", *options]
    )
    plan: dict[str, Any] = json.loads(run(f"{command} --json"))["plans"][0]
    return plan


def problems_table() -> str:
    """A decode step and a prefill of common deployments, and the same by the roofline alone."""
    lines = [
        "| `shardwise estimate ... --input 2048 --output 64` | prefill | roofline | decode step | roofline | low - high |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for problem in _PROBLEMS:
        predicted, bound = _estimate(problem), _estimate(problem, "--bound")
        decode = predicted["decode"]
        ends = [decode["step_s"] * decode[end] / decode["latency_s"] for end in ("latency_low_s", "latency_high_s")]
        times = [plan[phase]["step_s"] for phase in ("prefill", "decode") for plan in (predicted, bound)]
        shown = " | ".join(_seconds(time) for time in times)
        lines.append(f"| `{problem}` | {shown} | {_seconds(ends[0])} - {_seconds(ends[1])} |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "accuracy": accuracy_table,
    "accuracy-summary": accuracy_summary_table,
    "problems": problems_table,
}


def blocks(text: str) -> Iterator[Block]:
    """The generated parts of a text."""
    for match in _BLOCK.finditer(text):
        if match["command"]:
            yield Block(match["command"], match["output"])
        else:
            yield Block(match["table"], match["rows"])


def made(name: str) -> str:
    """What a generated part says today."""
    return run(name) if name.startswith("shardwise ") else TABLES[name]()


def refreshed(text: str) -> str:
    """The text with every generated part made anew."""

    def replaced(match: re.Match[str]) -> str:
        if match["command"]:
            return f"<!-- command: {match['command']} -->\n```text\n{made(match['command'])}```\n"
        return f"<!-- table: {match['table']} -->\n{made(match['table'])}"

    return _BLOCK.sub(replaced, text)


def main() -> None:
    """Rewrite the README where a number has moved."""
    before = README.read_text("utf-8")
    after = refreshed(before)
    README.write_text(after, "utf-8")
    sys.stderr.write("README.md is as it was\n" if after == before else "README.md has changed\n")


if __name__ == "__main__":
    main()
