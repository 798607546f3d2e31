"""``shardwise calibrate --from engines``: what engines add to their kernels, fitted to the runs that ship."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ...simulator.cost.calibrated import Fit

ENGINES = "engines"


def fit_engines(output: Path | None) -> "tuple[Fit, ...]":
    """Fit every engine, and write each to a file of its own in the folder `output`.

    Raises
    ------
    SpecError : the folder is none, or cannot be written to
    """
    from ...hardware_specs.documents import write_atomically
    from ...hardware_specs.errors import SpecError
    from ...simulator.cost.calibrated import dump_fit
    from ...validate.engine_recipes import engine_names, fit_published

    if output is not None and not output.is_dir():
        raise SpecError(f"-o {output} must be a folder that exists: every engine has a file of its own")
    fits = []
    for name in engine_names():
        typer.echo(f"fitting {name}", err=True)
        fits.append(fit_published(name))
        if output is not None:
            write_atomically(output / f"{name}.yaml", dump_fit(fits[-1]))
    if output is not None:
        typer.echo(f"wrote {len(fits)} fits to {output}", err=True)
    return tuple(fits)
