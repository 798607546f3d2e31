"""Fits of kernels: from the published database of measured kernels, or from what this machine measures."""

import contextlib
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    import pandas as pd

    from ...hardware_specs.chip import Chip
    from ...hardware_specs.measurement import Measurement
    from ...simulator.cost.calibrated import Fit
    from ...simulator.cost.kernel_runs import FitRun
    from ...simulator.cost.kernel_times import KernelFit

Device = Literal["cpu", "cuda"]
DATABASE = "aiconfigurator"


def import_kernels(chips: Sequence[str], output: Path | None, *, again: bool) -> "tuple[KernelFit, ...]":
    """Fit every stack of the chips to the database; what is finished stands, unless `again` or written elsewhere.

    Raises
    ------
    SpecError : the database is not installed or lacks a chip, the folder cannot be written
    """
    from ...hardware_specs.catalogue import get_chip
    from ...hardware_specs.errors import SpecError
    from ...hardware_specs.kernel_database import imported_frameworks
    from ...hardware_specs.kernel_package import CHIPS, SOURCE
    from ...simulator.cost.user_fits import finished_fit, kernel_fit_path, kernel_fits_folder

    if output is not None and not output.is_dir():
        raise SpecError(f"{output} is no folder; each chip and stack gets a file of its own in one")
    folder = output or kernel_fits_folder()
    fits = []
    for name in dict.fromkeys([get_chip(name).name for name in chips] or CHIPS):
        paths = {stack: kernel_fit_path(folder, name, stack) for stack in imported_frameworks(name)}
        keeps = output is None and not again
        found = {stack: finished_fit(path, source=SOURCE) if keeps else None for stack, path in paths.items()}
        for stack, fit in found.items():
            if fit is not None:
                typer.echo(f"{name} under {stack}: finished before, {paths[stack]}; --again fits it anew", err=True)
        missing = tuple(stack for stack, fit in found.items() if fit is None)
        made = _import_chip(name, missing, folder) if missing else {}
        fits += [fit or made[stack] for stack, fit in found.items() if fit is not None or stack in made]
    return tuple(fits)


def _import_chip(name: str, stacks: Sequence[str], folder: Path) -> "dict[str, KernelFit]":
    """Read, check and fit the kernels of one chip."""
    from ...hardware_specs.catalogue import get_chip
    from ...hardware_specs.kernel_database import imported_frame
    from ...hardware_specs.kernel_package import SOURCE
    from ...simulator.cost.kernel_runs import FitRun
    from ...simulator.cost.stacks import stack_rows

    chip = get_chip(name)
    frame, refused = checked(chip, imported_frame(name))
    runs = [
        FitRun(
            chip=chip, rows=stack_rows(frame, stack), refused=_refused(refused, stack), source=SOURCE,
            command=f"shardwise calibrate --from {DATABASE} --chip {name}", folder=folder,
        )
        for stack in stacks
    ]  # fmt: skip
    return {run.rows.stack: fit_with_bar(run) for run in runs}


def checked(chip: "Chip", frame: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, Counter[str]]]":
    """Rows that may be true; why the others are refused is told by op, and counted for each framework."""
    import pandas as pd

    from ...simulator.cost.sanity import sane

    kept, refused = [], defaultdict[str, Counter[str]](Counter)
    for op, rows in frame.groupby("op", sort=False):
        told = Counter[str]()
        for framework, part in rows.groupby("framework", sort=False):
            good, reasons = sane(chip, part)
            kept.append(good)
            told.update({f"{framework}, {reason}": n for reason, n in reasons.items()})
            refused[str(framework)].update({f"{op}: {reason}": n for reason, n in reasons.items()})
        reasons_ = "".join(f"; {reason}: {n:,}" for reason, n in told.most_common())
        typer.echo(f"{chip.name} {op}: {len(rows) - told.total():,} of {len(rows):,} rows stand{reasons_}", err=True)
    return (pd.concat(kept, ignore_index=True) if kept else frame), refused


def _refused(refused: "dict[str, Counter[str]]", stack: str) -> Counter[str]:
    """Of a stack and of the libraries beside it."""
    from ...simulator.cost.stacks import LIBRARIES

    return sum((refused.get(framework, Counter()) for framework in (stack, *LIBRARIES)), Counter[str]())


def fit_with_bar(run: "FitRun") -> "KernelFit":
    """Fit one stack with a progress bar on stderr, and write it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ...simulator.cost.kernel_runs import run_fit
    from ...simulator.cost.kernel_times import read_kernel_fit

    about = f"{run.chip.name} under {run.rows.stack}"
    for reason, n in run.rows.left_out.items():
        typer.echo(f"{about}: left out, {reason}: {n:,}", err=True)
    for sentence in run.lacking:
        typer.echo(f"{about}: too few for a fit, {sentence}", err=True)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(about, total=run.n_families)
        started = 0

        def advance(family: str) -> None:
            nonlocal started
            bar.update(task, completed=started, description=f"{about}: {family}")
            started += 1

        path = run_fit(run, advance)
    typer.echo(f"wrote {path}", err=True)
    return read_kernel_fit(path.read_text("utf-8"), str(path))


def measure_kernels(device: Device, output: Path | None) -> "tuple[tuple[Fit, ...], tuple[KernelFit, ...]]":
    """Time the kernels of this machine, going on where it stopped, and fit what has rows enough.

    On a CPU the steps of our executor are timed too, where they run, and what it adds to them is fitted.

    Raises
    ------
    SpecError : torch is missing or sees no such device, its chip is in no catalogue, too few rows for any fit
    """
    from ...hardware_specs.catalogue import get_chip
    from ...hardware_specs.errors import SpecError
    from ...hardware_specs.kernel_rows import kernel_frame
    from ...hardware_specs.measurement import read_measurements
    from ...simulator.cost.kernel_runs import FitRun
    from ...simulator.cost.stacks import stack_rows, stacks_of
    from ...simulator.cost.user_fits import kernel_fits_folder, measured_path

    path = measured_path(device)
    _bench(device, path)
    if device == "cpu":
        _bench_executor(path)
    measured = read_measurements(path.read_text("utf-8").splitlines(), str(path))
    frame = kernel_frame(measured)
    fits, lacking = [], []
    for name, rows in frame.groupby("chip"):
        chip = get_chip(str(name))
        good, refused = checked(chip, rows)
        for stack in stacks_of(good):
            run = FitRun(
                chip=chip, rows=stack_rows(good, stack), refused=_refused(refused, stack), source=str(path),
                command=f"shardwise calibrate --device {device}", folder=output or kernel_fits_folder(),
            )  # fmt: skip
            lacking += [f"{chip.name} under {stack}, {sentence}" for sentence in run.lacking]
            fits += [fit_with_bar(run)] if run.n_families else []
    if not fits:
        told = "; ".join(lacking) or "none of a kernel that is fitted"
        raise SpecError(f"too few measured rows for a fit: {told}. They are kept in {path}")
    return _fit_executor(fits, measured, output) if device == "cpu" else (), tuple(fits)


def _bench_executor(path: Path) -> None:
    """Time the steps of our executor into the same file; its progress is told on stderr."""
    from ...hardware_specs.cpu_host import NAME
    from ...hardware_specs.errors import SpecError
    from ...validate.execute import bench
    from ...validate.execute.ranks import RankFailedError

    try:
        bench.measure(path, NAME, lambda said: typer.echo(f"executor, {said}", err=True))
    except RankFailedError as error:
        raise SpecError(f"the executor could not be timed: {error}") from None


def _fit_executor(
    kernels: "Sequence[KernelFit]", measured: "Sequence[Measurement]", output: Path | None
) -> "tuple[Fit, ...]":
    """Fit what the executor adds to its steps, and write it beside the fit of those."""
    from ...hardware_specs.catalogue import get_chip
    from ...hardware_specs.documents import write_atomically
    from ...simulator.cost.calibrated import dump_fit
    from ...simulator.cost.user_fits import engine_fits_folder
    from ...validate.execute.bench import STACK
    from ...validate.execute.bench_fit import fit_executor

    fits = [fit_executor(get_chip(fit.chip), fit, measured) for fit in kernels if fit.stack == STACK]
    for fit in fits:
        folder = output or engine_fits_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{fit.chip}.{fit.engine}.yaml"
        write_atomically(path, dump_fit(fit))
        typer.echo(f"wrote {path}", err=True)
    return tuple(fits)


def _bench(device: Device, path: Path) -> None:
    """Run the bench of kernels into a file; its rows are told on stderr, as stdout is for results."""
    from ...hardware_specs.errors import SpecError

    try:
        from ...kernels import bench
    except ModuleNotFoundError as error:
        raise SpecError(f"measuring kernels needs {error.name}: pip install 'shardwise[kernels]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            code = bench.main(["--device", device, "--output", str(path)])
        except SystemExit:
            raise SpecError(f"kernels cannot be measured on {device} here") from None
    if code:
        typer.echo("some kernels could not be measured; the others are kept", err=True)


def show_kernel_fits(fits: "Sequence[KernelFit]") -> None:
    """Families of each fit with rows, median error of the rows held out and interval, the worst first."""
    import math

    from .text import console, table

    out = console()
    for fit in fits:
        out.print(f"{fit.chip} under {fit.stack}, from {fit.source}\nmade by: {fit.command}\n", highlight=False)
        rows = table("kernels", "rows", "judged on", "error", "90 %", right=("rows", "judged on", "error", "90 %"))
        for family in sorted(fit.families, key=lambda family: -family.median_error):
            name = " ".join(filter(None, (family.variant, family.op, family.kv)))
            spread = f"x {math.exp(family.interval_log):.3f}"
            rows.add_row(name, f"{family.n_rows:,}", f"{family.n_held_out:,}", f"{family.median_error:.1%}", spread)
        out.print(rows)
        for reason, n in fit.refused.items():
            out.print(f"refused, {reason}: {n:,}", highlight=False, soft_wrap=True)
        out.print()
