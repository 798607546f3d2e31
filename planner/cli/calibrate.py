"""``shardwise calibrate``: fit a chip to measurements, and show what a fit leaves over."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .calibrate_engines import ENGINES, fit_engines
from .calibrate_kernels import DATABASE, import_kernels, measure_kernels, show_kernel_fits
from .options import Json

if TYPE_CHECKING:
    from ...simulator.cost.calibrated import Fit
    from ...simulator.cost.kernel_times import KernelFit


def calibrate(
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="Published measurements: pope2022, fastertransformer, engines, or aiconfigurator (kernels)."
        ),
    ] = None,
    chip: Annotated[
        list[str] | None,
        typer.Option("--chip", help="With --from aiconfigurator: only this chip (may be repeated)."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Time kernels on this machine: cpu or cuda.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the fit here: a file, for fits of kernels a folder."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Fit kernels anew that were finished before.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print constants and residuals, of the fits there are unless one is made.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --show: draw residuals and errors as an HTML page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a chip's constants to published measurements or to this machine's, or show the fits there are.

    Fits of kernels go into your own data directory unless -o names a folder; fits of constants are printed.
    """
    from ...hardware_specs.errors import SpecError

    _check(source, device, chips=bool(chip), again=again, show=show, output=output, plot=plot)
    if source == DATABASE or device is not None:
        fits, kernels = (
            ((), import_kernels(chip or (), output, again=again)) if device is None else _measure(device, output)
        )
        _tell(fits, kernels, show=True, plot=plot, as_json=as_json)
    elif source == ENGINES:
        _tell(fit_engines(output), (), show=show or output is None, plot=plot, as_json=as_json)
    elif source is not None:
        _fit(source, output, show=show, plot=plot, as_json=as_json)
    elif show:
        fits, kernels = _known_fits()
        _tell(fits, kernels, show=True, plot=plot, as_json=as_json)
    else:
        raise SpecError(
            "calibrate from what? Published measurements with --from pope2022, fastertransformer, engines or "
            "aiconfigurator, this machine with --device cpu or cuda; or see the fits there are with --show"
        )


def _check(
    source: str | None,
    device: str | None,
    *,
    chips: bool,
    again: bool,
    show: bool,
    output: Path | None,
    plot: Path | None,
) -> None:
    """Refuse options that do not go together, before any work is done."""
    from ...hardware_specs.errors import SpecError
    from .text import check_writable

    if source is not None and device is not None:
        raise SpecError("--from reads what others measured, --device measures here; give one of them")
    if device not in (None, "cpu", "cuda"):
        raise SpecError(f"no device {device!r}; known: cpu, cuda")
    if source != DATABASE and (chips or again):
        raise SpecError("--chip and --again go with --from aiconfigurator")
    if output is not None and source is None and device is None:
        raise SpecError("-o needs a fit to write; add --from or --device")
    if plot is not None:
        if not show:
            raise SpecError("--plot draws what --show prints; give both")
        check_writable(plot)


def _measure(device: str, output: Path | None) -> "tuple[tuple[Fit, ...], tuple[KernelFit, ...]]":
    return measure_kernels("cpu" if device == "cpu" else "cuda", output)


def _known_fits() -> "tuple[tuple[Fit, ...], tuple[KernelFit, ...]]":
    """The fits that ship, and of kernels a user's own in their place."""
    from ...simulator.cost.calibrated import load_fits
    from ...simulator.cost.kernel_times import shipped_kernel_fits
    from ...simulator.cost.user_fits import user_kernel_fits

    kernels = shipped_kernel_fits() | user_kernel_fits()
    return tuple(load_fits().values()), tuple(kernels[key] for key in sorted(kernels))


def _tell(
    fits: "Sequence[Fit]", kernels: "Sequence[KernelFit]", *, show: bool, plot: Path | None, as_json: bool
) -> None:
    """Print fits, as JSON or as tables, and draw them."""
    import json

    if as_json:
        typer.echo(json.dumps([fit.model_dump(mode="json") for fit in (*fits, *kernels)], indent=1))
    elif show:
        _show(fits)
        show_kernel_fits(kernels)
    if plot is not None:
        from ..charts.accuracy import kernel_error_chart, residual_chart
        from .plots import write_plot

        charts = [residual_chart(fits)] if fits else []
        write_plot(plot, "What the fits leave over", [*charts, *([kernel_error_chart(kernels)] if kernels else [])])


def _fit(source: str, output: Path | None, *, show: bool, plot: Path | None, as_json: bool) -> None:
    """Fit, then write or print."""
    from ...hardware_specs.documents import write_atomically
    from ...simulator.cost.calibrated import dump_fit
    from ...validate.recipes import fit_from, get_recipe
    from .text import check_writable

    recipe = get_recipe(source)
    if output is not None:
        check_writable(output)
    typer.echo(f"fitting {len(recipe.free)} constants of {recipe.chip} to {len(recipe.cases())} rows", err=True)
    fit = fit_from(source)
    if output is not None:
        write_atomically(output, dump_fit(fit))
        typer.echo(f"wrote {output}", err=True)
    if show:
        _tell((fit,), (), show=True, plot=plot, as_json=as_json)
    elif as_json:
        typer.echo(fit.model_dump_json(indent=1))
    elif output is None:
        typer.echo(dump_fit(fit), nl=False)


def _show(fits: "Sequence[Fit]") -> None:
    """Constants, interval and residuals, the worst row first."""
    import math

    from ...hardware_specs.units import format_seconds
    from .text import console, table

    out = console()
    for fit in fits:
        out.print(f"{fit.chip} under {fit.engine}\nmade by: {fit.command}\n", highlight=False)
        constants = table("constant", "value", right=("value",))
        for name, value in fit.constants.items():
            constants.add_row(name, format_seconds(value) if name.endswith("_s") else f"{value:.4g}")
        out.print(constants)
        out.print()
        spread = math.exp(fit.interval_log)
        out.print(f"90 % interval: predicted / {spread:.3f} to predicted x {spread:.3f}\n{fit.form}\n", highlight=False)
        rows = table("row", "source", "measured", "predicted", "error", right=("measured", "predicted", "error"))
        for row in sorted(fit.residuals, key=lambda row: -abs(row.log_ratio)):
            error = row.predicted_s / row.measured_s - 1.0
            rows.add_row(
                row.id, row.source, format_seconds(row.measured_s), format_seconds(row.predicted_s), f"{error:+.1%}"
            )
        out.print(rows)
        out.print()
