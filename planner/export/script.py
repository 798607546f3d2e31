"""Shell scripts: a head that says what was planned and predicted, and commands with a flag a line."""

import shlex
from collections.abc import Sequence

from ...hardware_specs.units import format_seconds
from ..result import PhasePlan
from .cut import Cut
from .flags import FlagTable, Raw
from .launch import Launch, Servers

_WIDTH = 110
# What every host of a server but the first is started with besides.
HEADLESS = Raw("${headless[@]}")


def head(launch: Launch, table: FlagTable, notes: Sequence[str]) -> list[str]:
    """Comments: the plan, what was predicted of it with its interval, and what the engine does otherwise."""
    lines = [*_plan(launch), *predicted(launch, table), *(f"note: {note}" for note in notes)]
    return [part for line in lines for part in wrapped(line)]


def wrapped(line: str) -> list[str]:
    """A comment, over several lines where it is long."""
    made, rest = [], line
    while len(rest) > _WIDTH and (at := rest.rfind(" ", 0, _WIDTH)) > 0:
        made.append(f"# {rest[:at]}")
        rest = f"  {rest[at + 1 :]}"
    return [*made, f"# {rest}"]


def _plan(launch: Launch) -> list[str]:
    parts = []
    for servers in launch.servers:
        phase, what = servers.phase, "" if servers.role == "both" else f" for {servers.role}"
        layouts = " and ".join(dict.fromkeys(part.layout for part in servers.phases))
        parts.append(
            f"{servers.n_replicas} x {servers.replica_chips} chips of {phase.slice}{what} (tp {phase.tp}, pp {phase.pp}, "
            f"ep {phase.ep}; {layouts})"
        )
    work = launch.work
    return [
        f"{launch.model}: {' and '.join(parts)}; {work.input_tokens} tokens in, {work.output_tokens} out, "
        f"weights {launch.weights}, cache {launch.decode.kv_dtype}"
    ]


def predicted(launch: Launch, table: FlagTable | None = None) -> list[str]:
    """What was predicted, for an engine where it is named, with the 90 % interval where there is one."""
    plan = launch.plan
    prefill, decode = plan.prefill, plan.decode
    lines = [
        f"predicted{f' for {table.name}' if table else ''} (priced as {decode.engine}), low - high at 90 %: a pass of prefill "
        f"of {prefill.batch} "
        f"{seconds(prefill)}, a decode step of {decode.batch} {seconds(decode)}"
    ]
    load = launch.under_load
    if load is not None:
        times = [f"TTFT p50 {format_seconds(load.ttft_p50_s)}, p99 {format_seconds(load.ttft_p99_s)}"]
        if load.tpot_p50_s is not None and load.tpot_p99_s is not None:
            times.append(f"TPOT p50 {format_seconds(load.tpot_p50_s)}, p99 {format_seconds(load.tpot_p99_s)}")
        lines.append(f"simulated at {load.rate_per_s:.4g} requests/s: {', '.join(times)}")
    return lines


def seconds(phase: PhasePlan) -> str:
    """A pass with its interval: as far around it as the phase's is around the phase."""
    if not phase.latency_s:
        return format_seconds(phase.step_s)
    low = phase.step_s * phase.latency_low_s / phase.latency_s
    if phase.latency_high_s is None:
        return f"{format_seconds(phase.step_s)} (from {format_seconds(low)}, no upper end is known)"
    high = phase.step_s * phase.latency_high_s / phase.latency_s
    return f"{format_seconds(phase.step_s)} ({format_seconds(low)} - {format_seconds(high)})"


def command(words: Sequence[str], *, first: int | None = None) -> list[str]:
    """A command as lines: its first words, up to the first long flag unless said, then a flag and its value a line."""
    if first is None:
        first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    groups: list[list[str]] = [list(words[:first])]
    for word in words[first:]:
        if word.startswith("--") or word == HEADLESS:
            groups.append([word])
        else:
            groups[-1].append(word)
    lines = [" ".join(quoted(word) for word in group) for group in groups]
    return " \\\n  ".join(lines).split("\n")


def how_many(cuts: Sequence[tuple[Servers, Cut]], launch: Launch) -> list[str]:
    """Comments: how many servers of each kind there are, and where the script is run."""
    lines = []
    for servers, cut in cuts:
        what = "" if servers.role == "both" else f"ROLE={servers.role}: "
        chips = f"{cut.n_chips} chip" + ("s" if cut.n_chips > 1 else "")
        copies = "1 server" if cut.n_servers == 1 else f"{cut.n_servers} servers, each"
        lines.append(f"# {what}{copies} of {chips}" + (f" on {cut.hosts} hosts" if cut.hosts > 1 else ""))
    if any(cut.n_servers > 1 and cut.n_chips < servers.host_chips for servers, cut in cuts):
        lines.append(
            "# servers on one host see chips of their own (CUDA_VISIBLE_DEVICES) and listen on ports of their own"
        )
    if not launch.is_split and any(cut.n_servers > 1 for _, cut in cuts):
        lines.append("# a router in front of the servers spreads the requests")
    return lines


def roles(lines: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """One branch for each role the script is run in, as its environment names it."""
    names = [name for name, _ in lines]
    known = f"{', '.join(names[:-1])} or {names[-1]}"
    made = [f'case "${{ROLE:?{known}}}" in']
    for name, body in lines:
        made += [f"{name})", *body, ";;"]
    return [*made, f'*) echo "ROLE is {known}" >&2; exit 2 ;;', "esac"]


def quoted(word: str) -> str:
    """A word as the shell reads it back."""
    return f'"{word}"' if isinstance(word, Raw) else shlex.quote(word)


def script(comments: Sequence[str], body: Sequence[str]) -> str:
    """A whole script."""
    return "\n".join(["#!/usr/bin/env bash", *comments, "set -euo pipefail", *body]) + "\n"
