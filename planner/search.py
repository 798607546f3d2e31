"""Pair the phases a request allows, refuse what does not fit, rank the rest.

Each phase is priced once as arrays; a candidate is a pair of phases. On one slice the two take turns over one resident
copy of the weights, so they share mesh, stages, replicas, stored forms and formats; the cache of the decode batch stays
while the next prompts are read.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.cluster import Slice
from ..hardware_specs.units import format_bytes, format_seconds
from ..models.params import sequence_bytes
from ..simulator.cost.handoff import States, handoff_s, state_moves
from ..simulator.cost.machine import make_machine
from ..simulator.cost.phases import written
from .pareto import pareto_indices
from .priced import Groups, PricedCells, joined, price_slices
from .request import PlanRequest
from .space import Choice

_KEEP = 64


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
    cache_forms: dict[States, int] = field(default_factory=dict)
    least_over_bytes: tuple[float, str] = (np.inf, "")
    least_ttft_s: float = np.inf
    least_tpot_s: float = np.inf
    wall_s: float = 0.0


def search(request: PlanRequest) -> Found:
    """Find the best pairs by the objective and the frontier of latency against chip-seconds."""
    started = time.perf_counter()
    found = Found()
    prefill = price_slices(request, request.slices, "prefill", found.rejected, found.cache_forms)
    decode = price_slices(request, request.decode_slices, "decode", found.rejected, found.cache_forms)
    phases = [cells for slices in (prefill, decode) for groups in slices.values() for cells in groups.values()]
    found.n_phase_cells = sum(len(cells.batch) for cells in phases)
    if request.sharing != "separate":
        for slice_ in request.slices:
            for joint in shared_pairs(request, slice_, prefill[slice_], decode[slice_], found):
                ok = _within_limits(request, joint.prefill, joint.decode, joint.fits, found)
                _keep(request, joint, ok, found, shared=True)
    if request.sharing != "shared":
        _pair_across_slices(request, prefill, decode, found)
    found.pairs = rank(request, found.pairs)[:_KEEP]
    if found.frontier:
        latency = np.array([pair.latency_s for pair in found.frontier])
        chip = np.array([pair.chip_s for pair in found.frontier])
        found.frontier = [found.frontier[i] for i in pareto_indices(latency, chip)]
    found.wall_s = time.perf_counter() - started
    return found


def rank(request: PlanRequest, pairs: list[Pair]) -> list[Pair]:
    """Best first by the objective, the other figure breaking ties."""
    keys = {
        "latency": lambda p: (p.latency_s, p.chip_s),
        "cost": lambda p: (p.chip_s, p.latency_s),
        "throughput": lambda p: (-p.requests_per_s, p.latency_s),
    }
    return sorted(pairs, key=keys[request.objective])


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """Prefill and decode candidates and what each pair of them comes to, arrays (n_prefill, n_decode).

    `fits` says which pairs may be and lie in memory, `rate` is in requests a second.
    """

    prefill: PricedCells
    decode: PricedCells
    fits: NDArray[np.bool_]
    latency_s: NDArray[np.float64]
    chip_s: NDArray[np.float64]
    rate: NDArray[np.float64]
    handoff_s: NDArray[np.float64]

    def pair(self, row: int, column: int, *, shared: bool) -> Pair:
        """One pair by itself."""
        return Pair(
            prefill=self.prefill.choice(row),
            decode=self.decode.choice(column),
            shared=shared,
            handoff_s=float(self.handoff_s[row, column]),
            latency_s=float(self.latency_s[row, column]),
            chip_s=float(self.chip_s[row, column]),
            requests_per_s=float(self.rate[row, column]),
        )


def shared_pairs(request: PlanRequest, slice_: Slice, prefill: Groups, decode: Groups, found: Found) -> Iterator[Joint]:
    """Every pair that shares a resident copy of the weights on one slice; what does not fit is counted."""
    limit = request.limit_bytes(slice_)
    for key, p in prefill.items():
        if key not in decode:
            continue
        d = decode[key]
        # what is read at once is decoded together: more prompts than the decode batch would only wait
        allowed = p.batch[:, None] <= d.batch[None, :]
        if request.model.bidirectional:  # which has no decode to gather prompts for
            allowed = p.batch[:, None] == d.batch[None, :]
        found.n_candidates += int(np.count_nonzero(allowed))
        kv = np.maximum(p.kv_bytes[:, None], d.kv_bytes[None, :])
        peak = p.weights_bytes[:, None] + kv + np.maximum(p.work_bytes[:, None], d.work_bytes[None, :])
        fits = _refuse(found, "out of memory", allowed, peak > limit)
        note_bytes(found, peak[allowed], limit, slice_)
        handoff = _resharding_s(request, slice_, p, d, found)
        chip = p.chip_s[:, None] + d.chip_s[None, :] + handoff * slice_.n_chips / p.batch[:, None]
        latency = p.latency_s[:, None] + d.latency_s[None, :] + handoff
        rate = slice_.n_chips / chip
        yield Joint(prefill=p, decode=d, fits=fits, latency_s=latency, chip_s=chip, rate=rate, handoff_s=handoff)


# Sequences by which a reshard of the cache is priced for one: enough for every axis to divide.
MANY_SEQUENCES = 4096.0


def _resharding_s(
    request: PlanRequest, slice_: Slice, p: PricedCells, d: PricedCells, found: Found
) -> NDArray[np.float64]:
    """Seconds to bring the cache of a prefill batch into the form decode reads, (n_prefill, n_decode).

    Every candidate of `p` lies on the same mesh; the volume grows with the batch, the latency does not.
    """
    engine = request.calibration(slice_).engine
    cells, i = p.origins[0]
    machine, setting = make_machine(slice_.chip, [cells.meshes[cells.mesh[i]]]), cells.setting
    forms = list(found.cache_forms)
    latency = np.zeros((len(forms), len(forms)))
    each = np.zeros((len(forms), len(forms)))
    for a, b in product(np.unique(p.cache), np.unique(d.cache)):
        moves = state_moves(forms[a], forms[b])
        if moves:
            latency[a, b] = float(handoff_s(setting, moves, machine, 0.0, engine))
            each[a, b] = (
                float(handoff_s(setting, moves, machine, MANY_SEQUENCES, engine)) - latency[a, b]
            ) / MANY_SEQUENCES
    where = np.ix_(p.cache, d.cache)
    return latency[where] + each[where] * (p.batch / setting.dp)[:, None]


def _refuse(found: Found, reason: str, candidates: NDArray[np.bool_], failing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Count the candidates that fail, and return those that are left."""
    _count(found, reason, candidates & failing)
    return candidates & ~failing


def note_bytes(found: Found, peak: NDArray[np.float64], limit: float, slice_: Slice) -> None:
    """Remember the candidate that came nearest to fitting."""
    least = float(np.min(peak, initial=np.inf))
    if least - limit < found.least_over_bytes[0]:
        needs = f"{format_bytes(least)} per chip on {slice_}, {format_bytes(limit)} may be used"
        found.least_over_bytes = (least - limit, needs)


def _within_limits(
    request: PlanRequest, p: PricedCells, d: PricedCells, ok: NDArray[np.bool_], found: Found
) -> NDArray[np.bool_]:
    """Which of the pairs that fit keep the limits; each other is counted under the first it breaks."""
    ttft, tpot = (np.broadcast_to(x, ok.shape) for x in (p.pass_s[:, None], d.pass_s[None, :]))
    found.least_ttft_s = min(found.least_ttft_s, float(np.min(ttft[ok], initial=np.inf)))
    found.least_tpot_s = min(found.least_tpot_s, float(np.min(tpot[ok], initial=np.inf)))
    if request.slo.ttft_s is not None:
        ok = _refuse(found, "TTFT over the limit", ok, ttft > request.slo.ttft_s)
    if request.slo.tpot_s is not None:
        ok = _refuse(found, "TPOT over the limit", ok, tpot > request.slo.tpot_s)
    return ok


def _count(found: Found, reason: str, mask: NDArray[np.bool_]) -> None:
    n = int(np.count_nonzero(mask))
    if n:
        found.rejected[reason] += n


def _keep(request: PlanRequest, joint: Joint, ok: NDArray[np.bool_], found: Found, *, shared: bool) -> None:
    """Keep the best few of the pairs that are `ok` by the objective, and those on the frontier."""
    rows, columns = np.nonzero(ok)
    if not len(rows):
        return
    latency, chip, rate = (x[rows, columns] for x in (joint.latency_s, joint.chip_s, joint.rate))
    merit = {"latency": latency, "cost": chip, "throughput": -rate}[request.objective]
    best = _lowest(merit, chip if request.objective == "latency" else latency)

    def pair(i: int) -> Pair:
        return joint.pair(int(rows[i]), int(columns[i]), shared=shared)

    found.pairs += [pair(int(i)) for i in best]
    found.frontier += [pair(int(i)) for i in pareto_indices(latency, chip)]
    if len(found.pairs) > 32 * _KEEP:
        found.pairs = rank(request, found.pairs)[:_KEEP]


def _lowest(merit: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the lowest few by `merit`, ties by `second`."""
    few = np.arange(len(merit))
    if len(merit) > _KEEP:
        few = np.flatnonzero(merit <= np.partition(merit, _KEEP - 1)[_KEEP - 1])
    return few[np.lexsort((second[few], merit[few]))][:_KEEP]


def _pair_across_slices(
    request: PlanRequest, prefill: dict[Slice, Groups], decode: dict[Slice, Groups], found: Found
) -> None:
    """Prefill on one slice, decode on another: each phase's own best, joined where the cache has one format.

    Of each phase only the candidates that nothing beats on latency and cost can be part of a best pair.
    """
    p_fronts = [(s, *front) for s, groups in prefill.items() for front in _fronts(request, s, groups, found)]
    d_fronts = [(s, *front) for s, groups in decode.items() for front in _fronts(request, s, groups, found)]
    for p_slice, p_kv, p in p_fronts:
        for d_slice, d_kv, d in d_fronts:
            n_chips = p_slice.n_chips + d_slice.n_chips
            if p_kv != d_kv or n_chips > request.max_chips:
                continue
            handoff = np.broadcast_to(_handoff_s(request, p_slice, d_slice, p), (len(p.batch), len(d.batch)))
            # the slowest of both pools and the way between them sets the pace
            busy_s = np.maximum(p.chip_s[:, None] / p_slice.n_chips, d.chip_s[None, :] / d_slice.n_chips)
            busy_s = np.fmax(busy_s, handoff / p.batch[:, None])
            joint = Joint(
                prefill=p,
                decode=d,
                fits=np.ones(busy_s.shape, np.bool_),
                latency_s=p.latency_s[:, None] + d.latency_s[None, :] + np.nan_to_num(handoff),
                chip_s=n_chips * busy_s,
                rate=1.0 / busy_s,
                handoff_s=handoff,
            )
            found.n_candidates += busy_s.size
            ok = _within_limits(request, p, d, joint.fits, found)
            _keep(request, joint, ok, found, shared=False)


def _fronts(request: PlanRequest, slice_: Slice, groups: Groups, found: Found) -> list[tuple[str, PricedCells]]:
    """The candidates of a phase that fit on a slice and that nothing beats, by cache format."""

    def kv_of(group: PricedCells) -> str:
        return group.origins[0][0].setting.formats.kv.name

    fronts = []
    for kv, members in groupby(sorted(groups.values(), key=kv_of), key=kv_of):
        cells = joined(list(members))
        limit = request.limit_bytes(slice_)
        peak = cells.weights_bytes + cells.kv_bytes + cells.work_bytes
        note_bytes(found, peak, limit, slice_)
        fits = np.flatnonzero(peak <= limit)
        if request.sharing == "separate":
            found.n_candidates += len(peak) - len(fits)
            _count(found, "out of memory", peak > limit)
        if len(fits):
            fronts.append((kv, cells.take(_unbeaten(cells, fits))))
    return fronts


def _unbeaten(cells: PricedCells, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those that none of the same batch beats: how long a cache takes to the other slice grows with the batch."""
    alike = [among[cells.batch[among] == batch] for batch in np.unique(cells.batch[among])]
    return np.concatenate([index[pareto_indices(cells.latency_s[index], cells.chip_s[index])] for index in alike])


def _handoff_s(request: PlanRequest, p_slice: Slice, d_slice: Slice, p: PricedCells) -> NDArray[np.float64]:
    """Seconds to send one prefill batch's cache to the other slice over every chip's network port.

    NaN where a chip claims no network between slices: the way is not priced then, and the plan says so.
    """
    ports = [s.chip.scale_out_bytes_per_s for s in (p_slice, d_slice)]
    if ports[0] is None or ports[1] is None:
        return np.full((len(p.latency_s), 1), np.nan)
    rate = min(p_slice.n_chips * ports[0].value, d_slice.n_chips * ports[1].value)
    total = p.batch * _prompt_bytes(p)
    return (total / rate)[:, None]


def _prompt_bytes(p: PricedCells) -> float:
    setting = p.origins[0][0].setting
    formats, tokens = setting.formats, float(written(setting).input_tokens)
    return sequence_bytes(
        setting.model,
        tokens,
        kv_bytes=formats.kv.bytes_per_element,
        state_bytes=formats.state.bytes_per_element,
        conv_bytes=formats.activations.bytes_per_element,
        input_tokens=0.0 if setting.model.encoder is None else float(setting.workload.input_tokens),
    )


def nearest_miss(request: PlanRequest, found: Found) -> str | None:
    """The sentence that says how far the nearest candidate was, where none is feasible."""
    if found.pairs:
        return None
    over, needs = found.least_over_bytes
    if not np.isfinite(found.least_ttft_s):
        if not np.isfinite(over):
            return f"nothing lies on any mesh of the pool: {'; '.join(found.rejected) or 'no mesh is left'}"
        return f"the smallest candidate needs {needs}; try more chips, a smaller batch, or --weights int8"
    best = []
    if request.slo.ttft_s is not None:
        best.append(f"TTFT {format_seconds(found.least_ttft_s)} (limit {format_seconds(request.slo.ttft_s)})")
    if request.slo.tpot_s is not None:
        best.append(f"TPOT {format_seconds(found.least_tpot_s)} (limit {format_seconds(request.slo.tpot_s)})")
    return f"the quickest that fits has {' and '.join(best)}, each at its best; relax the limit or take more chips"
