"""Fit the constants of one chip to measured times of whole phases.

Least squares on ln(predicted / measured): every row counts alike whatever its size. A constant has a physical name and
bounds; nothing else is free.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.cluster import Slice, meshes
from ...hardware_specs.errors import SpecError
from ...models.layouts import ATTENTION_SHARDINGS, AttentionSharding, get_layout
from .calibrated import Fit, Residual
from .constants import Constants
from .engines import get_engine
from .machine import make_machine
from .phases import PhaseSetting, price_phase
from .price import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPart:
    """One phase of a measured case; the attention sharding is free where the source leaves it open."""

    setting: PhaseSetting
    attention_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCase:
    """A measured time and what was run: the mesh is free, as the source's authors chose their best.

    Parameters
    ----------
    slices : the slices of the stated count
    parts : phases whose times add up to the measured one
    per_pass : the time is one pass (a decode step), not the phase
    """

    id: str
    source: str
    slices: tuple[Slice, ...]
    parts: tuple[FitPart, ...]
    batch: float
    measured_s: float
    per_pass: bool = False


# The best of several starts, each a multiple of the latencies' own: the minima of a sum of maxima are many.
_STARTS = (0.1, 1.0, 4.0)

# start, lower and upper bound of each constant
RANGES: dict[str, tuple[float, float, float]] = {
    "matmul_efficiency": (0.8, 0.2, 1.0),
    "hbm_efficiency": (0.85, 0.2, 1.0),
    "link_efficiency": (0.8, 0.05, 1.0),
    "ring_efficiency": (0.6, 0.05, 1.0),
    "collective_launch_s": (5e-6, 0.0, 1e-3),
    "hop_s": (1e-6, 0.0, 1e-4),
    "kernel_launch_s": (2e-6, 0.0, 1e-3),
    "pass_s": (1e-3, 0.0, 1e-1),
    "sequence_s": (2e-5, 0.0, 5e-3),
    "dispatch_s": (1e-5, 0.0, 2e-4),
    "matmul_slowdown": (1.0, 0.7, 4.0),
    "attention_slowdown": (1.0, 0.5, 8.0),
    "collective_slowdown": (1.0, 0.5, 8.0),
    "experts_slowdown": (1.0, 0.5, 8.0),
    "latent_slowdown": (1.5, 0.5, 30.0),
    "scan_slowdown": (1.5, 0.5, 100.0),
    "launch_share": (0.8, 0.05, 1.5),
    "pointwise_slowdown": (2.0, 0.5, 30.0),
}


def predict_case_s(case: FitCase, engine: Engine) -> float:
    """Seconds of a case on its best mesh."""
    total = 0.0
    for part in case.parts:
        shardings: Sequence[AttentionSharding] = (
            ATTENTION_SHARDINGS[:2] if part.attention_open else (part.setting.attention,)
        )
        times = []
        for slice_ in case.slices:
            usable = [
                m
                for m in meshes(slice_, part.setting.pp, part.setting.dp)
                if get_layout(part.setting.layout).names(m.sizes)
            ]
            if not usable:
                continue
            machine = make_machine(slice_.chip, usable)
            batch = np.full(len(usable), case.batch)
            for attention in shardings:
                price = price_phase(replace(part.setting, attention=attention), machine, batch, engine)
                times.append(float(np.min(price.pass_s if case.per_pass else price.latency_s)))
        if not times:
            raise SpecError(f"{case.id}: {part.setting.layout} lies on no mesh of {', '.join(map(str, case.slices))}")
        total += min(times)
    return total


def fit_constants(cases: Sequence[FitCase], *, chip: str, engine: str, free: Sequence[str], command: str) -> Fit:
    """Fit the `free` constants, the others staying at the bound.

    References
    ----------
    [Branch1999] trust region reflective, as scipy.optimize.least_squares has it.
    """
    from scipy.optimize import least_squares

    profile = get_engine(engine)
    start = np.array([RANGES[name][0] for name in free])
    low = np.array([RANGES[name][1] for name in free])
    high = np.array([RANGES[name][2] for name in free])

    def engine_at(z: NDArray[np.float64]) -> Engine:
        values = dict(zip(free, (float(v) for v in z * start), strict=True))
        return replace(profile.runs, constants=Constants(**values))

    def log_ratios(z: NDArray[np.float64]) -> list[float]:
        made = engine_at(z)
        return [math.log(predict_case_s(case, made) / case.measured_s) for case in cases]

    bounds = (low / start, high / start)
    tries = [
        least_squares(
            log_ratios,
            np.array([scale if name.endswith("_s") else 1.0 for name in free]),
            bounds=bounds,
            diff_step=np.full(len(free), 1e-3),
        )
        for scale in _STARTS
    ]
    best = engine_at(min(tries, key=lambda result: result.cost).x)
    residuals = tuple(
        Residual(id=c.id, source=c.source, measured_s=c.measured_s, predicted_s=float(f"{predict_case_s(c, best):.5g}"))
        for c in cases
    )
    values = {name: float(f"{getattr(best.constants, name):.4g}") for name in free}
    return Fit(
        chip=chip,
        engine=engine,
        form="least squares on ln(predicted / measured)",
        command=command,
        free=tuple(free),
        constants=values,
        interval_log=round(interval_log([r.log_ratio for r in residuals], n_free=len(free)), 4),
        residuals=residuals,
    )


def interval_log(log_ratios: Sequence[float], *, n_free: int) -> float:
    """Half width of the 90 % prediction interval of ln(true / predicted): Student's t over what the fit left.

    >>> round(interval_log([0.1, -0.1, 0.1, -0.1], n_free=0), 3)
    0.238
    """
    from scipy.stats import t

    n = len(log_ratios)
    freedom = max(n - n_free, 1)
    spread = math.sqrt(sum(r * r for r in log_ratios) / freedom)
    return float(t.ppf(0.95, freedom)) * spread * math.sqrt(1.0 + 1.0 / n)
