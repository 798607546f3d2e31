"""Everything a phase can be on its slices, priced at every point: rows of candidates, columns of points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ...simulator.cost.handoff import States
from ...simulator.cost.machine import Machine, at_speed, make_machine, take, with_dimensions
from ...simulator.cost.phases import PhaseSetting, price_phase
from ...simulator.cost.price import Engine
from ...simulator.types import PhaseName, Workload
from ..priced import cache_numbers, shared_key
from ..space import Laid, microbatch_choices
from .points import Points
from .tail import Tail, make_tail

# Numbers of one pricing call: long enough that numpy does the work, short enough to stay in cache.
_CHUNK = 131072


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """Candidates of one setting, each (n_rows,), and where each can be, (n_rows, n_points).

    `batch` is NaN where a row takes each point's own.
    """

    laid: Laid
    points: Points
    mesh: NDArray[np.int64]
    n_microbatches: NDArray[np.float64]
    batch: NDArray[np.float64]
    allowed: NDArray[np.bool_]

    def shared(self, row: int) -> tuple[object, ...]:
        """What both phases of a pair must have alike."""
        return shared_key(self.laid.setting, int(self.mesh[row]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """Prices of `Variants`, each (n_rows, n_points); seconds are infinite where a row cannot be."""

    variants: Variants
    latency_s: NDArray[np.float64]
    pass_s: NDArray[np.float64]
    batch: NDArray[np.float64]
    weights_bytes: NDArray[np.float64]
    kv_bytes: NDArray[np.float64]
    work_bytes: NDArray[np.float64]
    cache: NDArray[np.int64]


def make_variants(laid: Laid, phase: PhaseName, points: Points, batches: Sequence[int], engine: Engine) -> Variants:
    """Every mesh, batch and cut into micro-batches of a setting.

    Parameters
    ----------
    batches : tried at points that leave the batch open
    """
    own = points.prefill_batch if phase == "prefill" else points.decode_batch
    rows: list[tuple[int, int, float]] = []
    masks: list[NDArray[np.bool_]] = []
    for batch, n_micro, mask in _cuts(laid.setting, own, points, batches, engine):
        rows += [(mesh, n_micro, batch) for mesh in laid.chosen]
        masks += [mask] * len(laid.chosen)
    table = np.array(rows, float).reshape(len(rows), 3)
    return Variants(
        laid=laid,
        points=points,
        mesh=table[:, 0].astype(np.int64),
        n_microbatches=table[:, 1],
        batch=table[:, 2],
        allowed=np.array(masks, bool).reshape(len(rows), len(points)),
    )


def _cuts(
    setting: PhaseSetting, own: NDArray[np.float64], points: Points, batches: Sequence[int], engine: Engine
) -> Iterator[tuple[float, int, NDArray[np.bool_]]]:
    """(batch, micro-batches, points at which they can be); batch NaN is each point's own."""
    is_open = np.isnan(own)
    if is_open.any():
        for batch in batches:
            for n_micro, mask in _by_choice(setting, [(float(batch), is_open)], points, engine).items():
                yield float(batch), n_micro, mask
    given = [(float(batch), own == batch) for batch in np.unique(own[~is_open])]
    for n_micro, mask in _by_choice(setting, given, points, engine).items():
        yield np.nan, n_micro, mask


def _by_choice(
    setting: PhaseSetting, parts: Sequence[tuple[float, NDArray[np.bool_]]], points: Points, engine: Engine
) -> dict[int, NDArray[np.bool_]]:
    """For each cut into micro-batches, the points of `parts` (batch, where) that allow it."""
    found: dict[int, NDArray[np.bool_]] = {}
    for batch, where in parts:
        if batch % setting.dp:
            continue
        # a cut depends on the prompt alone where the engine has a rule of its own for it
        prompts = np.unique(points.input_tokens[where]) if engine.microbatch_tokens is not None else [np.nan]
        for prompt in prompts:
            here = where if np.isnan(prompt) else where & (points.input_tokens == prompt)
            one = setting if np.isnan(prompt) else replace(setting, workload=_prompt(int(prompt)))
            for n_micro in microbatch_choices(one, int(batch) // setting.dp, engine):
                found[n_micro] = found.get(n_micro, np.zeros(len(points), bool)) | here
    return found


def _prompt(tokens: int) -> Workload:
    return Workload(input_tokens=tokens, output_tokens=1)


def price_variants(held: Sequence[Variants], engine: Engine, forms: dict[States, int]) -> Iterator[Priced]:
    """Price sets of candidates; those that run one program on one kind of wires together, whatever their stages.

    Parameters
    ----------
    forms : numbers the forms the cache takes, added to
    """
    alike: dict[tuple[PhaseSetting, bool, bool], list[Variants]] = {}
    for variants in held:
        if variants.allowed.any():
            setting, crosses = variants.laid.setting, variants.laid.meshes[0].stages_cross
            alike.setdefault((replace(setting, pp=1, dp=1), setting.pp > 1, crosses), []).append(variants)
    for (setting, _, _), together in alike.items():
        yield from _price_together(setting, together, engine, forms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidates:
    """What is priced at every setting of the tail, each (n,): rows of every set of variants with their batches.

    `places` has the candidate of each row and point of each set, -1 where there is none.
    """

    mesh: NDArray[np.int64]
    sequences: NDArray[np.float64]
    n_microbatches: NDArray[np.float64]
    pp: NDArray[np.float64]
    places: list[NDArray[np.int64]]


def _price_together(
    setting: PhaseSetting, held: Sequence[Variants], engine: Engine, forms: dict[States, int]
) -> Iterator[Priced]:
    machine = make_machine(held[0].laid.slice.chip, list(chain.from_iterable(v.laid.meshes for v in held)))
    every, tail = _candidates(held), make_tail([variants.points for variants in held])
    n = len(every.mesh)
    columns: dict[str, NDArray[np.float64]] = {name: np.empty((n, tail.size)) for name in _COLUMNS}
    step = max(1, _CHUNK // tail.size)
    for first in range(0, n, step):
        at = np.arange(first, min(first + step, n))
        for name, column in _price_chunk(setting, machine, every, at, tail, engine, forms).items():
            columns[name][at] = np.broadcast_to(column, (len(at), *tail.shape)).reshape(len(at), -1)
    for variants, places in zip(held, every.places, strict=True):
        yield _priced(variants, places, tail.place(variants.points), columns)


_COLUMNS = ("latency_s", "pass_s", "weights_bytes", "kv_bytes", "work_bytes", "cache")


def _price_chunk(
    setting: PhaseSetting,
    machine: Machine,
    every: _Candidates,
    at: NDArray[np.int64],
    tail: Tail,
    engine: Engine,
    forms: dict[States, int],
) -> dict[str, NDArray[np.float64]]:
    """Some of the candidates at every setting of the tail."""
    behind = (1,) * len(tail.shape)
    here = with_dimensions(take(machine, every.mesh[at]), len(behind))
    price = price_phase(
        setting,
        here if tail.speed is None else at_speed(here, tail.speed),
        every.sequences[at].reshape(-1, *behind),
        engine,
        n_microbatches=every.n_microbatches[at].reshape(-1, *behind),
        pp=every.pp[at].reshape(-1, *behind),
        works=tail.works,
    )
    memory = price.memory
    return {
        "latency_s": price.latency_s,
        "pass_s": price.pass_s,
        "weights_bytes": np.asarray(memory.weights),
        "kv_bytes": np.asarray(memory.kv_cache),
        "work_bytes": np.asarray(memory.activations + memory.gathered),
        "cache": cache_numbers(setting, engine, forms)[price.n_batch_axes],
    }


def _candidates(held: Sequence[Variants]) -> _Candidates:
    """Every row of every set with each batch it can have."""
    meshes: list[int] = []
    sequences: list[float] = []
    micro: list[float] = []
    stages: list[float] = []
    places: list[NDArray[np.int64]] = []
    offset = 0
    for variants in held:
        found = np.full(variants.allowed.shape, -1)
        own, which = np.unique(_own_batch(variants), return_inverse=True)
        which = np.ravel(which)
        for row in range(len(variants.mesh)):
            allowed, fixed = variants.allowed[row], variants.batch[row]
            used = (
                np.flatnonzero(np.bincount(which[allowed], minlength=len(own))) if np.isnan(fixed) else np.zeros(1, int)
            )
            order = np.zeros(len(own), np.int64)
            order[used] = np.arange(len(used)) if np.isnan(fixed) else 0
            found[row, allowed] = len(meshes) + order[which[allowed]]
            meshes += [int(variants.mesh[row]) + offset] * len(used)
            batches = own[used] if np.isnan(fixed) else [fixed]
            sequences += [float(one) / variants.laid.setting.dp for one in batches]
            micro += [variants.n_microbatches[row]] * len(used)
            stages += [float(variants.laid.setting.pp)] * len(used)
        places.append(found)
        offset += len(variants.laid.meshes)
    return _Candidates(
        mesh=np.array(meshes, np.int64),
        sequences=np.array(sequences, float),
        n_microbatches=np.array(micro, float),
        pp=np.array(stages),
        places=places,
    )


def _batch(variants: Variants) -> NDArray[np.float64]:
    """Sequences over all replicas, (n_rows, n_points)."""
    return np.where(np.isnan(variants.batch)[:, None], _own_batch(variants)[None, :], variants.batch[:, None])


def _own_batch(variants: Variants) -> NDArray[np.float64]:
    """The batch that each point asks for, NaN where it leaves it open."""
    prefills = variants.laid.setting.phase == "prefill"
    return variants.points.prefill_batch if prefills else variants.points.decode_batch


def _priced(
    variants: Variants,
    places: NDArray[np.int64],
    at: NDArray[np.int64],
    columns: dict[str, NDArray[np.float64]],
) -> Priced:
    """The prices of a set: `places` are the candidates of its rows and points, `at` what each point asks of them."""
    rows, points = np.nonzero(variants.allowed)

    def spread(name: str, elsewhere: float) -> NDArray[np.float64]:
        table = np.full(variants.allowed.shape, elsewhere)
        table[rows, points] = columns[name][places[rows, points], at[points]]
        return table

    return Priced(
        variants=variants,
        latency_s=spread("latency_s", np.inf),
        pass_s=spread("pass_s", np.inf),
        batch=np.where(variants.allowed, _batch(variants), np.nan),
        weights_bytes=spread("weights_bytes", 0.0),
        kv_bytes=spread("kv_bytes", 0.0),
        work_bytes=spread("work_bytes", 0.0),
        cache=spread("cache", -1.0).astype(np.int64),
    )
