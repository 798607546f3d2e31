"""Plans as tables of 80 columns on stdout, and the talk about them on stderr."""

import os
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...hardware_specs.errors import SpecError
from ...hardware_specs.units import format_bytes, format_seconds
from ...models.hf.reader import import_model
from ...models.layouts import LAYOUTS
from ...models.paths import path_of
from ..build import bound_seconds
from ..result import Objective, PhasePlan, Plan, PlanResult, Source

_WIDTH = 80


def console() -> Console:
    """Stdout, 80 columns wide unless the terminal is wider."""
    out = Console()
    return Console(width=max(_WIDTH, out.width)) if out.is_terminal else Console(width=_WIDTH)


def table(*columns: str, title: str | None = None, right: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Table:
    """A plain table; the columns named in `right` hold numbers, those and the ones in `whole` are never cut, the others wrap."""
    made = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False
    )
    for name in columns:
        made.add_column(
            name, justify="right" if name in right else "left", no_wrap=name in right + whole, overflow="fold"
        )
    return made


def objective_of(text: str | None) -> Objective | None:
    """The objective by name."""
    for known in ("latency", "cost", "throughput"):
        if text == known:
            return known
    if text is None:
        return None
    raise SpecError(f"objective {text!r} is unknown; choose latency, cost or throughput")


def say_unknown_fields(model: str) -> None:
    """Tell what a Hugging Face config has that nobody knows, where a model is named by one."""
    path = path_of(model)
    if path is None or path.suffix in (".yaml", ".yml"):
        return
    if unknown := import_model(str(path)).unknown_fields:
        typer.echo(f"unknown fields of {path}, which changed nothing: {', '.join(unknown)}", err=True)


def refuse_path(model: str) -> None:
    """Refuse a model that is a file where a page asks for models by name."""
    if path_of(model) is not None:
        raise SpecError(
            f"a page knows the models of the catalogue by name, {model} is a file; plan, estimate and whatif take it"
        )


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written before any work is done."""
    folder = path.parent
    if not folder.is_dir() or path.is_dir() or not os.access(folder, os.W_OK):
        raise SpecError(f"cannot write {path}: {folder} must be a folder that may be written to")


def _mesh(phase: PhasePlan) -> str:
    """Mesh sizes; for one axis its tp, or what shares a batch out; stages and replicas outside."""
    mesh = phase.mesh
    flat = mesh.y == mesh.z == 1
    shared = "x" in LAYOUTS[phase.ffn].data_axes
    inside = f"{'dp' if shared else 'tp'}{phase.tp}" if flat else f"{mesh.x}x{mesh.y}x{mesh.z}"
    return inside + "".join(f" {name}{n}" for name, n in (("pp", phase.pp), ("dp", phase.dp)) if n > 1)


def _share(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _interval(phase: PhasePlan) -> str:
    """Both ends in the unit of the upper one."""
    if phase.latency_high_s is None:
        return f"{format_seconds(phase.latency_low_s)} - ?"
    high, unit = format_seconds(phase.latency_high_s).split(" ")
    scale = float(high) / phase.latency_high_s if phase.latency_high_s else 0.0
    return f"{phase.latency_low_s * scale:.3g} - {high} {unit}"


def print_lines(lines: list[tuple[str, str]]) -> None:
    """What is said beside what it is about, wrapped."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for what, said in lines:
        grid.add_row(what, said)
    console().print(grid, highlight=False)


def print_result(result: PlanResult) -> None:
    """The plans, two lines each: prefill and decode."""
    if not result.plans:
        return
    work = result.workload
    out = console()
    out.print(
        f"{result.model} on {result.on}, {work.input_tokens} tokens in, {work.output_tokens} out; best by {result.objective}",
        soft_wrap=True,
        highlight=False,
    )
    out.print(phases_table(result.plans))
    best = result.plans[0]
    out.print(_best(best) if work.output_tokens else _best_of_reading(best), highlight=False)
    if best.handoff_s is None:
        out.print(
            "the cache's way between the slices is not priced: no network between them is claimed", highlight=False
        )


def phases_table(plans: tuple[Plan, ...], title: str | None = None) -> Table:
    """How plans cut the model, two lines each."""
    columns = ("#", "phase", "layout", "mesh", "batch", "latency", "low - high", "MFU")
    made = table(*columns, right=columns[4:], title=title)
    for plan in plans:
        for phase in (plan.prefill, plan.decode) if plan.decode.breakdown else (plan.prefill,):
            first = phase is plan.prefill
            made.add_row(
                str(plan.rank) if first else "",
                phase.phase,
                phase.layout.removeprefix("ws-1d-"),
                _mesh(phase),
                str(phase.batch),
                format_seconds(phase.latency_s),
                _interval(phase),
                _share(phase.mfu),
            )
    return made


def _best(best: Plan) -> str:
    price = (
        "no price known"
        if best.usd_per_mtok_output is None
        else f"${best.usd_per_mtok_output:.2f} per million output tokens"
    )
    return (
        f"best: {best.chip_s_per_request:.4g} chip-s a request, {best.output_tokens_per_s:.4g} output tokens/s, {price}; "
        f"TTFT {format_seconds(best.prefill.step_s)}, TPOT {format_seconds(best.decode.step_s)}; priced by "
        f"{origin(best.decode)}"
    )


def _best_of_reading(best: Plan) -> str:
    """Of a model that generates nothing."""
    dollars = best.prefill.usd_per_mtok
    price = "no price known" if dollars is None else f"${dollars:.2g} per million input tokens"
    return (
        f"best: {best.chip_s_per_request:.4g} chip-s a request, {price}; a pass takes {format_seconds(best.prefill.step_s)}; "
        f"priced by {origin(best.prefill)}"
    )


def load_table(plans: tuple[Plan, ...]) -> Table:
    """Plans under simulated traffic."""
    loads = [(plan.rank, plan.n_chips, plan.under_load) for plan in plans if plan.under_load is not None]
    columns = ("#", "chips", "TTFT p50", "p99", "TPOT p50", "p99", "in limits", "most req/s")
    made = table(*columns, right=columns, title=f"\nunder {loads[0][2].rate_per_s:.4g} requests/s (Poisson), simulated")
    for rank, n_chips, load in loads:
        times = (load.ttft_p50_s, load.ttft_p99_s, load.tpot_p50_s, load.tpot_p99_s)
        shown = ("-" if value is None else format_seconds(value) for value in times)
        made.add_row(str(rank), str(n_chips), *shown, f"{load.within_slo:.3f}", f"{load.highest_rate_per_s:.4g}")
    return made


def origin(phase: PhasePlan) -> str:
    """What a phase was priced by, in words."""
    sources = {step.source for step in phase.breakdown}
    words = {
        "fitted": f"a fit of {phase.chip}",
        "extrapolated": f"a fit of another chip or engine, extrapolated to {phase.chip}",
        "bound": "the roofline bound",
    }
    said = " and ".join(words[source] for source in ("fitted", "extrapolated", "bound") if source in sources)
    return said if phase.users_own is None else f"{said}, over {phase.users_own}"


def print_refusals(result: PlanResult) -> None:
    """What was tried and what was refused, counted, on stderr."""
    typer.echo(f"{result.n_candidates:,} candidates priced in {result.wall_s:.2f} s", err=True)
    for reason, count in sorted(result.rejected.items(), key=lambda item: -item[1]):
        typer.echo(f"  refused {count:>9,}: {reason}", err=True)
    if result.nearest_miss is not None:
        typer.echo(f"no feasible plan: {result.nearest_miss}", err=True)


def print_phases(plan: Plan) -> None:
    """Where the time and the memory of each phase go."""
    out = console()
    for phase in (plan.prefill, plan.decode):
        if not phase.breakdown:
            continue
        out.print(phase_table(phase))
        memory = phase.memory
        parts = (
            ("weights", memory.weights),
            ("KV", memory.kv_cache),
            ("activations", memory.activations),
            ("gathered", memory.gathered),
        )
        text = ", ".join(f"{name} {format_bytes(value)}" for name, value in parts if value)
        out.print(
            f"memory a chip: {format_bytes(memory.total)} of {format_bytes(memory.limit)} ({text})", highlight=False
        )
        seconds = bound_seconds(phase.breakdown)
        share = ", ".join(f"{name} {value / sum(seconds.values()):.2f}" for name, value in seconds.items())
        out.print(f"bound by {phase.bound}; shares of the pass: {share}\n", highlight=False)


_SOURCES: dict[Source, str] = {"fitted": "fitted", "extrapolated": "extrap.", "bound": "bound"}


def phase_table(phase: PhasePlan, n_rows: int = 8) -> Table:
    """The steps that take longest, and the rest as one."""
    name = "one pass of prefill" if phase.phase == "prefill" else "one decode step"
    made = table(
        "step",
        "compute",
        "memory",
        "links",
        "fixed",
        "total",
        "source",
        title=f"{name}: {phase.layout}",
        right=("compute", "memory", "links", "fixed", "total"),
    )
    steps = sorted(phase.breakdown, key=lambda step: -step.total_s)
    for step in steps[:n_rows]:
        numbers = (step.compute_s, step.memory_s, step.comm_s, step.overhead_s, step.total_s)
        made.add_row(step.step, *(format_seconds(value) if value else "-" for value in numbers), _SOURCES[step.source])
    rest = sum(step.total_s for step in steps[n_rows:])
    made.add_row(f"{max(len(steps) - n_rows, 0)} more", "", "", "", "", format_seconds(rest) if rest else "-", "")
    return made
