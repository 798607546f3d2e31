"""``shardwise calibrate``: fit a chip's constants to measurements, and show what a fit leaves over."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from ...simulator.cost.calibrated import Fit


def calibrate(
    source: Annotated[
        str | None, typer.Option("--from", help="Published measurements: pope2022 or fastertransformer.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the fit here instead of printing it.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print constants and residuals, of the shipped fits unless --from is given.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit a chip's constants to published measurements, or show the fits there are."""
    from ...hardware_specs.errors import SpecError
    from ...simulator.cost.calibrated import load_fits

    if source is not None:
        _fit(source, output, show=show, as_json=as_json)
        return
    if output is not None:
        raise SpecError("-o needs a fit to write; add --from pope2022 or --from fastertransformer")
    if not show:
        raise SpecError(
            "measuring on this machine is not built yet; fit published measurements with --from pope2022 or "
            "--from fastertransformer, or see the shipped fits with --show"
        )
    _show(tuple(load_fits().values()), as_json=as_json)


def _fit(source: str, output: Path | None, *, show: bool, as_json: bool) -> None:
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
        _show((fit,), as_json=as_json)
    elif as_json:
        typer.echo(fit.model_dump_json(indent=1))
    elif output is None:
        typer.echo(dump_fit(fit), nl=False)


def _show(fits: "tuple[Fit, ...]", *, as_json: bool) -> None:
    """Constants, interval and residuals, the worst row first."""
    import json
    import math

    from ...hardware_specs.units import format_seconds
    from .text import console, table

    if as_json:
        typer.echo(json.dumps([fit.model_dump(mode="json") for fit in fits], indent=1))
        return
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
