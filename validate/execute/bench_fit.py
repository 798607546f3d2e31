"""What the executor adds to its own steps on this machine, fitted to the runs that they were timed in."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...hardware_specs.chip import Chip
from ...hardware_specs.errors import SpecError
from ...hardware_specs.measurement import Measurement
from ...simulator.cost.calibrated import Fit, Residual
from ...simulator.cost.constants import Constants
from ...simulator.cost.engines import get_engine
from ...simulator.cost.kernel_times import KernelFit, KernelTimes
from ...simulator.cost.machine import make_machine
from ...simulator.cost.price import Engine, pass_time_s, price_pass
from .bench import COMMAND, IDLE, REST, STACK, WHOLE, timed_runs
from .priced import find_mesh, formats_of, token_group
from .spec import RunSpec

_FORM = (
    "dispatch_s: median of steps that have nothing to do; pass_s, sequence_s: least squares of what passes take beside their "
    "steps; all of decode; residuals: whole passes"
)


def fit_executor(chip: Chip, kernels: KernelFit, rows: Sequence[Measurement]) -> Fit:
    """Seconds of a step with nothing to do and of a pass, and how far whole passes are from their prices.

    Raises
    ------
    SpecError : no such rows
    """
    found = {
        name: [row for row in rows if row.chip == chip.name and row.quantity == f"{name} by {STACK}"]
        for name in (IDLE, REST, WHOLE)
    }
    if not all(found.values()):
        raise SpecError(f"no measured runs of our executor on {chip.name}; write them with `{COMMAND}`")
    idle_s = statistics.median(row.p50 for row in found[IDLE] if row.shape.endswith("phase=decode"))
    pass_s, sequence_s = _host_s(found[REST])
    constants = {
        name: float(f"{seconds:.4g}")
        for name, seconds in (("dispatch_s", idle_s), ("pass_s", pass_s), ("sequence_s", sequence_s))
    }
    engine = engine_over(chip, kernels, constants)
    whole = {row.shape: row for row in found[WHOLE]}
    residuals = []
    for run in timed_runs():
        for phase in ("prefill", "decode"):
            row = whole.get(f"{run.words} phase={phase}")
            if row is not None:
                predicted = priced_pass_s(run.spec, phase, chip, engine)
                residuals.append(
                    Residual(
                        id=row.shape, source=row.command, measured_s=row.p50, predicted_s=float(f"{predicted:.6g}")
                    )
                )
    return Fit(
        chip=chip.name, engine=STACK, form=_FORM, command=COMMAND, free=tuple(constants), constants=constants,
        interval_log=round(float(np.quantile([abs(residual.log_ratio) for residual in residuals], 0.9)), 4),
        residuals=tuple(residuals),
    )  # fmt: skip


def _host_s(rows: Sequence[Measurement]) -> tuple[float, float]:
    """Seconds of a decode pass beside its steps: once, and for each sequence; every row's relative error counts alike."""
    from scipy.optimize import nnls

    sequences = {f"{run.words} phase=decode": run.spec.batch for run in timed_runs()}
    timed = [(sequences[row.shape], row.p50) for row in rows if row.shape in sequences]
    if not timed:
        raise SpecError(f"no measured passes of our executor's decode; write them with `{COMMAND}`")
    n, seconds = np.array(timed, float).T
    (pass_s, sequence_s), _ = nnls(np.stack([np.ones_like(n), n], 1) / seconds[:, None], np.ones_like(n))
    return float(pass_s), float(sequence_s)


def engine_over(chip: Chip, kernels: KernelFit, constants: Mapping[str, float]) -> Engine:
    """Our executor on a host's own cores."""
    return replace(
        get_engine(STACK).runs, constants=Constants(**constants), kernels=KernelTimes(chip, kernels), on_host=True
    )


def priced_pass_s(spec: RunSpec, phase: str, chip: Chip, engine: Engine) -> float:
    """Seconds of one pass of a run by its steps."""
    found = find_mesh(chip, spec)
    if found is None:
        raise SpecError(f"{chip.name} has no mesh of {spec.mesh.n_ranks} chips")
    prices = price_pass(
        spec.program(phase), spec.sizes(phase, token_group(spec, phase)), formats_of(spec),
        make_machine(chip, [found[1]]), engine,
    )  # fmt: skip
    return float(pass_time_s(prices))
