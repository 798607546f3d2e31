"""The pairs of a request that some limits, some batch and some number of chips would make the best."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..priced import price_slices
from ..request import PlanRequest
from ..search import Found, Joint, Pair, shared_pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """Pairs as arrays, each (n,): where they come from, and what a choice among them looks at."""

    joint: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    n_chips: NDArray[np.int64]
    batch: NDArray[np.int64]
    prefill_batch: NDArray[np.int64]
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    handoff_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    chip_s: NDArray[np.float64]

    def take(self, index: NDArray[np.int64]) -> "_Points":
        """Some of the points."""
        return _Points(**{name: getattr(self, name)[index] for name in _FIELDS})


_FIELDS = tuple(_Points.__dataclass_fields__)


def unbeaten_pairs(request: PlanRequest, found: Found) -> list[Pair]:
    """Pairs on one slice that no other of their chips and decode batch is as good as in everything a choice looks at.

    That is TTFT, TPOT, request latency and chip-seconds: under any limits, and best by latency, cost or throughput, the
    best pair is among them. `found` counts what was refused.
    """
    prefill = price_slices(request, request.slices, "prefill", found.rejected, found.cache_forms)
    decode = price_slices(request, request.decode_slices, "decode", found.rejected, found.cache_forms)
    joints: list[Joint] = []
    parts = []
    for slice_ in request.slices:
        for joint in shared_pairs(request, slice_, prefill[slice_], decode[slice_], found):
            parts.append(_points(joint, len(joints), slice_.n_chips))
            joints.append(joint)
    if not any(len(part.row) for part in parts):
        return []
    points = _Points(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS})
    points = _quickest_of_batches(points)
    kept = [points.take(index[_unbeaten(points.take(index))]) for index in _alike(points.n_chips, points.batch)]
    return [
        joints[joint].pair(row, column, shared=True)
        for part in kept
        for joint, row, column in zip(part.joint.tolist(), part.row.tolist(), part.column.tolist(), strict=True)
    ]


def _points(joint: Joint, number: int, n_chips: int) -> _Points:
    """The pairs of a joint that fit."""
    row, column = np.nonzero(joint.fits)
    return _Points(
        joint=np.full(len(row), number),
        row=row,
        column=column,
        n_chips=np.full(len(row), n_chips),
        batch=joint.decode.batch[column].astype(np.int64),
        prefill_batch=joint.prefill.batch[row].astype(np.int64),
        ttft_s=joint.prefill.pass_s[row],
        tpot_s=joint.decode.pass_s[column],
        handoff_s=joint.handoff_s[row, column],
        latency_s=joint.latency_s[row, column],
        chip_s=joint.chip_s[row, column],
    )


def _group(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """A number for each row, equal where the rows are."""
    number = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        number = number * len(values) + place
    return number


def _alike(*columns: NDArray[np.generic]) -> Iterator[NDArray[np.int64]]:
    """Places of equal rows, a group at a time."""
    group = _group(*columns)
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _quickest_of_batches(points: _Points) -> _Points:
    """Of pairs alike in chips, both batches and handoff, those that none beats in TTFT and TPOT: they decide the rest."""
    group = _group(points.n_chips, points.batch, points.prefill_batch, points.handoff_s)
    order = np.lexsort((points.tpot_s, points.ttft_s, group))
    # by falling group, so that the lowest so far of one group is above all of the next
    rank = np.unique(points.tpot_s, return_inverse=True)[1]
    height = (rank - group * (len(rank) + 1))[order]
    lowest = np.minimum.accumulate(height)
    return points.take(order[np.concatenate(([True], height[1:] < lowest[:-1]))])


def _unbeaten(points: _Points) -> NDArray[np.int64]:
    """Places of the points that none is at least as low as in all four figures and lower in one; of equals, the first."""
    figures = np.stack((points.chip_s, points.latency_s, points.ttft_s, points.tpot_s), axis=1)
    order = np.lexsort(figures.T[::-1])
    figures = figures[order]
    lower = np.all(figures[:, None, :] <= figures[None, :, :], axis=2)
    # sorted by all figures, only an earlier point can be as low in each
    beaten = np.any(np.triu(lower, k=1), axis=0)
    left: NDArray[np.int64] = order[~beaten]
    return left
