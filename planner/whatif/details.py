"""The phases that were chosen, priced once more together for what binds them and how sure their times are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...models.forms import AXES
from ...models.sizes import batch_prefix
from ...simulator.cost.calibrated import BORROWED_LOG, UNKNOWN_ENGINE_LOG, Calibration
from ...simulator.cost.machine import Machine, at_speed, make_machine, take
from ...simulator.cost.phases import PhaseSetting, bind, microbatch_sequences, price_phase, program_prefixes
from ...simulator.cost.price import Engine, StepPrice, price_pass
from ...simulator.types import Workloads
from ..result import Bound, Source
from .choose import Index, Row
from .points import FIGURES, Column, Points

BOUNDS: tuple[Bound, ...] = ("compute", "hbm", "links", "latency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Of chosen phases, each (n,): what binds them (a place in `BOUNDS`), the 90 % interval, whether it is extrapolated.

    An interval without an end has infinity for it.
    """

    bound: Index
    low_s: Column
    high_s: Column
    extrapolated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Chosen phases of one setting: places among all, and what they are priced with."""

    at: Index
    machine: Machine
    batch: Column
    n_microbatches: Column
    pp: Column
    works: Workloads
    crosses: NDArray[np.bool_]


def details_of(
    rows: Sequence[Row],
    chosen: Index,
    points: Points,
    latency_s: Column,
    calibration: Calibration,
    roofline: Engine,
) -> Details:
    """Look once more at chosen phases.

    Parameters
    ----------
    chosen : (n,) place in `rows` of each
    points : (n,) of each
    latency_s : (n,) of each
    roofline : the engine at its bound
    """
    n = len(chosen)
    bound, floor = np.zeros(n, np.int64), np.array(latency_s)
    crosses, beyond = np.zeros(n, bool), np.zeros(n, bool)
    needs_floor = calibration.interval_log is not None and not calibration.is_whole
    for setting, held in _by_setting(rows, chosen, points):
        bound[held.at], beyond[held.at] = _looked_at(setting, held, calibration.engine)
        crosses[held.at] = held.crosses
        if needs_floor:
            floor[held.at] = _price(setting, held, roofline)
    changed = _is_changed(points)
    own = _is_own(calibration, crosses) & ~changed
    low, high = _interval(calibration, latency_s, floor, own, changed)
    extrapolated = np.zeros(n, bool) if calibration.origin == "bound" else ~own | beyond
    return Details(bound=bound, low_s=low, high_s=high, extrapolated=extrapolated)


def _is_changed(points: Points) -> NDArray[np.bool_]:
    """Where chips have what-if rates."""
    changed: NDArray[np.bool_] = np.any([getattr(points, name) != 1.0 for name in FIGURES], axis=0)
    return changed


def _by_setting(rows: Sequence[Row], chosen: Index, points: Points) -> list[tuple[PhaseSetting, _Held]]:
    """Chosen phases by what is priced together."""
    alike: dict[tuple[PhaseSetting, bool, bool], list[int]] = {}
    for place in np.unique(chosen):
        laid = rows[place].priced.variants.laid
        key = (replace(laid.setting, pp=1, dp=1), laid.setting.pp > 1, laid.meshes[0].stages_cross)
        alike.setdefault(key, []).append(int(place))
    return [(setting, _held(rows, places, chosen, points)) for (setting, _, _), places in alike.items()]


def _held(rows: Sequence[Row], places: Sequence[int], chosen: Index, points: Points) -> _Held:
    at = np.flatnonzero(np.isin(chosen, places))
    order = {place: i for i, place in enumerate(places)}
    own = np.array([order[int(place)] for place in chosen[at]])
    used = [rows[place].priced.variants for place in places]
    meshes = [v.laid.meshes[v.mesh[rows[place].row]] for v, place in zip(used, places, strict=True)]
    machine = take(make_machine(used[0].laid.slice.chip, meshes), own)
    here = points.take(at)
    dp = np.array([v.laid.setting.dp for v in used], float)
    prefills = used[0].laid.setting.phase == "prefill"
    micro = np.array([v.n_microbatches[rows[place].row] for v, place in zip(used, places, strict=True)])
    fixed = np.array([v.batch[rows[place].row] for v, place in zip(used, places, strict=True)])
    given = here.prefill_batch if prefills else here.decode_batch
    batch = np.where(np.isnan(fixed[own]), given, fixed[own]) / dp[own]
    wide = np.array([m.stages_cross or any(getattr(m, axis).outer > 1 for axis in AXES) for m in meshes])
    return _Held(
        at=at,
        machine=machine if here.speed is None else at_speed(machine, here.speed),
        batch=batch,
        n_microbatches=micro[own],
        pp=np.array([v.laid.setting.pp for v in used], float)[own],
        works=here.works,
        crosses=wide[own],
    )


def _price(setting: PhaseSetting, held: _Held, engine: Engine) -> Column:
    price = price_phase(
        setting, held.machine, held.batch, engine, n_microbatches=held.n_microbatches, pp=held.pp, works=held.works
    )
    return price.latency_s


def _looked_at(setting: PhaseSetting, held: _Held, engine: Engine) -> tuple[Index, NDArray[np.bool_]]:
    """What takes most of each pass, and whether a kernel of it has a shape beyond those that were measured."""
    n = len(held.at)
    sequences = np.asarray(microbatch_sequences(setting, held.batch, held.n_microbatches), float)
    prefix = np.broadcast_to(batch_prefix(held.machine.mesh, sequences), (n,))
    found, beyond = np.zeros(n, np.int64), np.zeros(n, bool)
    runs = np.array(program_prefixes(setting, engine))[prefix]
    for length in np.unique(runs):
        index = np.flatnonzero(runs == length)
        machine, works = take(held.machine, index), held.works.take(index)
        program, sizes = bind(setting, machine, sequences[index], AXES[: int(length)], engine, works)
        steps = price_pass(program, sizes, setting.formats, machine, engine, pp=held.pp[index])
        found[index] = np.argmax(_seconds(steps, len(index)), axis=0)
        for step in steps:
            if step.timed is not None:
                beyond[index] |= np.broadcast_to(step.timed.outside, (len(index),))
    return found, beyond


def _seconds(steps: Sequence[StepPrice], n: int) -> NDArray[np.float64]:
    """Seconds of a pass by what binds each step, (4, n), in the order of `BOUNDS`."""
    total = np.zeros((len(BOUNDS), n))
    for step in steps:
        compute, memory = np.broadcast_to(step.compute_s, (n,)), np.broadcast_to(step.memory_s, (n,))
        computes = compute >= memory
        total[0] += step.count * np.where(computes, compute, 0.0)
        total[1] += step.count * np.where(computes, 0.0, memory)
        total[2] += step.count * step.comm_s
        total[3] += step.count * step.overhead_s
    return total


def _is_own(calibration: Calibration, crosses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where the fit speaks for every step: between nodes only if the network was fitted too."""
    network = "network_efficiency" in calibration.free or calibration.is_whole
    return (calibration.origin == "fitted") & (~crosses | network)


def _interval(
    calibration: Calibration,
    latency_s: Column,
    floor_s: Column,
    own: NDArray[np.bool_],
    changed: NDArray[np.bool_],
) -> tuple[Column, Column]:
    """The interval as a plan has it; chips with what-if figures are not those that were measured."""
    if calibration.interval_log is None:
        return latency_s, np.full(len(latency_s), np.inf)
    fit = calibration.interval_log
    if calibration.is_whole:
        spread = np.exp(np.where(changed, math.hypot(fit, BORROWED_LOG), fit))
        return latency_s / spread, latency_s * spread
    wide = math.exp(math.hypot(fit, BORROWED_LOG, UNKNOWN_ENGINE_LOG))
    low = np.where(own, latency_s / math.exp(fit), np.minimum(floor_s, latency_s / wide))
    return low, np.where(own, latency_s * math.exp(fit), latency_s**2 / np.maximum(low, 1e-300))


def source_of(calibration: Calibration, extrapolated: bool) -> Source:
    """Where a price comes from, in one word."""
    return "bound" if calibration.origin == "bound" else "extrapolated" if extrapolated else "fitted"
