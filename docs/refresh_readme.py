"""Run every command the README shows and put what it prints, and the tables made from it, back into the file.

A line ``<!-- command: shardwise ... -->`` stands before the fenced block that shows it with its output; ``| head -N`` at
its end keeps the first lines. A line ``<!-- table: NAME -->`` stands before a table that is made here.
"""

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shardwise.validate.compared import Compared

README = Path(__file__).resolve().parent.parent / "README.md"
_BLOCK = re.compile(
    r"<!-- command: (?P<command>shardwise .+?) -->\n```text\n\$ (?P=command)\n(?P<output>.*?)```\n"
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


class _Group(NamedTuple):
    """Published times of one kind beside the predictions; `within` counts those inside the fit's interval."""

    name: str
    rows: tuple["Compared", ...]
    within: int | None
    is_fitted_on: bool


@cache
def _groups() -> tuple[_Group, ...]:
    from shardwise.hardware_specs.catalogue import get_chip
    from shardwise.simulator.cost.calibrated import calibration_of
    from shardwise.simulator.cost.fit import predict_case_s
    from shardwise.validate.cases import fastertransformer_cases, is_holdout
    from shardwise.validate.compared import compared
    from shardwise.validate.reproduce import reproduce_pope2022

    report = reproduce_pope2022()
    calibration = calibration_of(get_chip("a100-80gb-sxm"), "fastertransformer")
    held_out = tuple(
        compared(case.id, case.source, "", "s", case.measured_s, predict_case_s(case, calibration.engine))
        for case in fastertransformer_cases()
        if is_holdout(case.id)
    )
    spread = calibration.interval_log or 0.0
    within = sum(abs(math.log(row.ours / row.published)) <= spread for row in held_out)
    nodes = tuple(
        row.model_copy(update={"id": f"MT-NLG 530B {row.group}, {row.id}"}) for row in report.fastertransformer.rows
    )
    return (
        _Group("A100, MT-NLG 530B over 2 to 4 nodes: Pope2022 Table D.2", nodes, None, False),
        _Group("A100, GPT-20B on one node, held out: FasterTransformer", held_out, within, False),
        _Group("TPU v4, held out: Pope2022 Tables 3, D.2", report.held_out.rows, report.held_out.n_within, False),
        _Group("TPU v4, fitted on: Pope2022 Figures 6, 7, Table 2", report.fitted.rows, report.fitted.n_within, True),
    )


def engines_table() -> str:
    """Every engine's runs that its fit did not see, and how far off they are; worst first."""
    from shardwise.simulator.cost.calibrated import load_engine_fits
    from shardwise.validate.cases import is_holdout

    found = []
    for fit in load_engine_fits().values():
        errors = [math.expm1(abs(row.log_ratio)) for row in fit.residuals if is_holdout(row.id)]
        if fit.chip or not errors:
            continue
        chips = len(fit.residuals) - len(errors)
        found.append((median(errors), fit.engine, chips, len(errors), math.exp(fit.interval_log)))
    lines = [
        "| engine | runs fitted | runs held out | median error | 90 % interval |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for error, engine, n_fitted, n_held, spread in sorted(found, reverse=True):
        lines.append(f"| {engine} | {n_fitted} | {n_held} | {error:.3f} | / {spread:.2f} to x {spread:.2f} |")
    return "\n".join(lines) + "\n"


def kernels_table() -> str:
    """Median errors of kernels whose shapes no fit saw, by chip and software stack."""
    from shardwise.simulator.cost.calibrated import STACKS
    from shardwise.simulator.cost.kernel_times import shipped_kernel_fit

    columns = {
        "matmul": ("matmul", ""),
        "prefill attention": ("prefill attention", ""),
        "decode attention": ("decode attention", ""),
        "all-reduce": ("collective", "all_reduce"),
        "all-gather": ("collective", "all_gather"),
        "experts": ("moe", ""),
    }
    lines = [f"| chip, stack | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for chip in ("a100-80gb-sxm", "h100-sxm", "h200-sxm", "b200", "l40s"):
        for stack in STACKS:
            fit = shipped_kernel_fit(chip, stack)
            if fit is None:
                continue
            cells = []
            for op, variant in columns.values():
                errors = [f.median_error for f in fit.families if f.op == op and variant in ("", f.variant)]
                cells.append(f"{min(errors):.3f} - {max(errors):.3f}" if errors else "-")
            lines.append(f"| {chip}, {stack} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def accuracy_table(n_rows: int = 4) -> str:
    """Of each group that no constant was fitted on, the times that are missed by most; worst first."""
    rows = [
        row
        for group in _groups()
        if not group.is_fitted_on
        for row in sorted(group.rows, key=lambda row: -abs(row.error))[:n_rows]
    ]
    lines = ["| case | measured | predicted | error | source |", "| --- | ---: | ---: | ---: | --- |"]
    for row in sorted(rows, key=lambda row: -abs(row.error)):
        source = row.source if row.source.startswith(("Pope", "Faster")) else f"Pope2022 {row.source}"
        lines.append(f"| {row.id} | {_seconds(row.published)} | {_seconds(row.ours)} | {row.error:+.3f} | {source} |")
    return "\n".join(lines) + "\n"


def accuracy_summary_table() -> str:
    """Each group of published times, and how far off the predictions are; worst first."""
    lines = [
        "| group | rows | median error | worst error | in the 90 % interval |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for group in sorted(_groups(), key=lambda group: -median(abs(row.error) for row in group.rows)):
        errors = [abs(row.error) for row in group.rows]
        within = "extrapolated" if group.within is None else f"{group.within} of {len(errors)}"
        lines.append(f"| {group.name} | {len(errors)} | {median(errors):.3f} | {max(errors):.3f} | {within} |")
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
    "engines": engines_table,
    "kernels": kernels_table,
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
            return f"<!-- command: {match['command']} -->\n```text\n$ {match['command']}\n{made(match['command'])}```\n"
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
