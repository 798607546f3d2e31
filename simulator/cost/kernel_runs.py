"""Fitting the kernels of a software stack op by op: what was finished before an interruption stands, the fit appears whole."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from ...hardware_specs.chip import Chip
from ...hardware_specs.documents import write_atomically
from ...hardware_specs.errors import SpecError
from ...hardware_specs.kernel_formats import COLLECTIVES
from .kernel_fit import LEAST_ROWS, KernelRows, family_rows, fit_kernels
from .kernel_times import KernelFamily, KernelFit, dump_kernel_fit
from .stacks import StackRows
from .user_fits import finished_fit, parts_folder, write_kernel_fit

# Two rows of three are fitted on, one judges.
_LEAST = 2 * LEAST_ROWS


@dataclass(frozen=True, kw_only=True)
class FitRun:
    """One fit that is to be made.

    Parameters
    ----------
    refused : rows that cannot be true, by reason
    source, command : where the rows come from, and what makes this fit of them
    folder : where it is written once it is whole
    """

    chip: Chip
    rows: StackRows
    refused: Counter[str]
    source: str
    command: str
    folder: Path

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Rows of each family by its name."""
        return {_name(rows): len(rows.seconds) for rows in family_rows(self.rows.frame)}

    @property
    def lacking(self) -> tuple[str, ...]:
        """A sentence on each family that has rows, but too few."""
        return tuple(f"{name}: {n} of {_LEAST} rows" for name, n in self.sizes.items() if n < _LEAST)

    @property
    def n_families(self) -> int:
        """Families that will be fitted."""
        return sum(n >= _LEAST for n in self.sizes.values())


def _name(rows: KernelRows | KernelFamily) -> str:
    return " ".join(filter(None, (rows.variant, rows.op, rows.kv)))


def run_fit(run: FitRun, advance: Callable[[str], None] = lambda _: None) -> Path:
    """Fit and write; `advance` hears of each family before it is fitted or found finished.

    Raises
    ------
    SpecError : no family has rows enough, naming what each lacks
    """
    if not run.n_families:
        told = "; ".join(run.lacking) or "there are none"
        raise SpecError(f"{run.chip.name} under {run.rows.stack}: too few measured rows for a fit: {told}")
    op = run.rows.frame["op"]
    by_part = run.rows.frame.groupby(op.where(~op.isin(COLLECTIVES), "collective"), sort=True)
    parts = [_part(run, str(op), rows, advance) for op, rows in by_part]
    whole = [part for part in parts if part is not None]
    families = tuple(family for part in whole for family in part.families)
    path = write_kernel_fit(whole[0].model_copy(update={"families": families}), run.folder)
    for name in by_part.groups:
        _part_path(run, str(name)).unlink(missing_ok=True)
    return path


def _part_path(run: FitRun, op: str) -> Path:
    return parts_folder() / f"{run.chip.name}.{run.rows.stack}.{op.replace(' ', '-')}.json"


def _part(run: FitRun, op: str, rows: pd.DataFrame, advance: Callable[[str], None]) -> KernelFit | None:
    """The families of one op: as found if they were made of the same rows by number and source, else fitted and kept."""
    expected = [len(family.seconds) for family in family_rows(rows) if len(family.seconds) >= _LEAST]
    if not expected:
        return None
    path = _part_path(run, op)
    found = finished_fit(path, source=run.source)
    if found is not None and [family.n_rows + family.n_held_out for family in found.families] == expected:
        for family in found.families:
            advance(_name(family))
        return found
    refused = run.refused + run.rows.left_out
    made = fit_kernels(
        run.chip, rows, stack=run.rows.stack, source=run.source, command=run.command, refused=refused, advance=advance
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, dump_kernel_fit(made))
    return made
