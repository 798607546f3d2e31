"""Price everything a request allows, refuse what does not fit, rank the rest.

Each phase is priced once as arrays; a candidate is a pair of phases. On one slice the two take turns over one resident
copy of the weights, so they share mesh, stages, replicas, stored forms and formats; the cache of the decode batch stays
while the next prompts are read.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.cluster import Slice
from ..hardware_specs.units import format_bytes, format_seconds
from ..models.layouts import LAYOUTS
from ..simulator.cost.machine import make_machine, take
from ..simulator.cost.phases import PhaseSetting, price_phase
from ..simulator.types import PhaseName
from .pareto import pareto_indices
from .request import PlanRequest
from .space import Cells, formats_key, phase_cells

_KEEP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate of a phase: enough to price it again alone."""

    setting: PhaseSetting
    slice: Slice
    mesh_index: int
    batch: int
    n_microbatches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCells:
    """The candidates of one phase that share everything a pair must share; each array (n,).

    `work_bytes` are activations and gathered weights, `chip_s` chip-seconds a request.
    """

    choices: "list[tuple[Cells, int]]"
    latency_s: NDArray[np.float64]
    pass_s: NDArray[np.float64]
    chip_s: NDArray[np.float64]
    batch: NDArray[np.float64]
    weights_bytes: NDArray[np.float64]
    kv_bytes: NDArray[np.float64]
    work_bytes: NDArray[np.float64]

    def choice(self, i: int) -> Choice:
        """Candidate `i` by itself."""
        cells, j = self.choices[i]
        return Choice(
            setting=cells.setting,
            slice=cells.slice,
            mesh_index=int(cells.mesh[j]),
            batch=int(cells.batch[j]),
            n_microbatches=int(cells.n_microbatches[j]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A feasible candidate and its two figures of merit."""

    prefill: Choice
    decode: Choice
    shared: bool
    handoff_s: float
    latency_s: float
    chip_s: float
    requests_per_s: float


@dataclass(slots=True, kw_only=True)
class Found:
    """What the search has so far; changed by `search` alone."""

    pairs: list[Pair] = field(default_factory=list)
    frontier: list[Pair] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    n_candidates: int = 0
    n_phase_cells: int = 0
    least_over_bytes: tuple[float, str] = (np.inf, "")
    least_ttft_s: float = np.inf
    least_tpot_s: float = np.inf
    seconds: float = 0.0


def search(request: PlanRequest) -> Found:
    """Find the best pairs by the objective and the frontier of latency against chip-seconds."""
    started = time.perf_counter()
    found = Found()
    prefill = {s: _price(request, s, "prefill", found) for s in request.slices}
    decode = {s: _price(request, s, "decode", found) for s in request.decode_slices}
    if request.sharing != "separate":
        for slice_ in request.slices:
            _pair_on_one_slice(request, slice_, prefill[slice_], decode[slice_], found)
    if request.sharing != "shared":
        _pair_across_slices(request, prefill, decode, found)
    found.pairs = rank(request, found.pairs)[:_KEEP]
    if found.frontier:
        latency = np.array([pair.latency_s for pair in found.frontier])
        chip = np.array([pair.chip_s for pair in found.frontier])
        found.frontier = [found.frontier[i] for i in pareto_indices(latency, chip)]
    found.seconds = time.perf_counter() - started
    return found


def rank(request: PlanRequest, pairs: list[Pair]) -> list[Pair]:
    """Best first by the objective, the other figure breaking ties."""
    keys = {
        "latency": lambda p: (p.latency_s, p.chip_s),
        "cost": lambda p: (p.chip_s, p.latency_s),
        "throughput": lambda p: (-p.requests_per_s, p.latency_s),
    }
    return sorted(pairs, key=keys[request.objective])


Groups = dict[tuple[object, ...], PricedCells]
_Part = tuple[Cells, NDArray[np.int64], dict[str, NDArray[np.float64]]]


def _price(request: PlanRequest, slice_: Slice, phase: PhaseName, found: Found) -> Groups:
    """Price every candidate of a phase on a slice, grouped by what both phases of a pair must share."""
    engine = request.calibration(slice_).engine
    priced: dict[tuple[object, ...], list[_Part]] = {}
    machines = {}
    for cells in phase_cells(request, slice_, phase, engine, found.rejected):
        key = (cells.setting.pp, cells.setting.dp)
        if key not in machines:
            machines[key] = make_machine(slice_.chip, cells.meshes)
        machine = machines[key]
        price = price_phase(
            cells.setting, take(machine, cells.mesh), cells.batch, engine, n_microbatches=cells.n_microbatches
        )
        found.n_phase_cells += len(cells.batch)
        memory = price.memory
        columns = {
            "latency_s": price.latency_s,
            "pass_s": price.pass_s,
            "chip_s": price.latency_s * slice_.n_chips / cells.batch,
            "batch": cells.batch,
            "weights_bytes": np.asarray(memory.weights),
            "kv_bytes": np.asarray(memory.kv_cache),
            "work_bytes": np.asarray(memory.activations + memory.gathered),
        }
        stored = LAYOUTS[cells.setting.layout].stored
        for i in np.unique(cells.mesh):
            index = np.flatnonzero(cells.mesh == i)
            shared = (
                *key,
                int(i),
                stored,
                cells.setting.head_axes,
                formats_key(cells.setting.formats),
                cells.setting.page_size,
            )
            priced.setdefault(shared, []).append((cells, index, columns))
    return {key: _join(parts) for key, parts in priced.items()}


def _join(parts: list[_Part]) -> PricedCells:
    columns = {name: np.concatenate([c[name][i] for _, i, c in parts]) for name in parts[0][2]}
    return PricedCells(choices=[(cells, int(j)) for cells, index, _ in parts for j in index], **columns)


def _limit_bytes(request: PlanRequest, slice_: Slice) -> float:
    return slice_.chip.hbm_bytes.value * request.memory_share


def _pair_on_one_slice(request: PlanRequest, slice_: Slice, prefill: Groups, decode: Groups, found: Found) -> None:
    """Every pair that shares a resident copy of the weights on one slice."""
    limit = _limit_bytes(request, slice_)
    for key, p in prefill.items():
        if key not in decode:
            continue
        d = decode[key]
        allowed = p.batch[:, None] <= d.batch[None, :]
        kv = np.maximum(p.kv_bytes[:, None], d.kv_bytes[None, :])
        peak = p.weights_bytes[:, None] + kv + np.maximum(p.work_bytes[:, None], d.work_bytes[None, :])
        latency = p.latency_s[:, None] + d.latency_s[None, :]
        chip = p.chip_s[:, None] + d.chip_s[None, :]
        ok = _feasible(request, p, d, peak, limit, allowed, found, slice_)
        rate = slice_.n_chips / chip
        _keep(request, p, d, ok, latency, chip, rate, found, shared=True, handoff_s=np.zeros(latency.shape))


def _feasible(
    request: PlanRequest,
    p: PricedCells,
    d: PricedCells,
    peak: NDArray[np.float64],
    limit: float,
    allowed: NDArray[np.bool_],
    found: Found,
    slice_: Slice,
) -> NDArray[np.bool_]:
    """Which pairs fit and keep the limits; each of the others is counted under the first reason it fails by."""
    fits = peak <= limit
    found.n_candidates += int(np.count_nonzero(allowed))
    _count(found, "out of memory", allowed & ~fits)
    if not fits.any() and allowed.any():
        least = float(np.min(np.where(allowed, peak, np.inf)))
        if least - limit < found.least_over_bytes[0]:
            needs = f"{format_bytes(least)} per chip on {slice_}, {format_bytes(limit)} may be used"
            found.least_over_bytes = (least - limit, needs)
    ok = allowed & fits
    if ok.any():
        found.least_ttft_s = min(found.least_ttft_s, float(np.min(np.where(ok, p.pass_s[:, None], np.inf))))
        found.least_tpot_s = min(found.least_tpot_s, float(np.min(np.where(ok, d.pass_s[None, :], np.inf))))
    if request.slo.ttft_s is not None:
        late = ok & (p.pass_s[:, None] > request.slo.ttft_s)
        _count(found, "TTFT over the limit", late)
        ok &= ~late
    if request.slo.tpot_s is not None:
        slow = ok & (d.pass_s[None, :] > request.slo.tpot_s)
        _count(found, "TPOT over the limit", slow)
        ok &= ~slow
    return ok


def _count(found: Found, reason: str, mask: NDArray[np.bool_]) -> None:
    n = int(np.count_nonzero(mask))
    if n:
        found.rejected[reason] += n


def _keep(
    request: PlanRequest,
    p: PricedCells,
    d: PricedCells,
    ok: NDArray[np.bool_],
    latency: NDArray[np.float64],
    chip: NDArray[np.float64],
    rate: NDArray[np.float64],
    found: Found,
    *,
    shared: bool,
    handoff_s: NDArray[np.float64],
) -> None:
    """Keep the best few pairs by the objective and those on the frontier."""
    rows, columns = np.nonzero(ok)
    if not len(rows):
        return
    flat_latency, flat_chip, flat_rate = latency[rows, columns], chip[rows, columns], rate[rows, columns]
    merit = {"latency": flat_latency, "cost": flat_chip, "throughput": -flat_rate}[request.objective]
    best = np.argsort(merit, kind="stable")[:_KEEP] if len(merit) <= _KEEP else np.argpartition(merit, _KEEP)[:_KEEP]
    front = pareto_indices(flat_latency, flat_chip)

    def pair(i: int) -> Pair:
        row, column = int(rows[i]), int(columns[i])
        return Pair(
            prefill=p.choice(row),
            decode=d.choice(column),
            shared=shared,
            handoff_s=float(handoff_s[row, column]),
            latency_s=float(flat_latency[i]),
            chip_s=float(flat_chip[i]),
            requests_per_s=float(flat_rate[i]),
        )

    found.pairs += [pair(int(i)) for i in np.sort(best)]
    found.frontier += [pair(int(i)) for i in front]
    if len(found.pairs) > 32 * _KEEP:
        found.pairs = rank(request, found.pairs)[:_KEEP]


def _pair_across_slices(
    request: PlanRequest, prefill: dict[Slice, Groups], decode: dict[Slice, Groups], found: Found
) -> None:
    """Prefill on one slice, decode on another: each phase's own best, joined where the cache has one format.

    Of each phase only the candidates that nothing beats on latency and cost can be part of a best pair.
    """
    p_fronts = [(s, k, _front(request, s, g, found)) for s, groups in prefill.items() for k, g in _by_cache(groups)]
    d_fronts = [(s, k, _front(request, s, g, found)) for s, groups in decode.items() for k, g in _by_cache(groups)]
    for p_slice, p_kv, p in p_fronts:
        for d_slice, d_kv, d in d_fronts:
            n_chips = p_slice.n_chips + d_slice.n_chips
            if p is None or d is None or p_kv != d_kv or n_chips > request.max_chips:
                continue
            handoff = _handoff_s(request, p_slice, d_slice, p)
            latency = p.latency_s[:, None] + d.latency_s[None, :] + handoff
            chip = p.chip_s[:, None] + d.chip_s[None, :]
            everything = np.ones(latency.shape, bool)
            ok = _feasible(request, p, d, np.zeros(latency.shape), 1.0, everything, found, p_slice)
            # the slower pool sets the pace
            rate = np.minimum(p_slice.n_chips / p.chip_s[:, None], d_slice.n_chips / d.chip_s[None, :])
            _keep(
                request,
                p,
                d,
                ok,
                latency,
                chip,
                rate,
                found,
                shared=False,
                handoff_s=np.broadcast_to(handoff, latency.shape),
            )


def _by_cache(groups: Groups) -> "list[tuple[str, PricedCells]]":
    """Candidates of a slice together, by cache format."""

    def kv_of(item: tuple[tuple[object, ...], PricedCells]) -> str:
        return item[1].choices[0][0].setting.formats.kv.name

    joined = []
    for kv, items in groupby(sorted(groups.items(), key=kv_of), key=kv_of):
        cells = [group for _, group in items]
        columns = {
            name: np.concatenate([getattr(c, name) for c in cells])
            for name in ("latency_s", "pass_s", "chip_s", "batch", "weights_bytes", "kv_bytes", "work_bytes")
        }
        joined.append((kv, PricedCells(choices=[choice for c in cells for choice in c.choices], **columns)))
    return joined


def _front(request: PlanRequest, slice_: Slice, cells: PricedCells, found: Found) -> PricedCells | None:
    """The candidates of a phase that fit and that nothing beats."""
    limit = _limit_bytes(request, slice_)
    peak = cells.weights_bytes + cells.kv_bytes + cells.work_bytes
    fits = np.flatnonzero(peak <= limit)
    if request.sharing == "separate":
        found.n_candidates += len(peak) - len(fits)
        _count(found, "out of memory", peak > limit)
    if not len(fits):
        least = float(np.min(peak))
        if least - limit < found.least_over_bytes[0]:
            needs = f"{format_bytes(least)} per chip on {slice_}, {format_bytes(limit)} may be used"
            found.least_over_bytes = (least - limit, needs)
        return None
    keep = fits[pareto_indices(cells.latency_s[fits], cells.chip_s[fits])]
    columns = {
        name: getattr(cells, name)[keep]
        for name in ("latency_s", "pass_s", "chip_s", "batch", "weights_bytes", "kv_bytes", "work_bytes")
    }
    return PricedCells(choices=[cells.choices[i] for i in keep], **columns)


def _handoff_s(request: PlanRequest, p_slice: Slice, d_slice: Slice, p: PricedCells) -> NDArray[np.float64]:
    """Seconds to send one prefill batch's cache to the other slice over every chip's network port.

    Zero where a chip claims no network between slices: the plan then says so by `handoff_s = 0`.
    """
    ports = [s.chip.scale_out_bytes_per_s for s in (p_slice, d_slice)]
    if ports[0] is None or ports[1] is None:
        return np.zeros((len(p.latency_s), 1))
    rate = min(p_slice.n_chips * ports[0].value, d_slice.n_chips * ports[1].value)
    total = p.batch * float(request.workload.input_tokens) * _cache_bytes_per_token(p)
    return (total / rate)[:, None]


def _cache_bytes_per_token(p: PricedCells) -> float:
    from ..models.params import kv_bytes_per_token

    setting = p.choices[0][0].setting
    return kv_bytes_per_token(setting.model, setting.formats.kv.bytes_per_element)


def nearest_miss(request: PlanRequest, found: Found) -> str | None:
    """The sentence that says how far the nearest candidate was, where none is feasible."""
    if found.pairs:
        return None
    over, needs = found.least_over_bytes
    if not np.isfinite(found.least_ttft_s):
        if not np.isfinite(over):
            return "no layout lies on any mesh of the pool; see the counted reasons"
        return f"the smallest candidate needs {needs}; try more chips, a smaller batch, or --weights int8"
    best = []
    if request.slo.ttft_s is not None:
        best.append(f"TTFT {format_seconds(found.least_ttft_s)} (limit {format_seconds(request.slo.ttft_s)})")
    if request.slo.tpot_s is not None:
        best.append(f"TPOT {format_seconds(found.least_tpot_s)} (limit {format_seconds(request.slo.tpot_s)})")
    return f"the quickest that fits has {' and '.join(best)}, each at its best; relax the limit or take more chips"
