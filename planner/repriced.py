"""Chosen candidates priced once more, step by step; those that run one program go through the cost model together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..hardware_specs.cluster import Mesh, Slice
from ..models.program import BLOCK
from ..models.sizes import batch_axes
from ..models.types import Array
from ..models.work import step_work
from ..simulator.cost.machine import make_machine
from ..simulator.cost.memory import MEMORY_PARTS, MemoryBytes
from ..simulator.cost.phases import PhaseSetting, PricedProgram, microbatch_sequences, price_program, program_prefixes
from ..simulator.cost.price import Engine, StepPrice
from .request import PlanRequest
from .space import Choice, wanted_meshes


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeconds:
    """One step of one candidate: seconds and work of one time on one chip, `count` times in the pass of a micro-batch.

    `total_s` is what all of them add to it. `is_beyond` says that a kernel's shape lies outside of what was measured.
    """

    name: str
    part: str
    key: str
    count: float
    is_collective: bool
    is_beyond: bool
    compute_s: float
    memory_s: float
    comm_s: float
    overhead_s: float
    flop: float
    hbm_bytes: float
    total_s: float

    @property
    def title(self) -> str:
        """What a reader calls it: steps of a block by their name, the others with their part."""
        return self.name if self.part in (BLOCK, "pass") else f"{self.part}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """A choice with its mesh, its prices and each of its steps; `flop` as in `PhasePrice`."""

    choice: Choice
    mesh: Mesh
    pass_s: float
    latency_s: float
    flop: float
    memory: MemoryBytes
    steps: tuple[StepSeconds, ...]


def reprice(request: PlanRequest, choices: Sequence[Choice], engine_of: Callable[[Slice], Engine]) -> list[Repriced]:
    """Price choices with each of their steps, in their order.

    Parameters
    ----------
    engine_of : what prices a slice
    """
    meshes: dict[tuple[Slice, int, int], tuple[Mesh, ...]] = {}
    alike: dict[tuple[PhaseSetting, str, bool, bool, int], list[tuple[int, Choice, Mesh]]] = {}
    for i, choice in enumerate(choices):
        setting, cut = choice.setting, (choice.slice, choice.setting.pp, choice.setting.dp)
        if cut not in meshes:
            meshes[cut] = wanted_meshes(request, *cut)
        mesh = meshes[cut][choice.mesh_index]
        sequences = int(microbatch_sequences(setting, choice.batch, choice.n_microbatches))
        engine = engine_of(choice.slice)
        prefix = program_prefixes(setting, engine)[len(batch_axes(mesh.sizes, sequences))]
        alone = replace(setting, pp=1, dp=1)
        key = (alone, choice.slice.chip_name, setting.pp > 1, mesh.stages_cross, prefix)
        alike.setdefault(key, []).append((i, choice, mesh))
    made: dict[int, Repriced] = {}
    for (setting, _, _, _, prefix), members in alike.items():
        made |= _together(setting, prefix, members, engine_of(members[0][1].slice))
    return [made[i] for i in range(len(choices))]


def _together(
    setting: PhaseSetting, prefix: int, members: list[tuple[int, Choice, Mesh]], engine: Engine
) -> dict[int, Repriced]:
    """Choices of one program, by their places."""
    n_micro = np.array([float(choice.n_microbatches) for _, choice, _ in members])
    replica = np.array([choice.batch / choice.setting.dp for _, choice, _ in members])
    pp = np.array([float(choice.setting.pp) for _, choice, _ in members])
    sequences = np.asarray(microbatch_sequences(setting, replica, n_micro), np.float64)
    machine = make_machine(members[0][1].slice.chip, [mesh for _, _, mesh in members])
    priced = price_program(setting, machine, sequences, prefix, engine, n_micro=n_micro, pp=pp)
    steps = _steps(setting, priced, len(members))
    price = priced.price
    return {
        i: Repriced(
            choice=choice,
            mesh=mesh,
            pass_s=float(price.pass_s[j]),
            latency_s=float(price.latency_s[j]),
            flop=float(price.flop[j]),
            memory=MemoryBytes(**{name: float(getattr(price.memory, name)[j]) for name in MEMORY_PARTS}),
            steps=steps[j],
        )
        for j, (i, choice, mesh) in enumerate(members)
    }


def _steps(setting: PhaseSetting, priced: PricedProgram, n: int) -> list[tuple[StepSeconds, ...]]:
    """The steps of each of `n` candidates."""
    program, ends = priced.program, priced.sizes
    ran = [(step, ends.at(part)) for part in program.parts for step in part.steps]
    if not ran:
        return [()] * n
    staged = any(step.part == "handover" for step in priced.steps)
    ran += [(step, ends) for step in (program.handover if staged else ())]
    moved: list[Array] = [step_work(step, sizes, setting.formats).hbm_bytes for step, sizes in ran]
    moved.append(0.0)  # the pass itself: what the host adds
    columns = [_column(step, step_bytes, n) for step, step_bytes in zip(priced.steps, moved, strict=True)]
    return list(zip(*columns, strict=True))


def _column(step: StepPrice, hbm_bytes: Array, n: int) -> list[StepSeconds]:
    """One step of each candidate."""
    outside: Array = False if step.timed is None else step.timed.outside

    def each(values: Array) -> list[float]:
        spread: list[float] = np.broadcast_to(np.asarray(values, np.float64), (n,)).tolist()
        return spread

    numbers = (
        step.count,
        step.compute_s,
        step.memory_s,
        step.comm_s,
        step.overhead_s,
        step.flop,
        hbm_bytes,
        step.total_s,
        outside,
    )
    return [
        StepSeconds(
            name=step.name,
            part=step.part,
            key=step.key,
            count=count,
            is_collective=step.is_collective,
            is_beyond=bool(beyond),
            compute_s=compute_s,
            memory_s=memory_s,
            comm_s=comm_s,
            overhead_s=overhead_s,
            flop=flop,
            hbm_bytes=moved,
            total_s=total_s,
        )
        for count, compute_s, memory_s, comm_s, overhead_s, flop, moved, total_s, beyond in zip(
            *map(each, numbers), strict=True
        )
    ]
