"""The best pair of a prefill and a decode phase at every point of one slice, over one resident copy of the weights.

The same pairs, limits and order as in `planner.search`, taken for many points at once: each prefill candidate meets all
decode candidates as one table over the points at which it can still win.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.cluster import Slice
from ...simulator.cost.handoff import States, handoff_s, state_moves
from ...simulator.cost.machine import at_speed, make_machine
from ...simulator.cost.price import Engine
from ..result import Objective
from ..search import MANY_SEQUENCES
from .blocks import Priced
from .points import Column, Points

Index = NDArray[np.int64]
_ROW = ("latency_s", "pass_s", "batch", "weights_bytes", "kv_bytes", "work_bytes", "cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a pair must keep at each point, (n,): infinite where nothing is asked."""

    limit_bytes: Column
    ttft_s: Column
    tpot_s: Column
    least_rate_per_s: Column


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate of a phase: the set it is in, and its row there."""

    priced: Priced
    row: int

    def column(self, name: str) -> NDArray[np.float64]:
        """One of its figures at every pricing point."""
        values: NDArray[np.float64] = getattr(self.priced, name)[self.row]
        return values


@dataclass(slots=True, kw_only=True)
class Best:
    """The best pair so far at each point, and how near the others came; changed by `choose` alone.

    `prefill` and `decode` are places in `prefill_rows` and `decode_rows`, -1 where no pair will do.
    """

    prefill_rows: list[Row]
    decode_rows: list[Row]
    prefill: Index
    decode: Index
    group: Index
    merit: Column
    second: Column
    latency_s: Column
    chip_s: Column
    peak_bytes: Column
    n_pairs: Index
    least_bytes: Column
    least_ttft_s: Column
    least_tpot_s: Column
    most_rate_per_s: Column


@dataclass(slots=True, kw_only=True)
class _Group:
    """Candidates that share everything a pair must share, as places among the rows of each phase."""

    prefill: list[int] = field(default_factory=list)
    decode: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """What every pair of one slice is judged with; `at` is the pricing point of each point."""

    slice: Slice
    points: Points
    at: Index
    bounds: Bounds
    objective: Objective
    engine: Engine
    forms: Sequence[States]


def choose(
    slice_: Slice,
    prefill: Sequence[Priced],
    decode: Sequence[Priced],
    *,
    points: Points,
    at: Index,
    bounds: Bounds,
    objective: Objective,
    engine: Engine,
    forms: Sequence[States],
) -> Best:
    """Find the best pair at every point of a slice.

    Parameters
    ----------
    points : what was priced
    at : (n,) place in `points` of each point that is asked
    bounds : of each point
    """
    rows = [[Row(priced, r) for priced in phase for r in range(len(priced.latency_s))] for phase in (prefill, decode)]
    groups: dict[tuple[object, ...], _Group] = {}
    for name, found in zip(("prefill", "decode"), rows, strict=True):
        for place, row in enumerate(found):
            getattr(groups.setdefault(row.priced.variants.shared(row.row), _Group()), name).append(place)
    setup = _Setup(slice=slice_, points=points, at=at, bounds=bounds, objective=objective, engine=engine, forms=forms)
    best = _nothing(len(at), *rows)
    whole = [group for group in groups.values() if group.prefill and group.decode]
    floors = [_floor(group, best, setup) for group in whole]
    for i in np.argsort([float(np.mean(np.minimum(floor, 1e30))) for floor in floors], kind="stable"):
        _try_group(whole[i], int(i), floors[i], best, setup)
    return best


def _nothing(n: int, prefill_rows: list[Row], decode_rows: list[Row]) -> Best:
    def full(value: float) -> Column:
        return np.full(n, value)

    return Best(
        prefill_rows=prefill_rows,
        decode_rows=decode_rows,
        prefill=np.full(n, -1),
        decode=np.full(n, -1),
        group=np.full(n, -1),
        merit=full(np.inf),
        second=full(np.inf),
        latency_s=full(np.nan),
        chip_s=full(np.nan),
        peak_bytes=full(np.nan),
        n_pairs=np.zeros(n, np.int64),
        least_bytes=full(np.inf),
        least_ttft_s=full(np.inf),
        least_tpot_s=full(np.inf),
        most_rate_per_s=full(0.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """Figures of candidates at points: (n,) of one, (n_rows, n) of many. Seconds are infinite where one cannot be."""

    latency_s: Column
    pass_s: Column
    batch: Column
    weights_bytes: Column
    kv_bytes: Column
    work_bytes: Column
    cache: Column

    def at(self, index: Index) -> "_Side":
        """At some of the points."""
        return _Side(**{name: getattr(self, name)[..., index] for name in _ROW})

    def chip_s(self, n_chips: int) -> Column:
        """Chip-seconds a request."""
        return np.where(np.isfinite(self.latency_s), n_chips * self.latency_s / self.batch, np.inf)

    def merit(self, setup: _Setup) -> Column:
        """What the objective counts."""
        return self.latency_s if setup.objective == "latency" else self.chip_s(setup.slice.n_chips)


def _side(rows: Sequence[Row], where: Index) -> _Side:
    return _Side(**{name: np.array([row.column(name)[where] for row in rows], float) for name in _ROW})


def _floor(group: _Group, best: Best, setup: _Setup) -> Column:
    """What no pair of a group can be below, at each point: each phase at its best."""
    every = np.arange(len(setup.points))
    least = [
        _side([rows[i] for i in places], every).merit(setup).min(axis=0)
        for rows, places in ((best.prefill_rows, group.prefill), (best.decode_rows, group.decode))
    ]
    floor: Column = (least[0] + least[1])[setup.at]
    return floor


_Handoffs = dict[tuple[int, int], tuple[Column, Column]]


def _try_group(group: _Group, number: int, floor: Column, best: Best, setup: _Setup) -> None:
    """Try every pair of a group where it can still win; of equals the group that was found first is taken."""
    open_ = np.flatnonzero(floor <= best.merit)
    if not len(open_):
        return
    where = setup.at[open_]
    prefills = _side([best.prefill_rows[i] for i in group.prefill], where)
    decodes = _side([best.decode_rows[i] for i in group.decode], where)
    p_merits, least = prefills.merit(setup), decodes.merit(setup).min(axis=0)
    handoffs: _Handoffs = {}
    for i in np.argsort([float(np.mean(np.minimum(row, 1e30))) for row in p_merits], kind="stable"):
        alive = np.flatnonzero(np.isfinite(p_merits[i]) & (p_merits[i] + least <= best.merit[open_]))
        if len(alive):
            one = _Side(**{name: getattr(prefills, name)[i][alive] for name in _ROW})
            place = group.prefill[i]
            others = decodes.at(alive)
            can_win = p_merits[i][alive] + others.merit(setup) <= best.merit[open_[alive]]
            made = _pairs(one, others, can_win, best.prefill_rows[place], where[alive], setup, handoffs)
            _keep(made, (number, place), group.decode, open_[alive], best, setup)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """One prefill candidate with each decode candidate, (n_decode, n); `exists` where both phases can be together."""

    exists: NDArray[np.bool_]
    peak_bytes: Column
    ttft_s: Column
    tpot_s: Column
    latency_s: Column
    chip_s: Column


def _pairs(
    p: _Side,
    d: _Side,
    can_win: NDArray[np.bool_],
    p_row: Row,
    where: Index,
    setup: _Setup,
    handoffs: _Handoffs,
) -> _Pairs:
    """What pairs come to; as in `planner.search`, no more prompts are read at once than are decoded.

    The cache's way from form to form is worked out for pairs that can win without it.
    """
    n_chips = setup.slice.n_chips
    handoff = _handoff(p_row, p, d, can_win, where, setup, handoffs)
    return _Pairs(
        exists=(p.batch <= d.batch) & np.isfinite(d.latency_s),
        peak_bytes=p.weights_bytes + np.maximum(p.kv_bytes, d.kv_bytes) + np.maximum(p.work_bytes, d.work_bytes),
        ttft_s=np.broadcast_to(p.pass_s, d.pass_s.shape),
        tpot_s=d.pass_s,
        latency_s=p.latency_s + d.latency_s + handoff,
        chip_s=p.chip_s(n_chips) + d.chip_s(n_chips) + handoff * n_chips / p.batch,
    )


def _keep(made: _Pairs, found: tuple[int, int], decodes: Sequence[int], at: Index, best: Best, setup: _Setup) -> None:
    """Keep the pairs of a prefill candidate, `found` as its group and place, that beat the best; note how near others came."""
    ok, bounds = made.exists, setup.bounds
    best.n_pairs[at] += ok.sum(axis=0)
    _note(best.least_bytes, at, made.peak_bytes, ok)
    fits = ok & (made.peak_bytes <= bounds.limit_bytes[at])
    _note(best.least_ttft_s, at, made.ttft_s, fits)
    _note(best.least_tpot_s, at, made.tpot_s, fits)
    keeps = fits & (made.ttft_s <= bounds.ttft_s[at]) & (made.tpot_s <= bounds.tpot_s[at])
    rate = setup.slice.n_chips / made.chip_s
    best.most_rate_per_s[at] = np.maximum(best.most_rate_per_s[at], np.where(keeps, rate, 0.0).max(axis=0))
    keeps &= rate >= bounds.least_rate_per_s[at]
    merits = (made.latency_s, made.chip_s) if setup.objective == "latency" else (made.chip_s, made.latency_s)
    merit = np.where(keeps, merits[0], np.inf)
    least = merit.min(axis=0)
    chosen = np.where(merit == least, np.where(keeps, merits[1], np.inf), np.inf).argmin(axis=0)
    columns = np.arange(len(at))
    second = merits[1][chosen, columns]
    group, place = found
    first = (group < best.group[at]) | ((group == best.group[at]) & (place < best.prefill[at]))
    equal = least == best.merit[at]
    wins = (
        (least < best.merit[at]) | (equal & (second < best.second[at])) | (equal & (second == best.second[at]) & first)
    )
    wins &= np.isfinite(least)
    to, row, column = at[wins], chosen[wins], columns[wins]
    best.group[to] = group
    best.prefill[to], best.decode[to] = place, np.array(decodes)[row]
    best.merit[to], best.second[to] = least[wins], second[wins]
    for name in ("latency_s", "chip_s", "peak_bytes"):
        getattr(best, name)[to] = getattr(made, name)[row, column]


def _note(least: Column, at: Index, values: Column, where: NDArray[np.bool_]) -> None:
    least[at] = np.minimum(least[at], np.where(where, values, np.inf).min(axis=0))


def _handoff(
    p_row: Row, p: _Side, d: _Side, wanted: NDArray[np.bool_], where: Index, setup: _Setup, known: _Handoffs
) -> Column:
    """Seconds to bring the cache of a prefill batch into the form decode reads, (n_decode, n), where they are wanted."""
    total = np.zeros(d.cache.shape)
    before = np.broadcast_to(p.cache, d.cache.shape)
    differs = wanted & (before != d.cache) & (d.cache >= 0)
    if not differs.any():
        return total
    dp = p_row.priced.variants.laid.setting.dp
    for a, b in np.unique(np.column_stack([before[differs], d.cache[differs]]), axis=0).astype(int):
        if (a, b) not in known:
            known[a, b] = _line(p_row, a, b, setup)
        fixed, each = known[a, b]
        total += np.where((before == a) & (d.cache == b), fixed[where] + each[where] * (p.batch / dp), 0.0)
    return total


def _line(p_row: Row, a: int, b: int, setup: _Setup) -> tuple[Column, Column]:
    """Seconds of one reshard whatever the batch, and more of them for each sequence, at every pricing point."""
    moves = state_moves(setup.forms[a], setup.forms[b])
    n = len(setup.points)
    if not moves:
        return np.zeros(n), np.zeros(n)
    laid = p_row.priced.variants.laid
    machine = make_machine(laid.slice.chip, [laid.meshes[p_row.priced.variants.mesh[p_row.row]]])
    if setup.points.speed is not None:
        machine = at_speed(machine, setup.points.speed)
    works = setup.points.works
    fixed, many = (
        np.broadcast_to(handoff_s(laid.setting, moves, machine, count, setup.engine, works), (n,))
        for count in (0.0, MANY_SEQUENCES)
    )
    return fixed, (many - fixed) / MANY_SEQUENCES
