"""Price every candidate of a phase, as few long arrays.

What differs in mesh, batch, replicas and slice alone goes through the cost model together.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.cluster import Slice
from ..models.forms import AXES
from ..simulator.cost.handoff import States
from ..simulator.cost.machine import make_machine, take
from ..simulator.cost.phases import PhaseSetting, lower_phase, price_phase
from ..simulator.cost.price import Engine
from ..simulator.types import PhaseName
from .request import PlanRequest
from .space import Cells, Choice, formats_key, phase_cells, stored_key

# Candidates of one array: long enough that numpy does the work, short enough to stay in cache.
_CHUNK = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCells:
    """The candidates of one phase that share everything a pair must share; each array (n,).

    `work_bytes` are activations and gathered weights, `chip_s` chip-seconds a request; `cache` numbers the form the cache
    has in this phase.
    """

    origins: list[tuple[Cells, int]]
    latency_s: NDArray[np.float64]
    pass_s: NDArray[np.float64]
    chip_s: NDArray[np.float64]
    batch: NDArray[np.float64]
    weights_bytes: NDArray[np.float64]
    kv_bytes: NDArray[np.float64]
    work_bytes: NDArray[np.float64]
    cache: NDArray[np.int64]

    def choice(self, i: int) -> Choice:
        """Candidate `i` by itself."""
        cells, j = self.origins[i]
        return cells.choice(j)

    def take(self, index: NDArray[np.int64]) -> "PricedCells":
        """Some of the candidates."""
        columns = {name: getattr(self, name)[index] for name in _COLUMNS}
        return PricedCells(origins=[self.origins[i] for i in index], **columns)


_COLUMNS = tuple(name for name in PricedCells.__dataclass_fields__ if name != "origins")


def joined(parts: list[PricedCells]) -> PricedCells:
    """Several sets of candidates as one."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    return PricedCells(origins=[origin for part in parts for origin in part.origins], **columns)


Groups = dict[tuple[object, ...], PricedCells]


def price_slices(
    request: PlanRequest,
    slices: Sequence[Slice],
    phase: PhaseName,
    rejected: Counter[str],
    cache_forms: dict[States, int],
) -> dict[Slice, Groups]:
    """Price a phase on every slice, grouped by what both phases of a pair on one slice must share.

    Parameters
    ----------
    rejected : counts what is refused before it is priced
    cache_forms : numbers the forms the cache takes, added to
    """
    engine = request.calibration(slices[0]).engine
    parts: dict[Slice, dict[tuple[object, ...], list[PricedCells]]] = {slice_: {} for slice_ in slices}
    for cells, priced in _priced(request, slices, phase, engine, rejected, cache_forms):
        setting = cells.setting
        for i in np.unique(cells.mesh):
            parts[cells.slice].setdefault(shared_key(setting, int(i)), []).append(
                priced.take(np.flatnonzero(cells.mesh == i))
            )
    return {slice_: {key: joined(held) for key, held in groups.items()} for slice_, groups in parts.items()}


def shared_key(setting: PhaseSetting, mesh: int) -> tuple[object, ...]:
    """What both phases of a pair on one slice must share, with the place of its mesh."""
    stored, formats = stored_key(setting), formats_key(setting.formats)
    return setting.pp, setting.dp, mesh, stored, setting.head_axes, formats, setting.page_size


def _priced(
    request: PlanRequest,
    slices: Sequence[Slice],
    phase: PhaseName,
    engine: Engine,
    rejected: Counter[str],
    cache_forms: dict[States, int],
) -> Iterator[tuple[Cells, PricedCells]]:
    """Every set of cells with its prices; sets that run one program on one kind of wires are priced together.

    Pipelines of any length run one program, and a lone stage another.
    """
    waiting: dict[tuple[PhaseSetting, bool, bool], list[Cells]] = {}
    for slice_ in slices:
        for cells in phase_cells(request, slice_, phase, engine, rejected):
            setting = replace(cells.setting, pp=1, dp=1)
            alike = (setting, cells.setting.pp > 1, cells.meshes[0].stages_cross)
            waiting.setdefault(alike, []).append(cells)
            if sum(len(held.batch) for held in waiting[alike]) >= _CHUNK:
                yield from _price_together(setting, waiting.pop(alike), engine, cache_forms)
    for (setting, _, _), held in waiting.items():
        yield from _price_together(setting, held, engine, cache_forms)


def _price_together(
    setting: PhaseSetting, held: list[Cells], engine: Engine, cache_forms: dict[States, int]
) -> list[tuple[Cells, PricedCells]]:
    """Price sets of cells as one array: a replica each, with its part of the batch and its stages."""
    offsets = np.cumsum([0, *(len(cells.meshes) for cells in held)])
    machine = make_machine(held[0].slice.chip, list(chain.from_iterable(cells.meshes for cells in held)))
    mesh = np.concatenate([cells.mesh + offset for cells, offset in zip(held, offsets, strict=False)])
    price = price_phase(
        setting,
        take(machine, mesh),
        np.concatenate([cells.batch / cells.setting.dp for cells in held]),
        engine,
        n_microbatches=np.concatenate([cells.n_microbatches for cells in held]),
        pp=np.concatenate([np.full(len(cells.batch), float(cells.setting.pp)) for cells in held]),
    )
    batch = np.concatenate([cells.batch for cells in held])
    n_chips = np.concatenate([np.full(len(cells.batch), cells.slice.n_chips) for cells in held])
    everything = PricedCells(
        origins=[(cells, i) for cells in held for i in range(len(cells.batch))],
        latency_s=price.latency_s,
        pass_s=price.pass_s,
        chip_s=price.latency_s * n_chips / batch,
        batch=batch,
        weights_bytes=np.asarray(price.memory.weights),
        kv_bytes=np.asarray(price.memory.kv_cache),
        work_bytes=np.asarray(price.memory.activations + price.memory.gathered),
        cache=cache_numbers(setting, engine, cache_forms)[price.n_batch_axes],
    )
    ends = np.cumsum([0, *(len(cells.batch) for cells in held)])
    return [(cells, everything.take(np.arange(ends[i], ends[i + 1]))) for i, cells in enumerate(held)]


def cache_numbers(setting: PhaseSetting, engine: Engine, cache_forms: dict[States, int]) -> NDArray[np.int64]:
    """The number of the cache's form for each count of axes that may divide the batch."""
    forms = (lower_phase(setting, AXES[:n], engine).states for n in range(len(AXES) + 1))
    return np.array([cache_forms.setdefault(form, len(cache_forms)) for form in forms])
