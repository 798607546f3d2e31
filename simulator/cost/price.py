"""Seconds of every step of a program.

``t(step) = max(compute, memory) + exposed communication + fixed overhead``, summed over the program's steps. A looped
collective is exposed only as far as it outlasts its partner matmul.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ...hardware_specs.dtypes import DType
from ...models.formats import Formats
from ...models.program import (
    BLOCK,
    Append,
    Attention,
    Collective,
    Exchange,
    Experts,
    Index,
    LatentAttention,
    Matmul,
    Pointwise,
    Scan,
    SendRecv,
    ShardedProgram,
    Step,
)
from ...models.quantities import Work
from ...models.sizes import Sizes, ceil_div
from ...models.stages import is_staged
from ...models.types import Array
from ...models.work import step_work, tiled_weights
from .collectives import collective_latency_s, collective_time_s
from .constants import BOUND, Constants
from .kernel_steps import TimedStep, attention_time, collective_time, experts_time, matmul_time, pointwise_time
from .kernel_times import KernelTimes
from .machine import Machine
from .roofline import step_time_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How the program is run: constants, and the choices of the software that change the program itself.

    Parameters
    ----------
    looped : weights are gathered in rounds beside their matmul
    axes_at_once : a collective uses the links of all its torus axes together, else those of one line after the other
    materialised_scores : attention without a flash kernel
    static_buffers : every tensor of a block has a buffer of its own, none is reused
    microbatch_tokens : the engine splits a pipeline's batch by its stages, then in halves down to this many tokens; None
        leaves the split to the planner
    pipelines : the software can cut a model into pipeline stages
    kernels : measured kernels, which price what they have measured; None prices everything by the constants
    launch_mode : how collectives inside a domain are launched: ``graph``, ``eager`` or ``gloo``
    on_host : the host runs the steps itself, so nothing hides its own work: a step that has nothing to do takes `dispatch_s`,
        and measured ones hold it
    """

    constants: Constants = BOUND
    kernels: KernelTimes | None = None
    launch_mode: str = "graph"
    on_host: bool = False
    looped: bool = False
    axes_at_once: bool = True
    materialised_scores: bool = False
    static_buffers: bool = False
    microbatch_tokens: int | None = None
    pipelines: bool = True


StepKind = Literal["matmul", "attention", "latent", "scan", "experts", "pointwise", "collective", "other"]
_KINDS: dict[type, StepKind] = {
    Matmul: "matmul",
    Experts: "experts",
    Attention: "attention",
    LatentAttention: "latent",
    Index: "latent",
    Scan: "scan",
    Pointwise: "pointwise",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrice:
    """One step on one chip, each (...) seconds; `count` (...) times in the pass. `comm_s` is what is exposed.

    `flop` is what the step computes once, padding and replication included; `timed` says how well its kernels were
    measured, where they were.
    """

    name: str
    part: str
    count: Array
    compute_s: Array
    memory_s: Array
    comm_s: Array
    overhead_s: Array
    flop: Array = 0.0
    kind: StepKind = "other"
    timed: TimedStep | None = None

    @property
    def is_collective(self) -> bool:
        """Whether it moves data between the chips of the mesh."""
        return self.kind == "collective"

    @property
    def attends(self) -> bool:
        """Whether it is attention of a block: what grows with the context."""
        return self.in_block and self.kind in ("attention", "latent")

    @property
    def in_block(self) -> bool:
        """Whether it is a step of a block, and not of the ends or the pass."""
        return self.part.startswith(BLOCK)

    @property
    def key(self) -> str:
        """Part and name: what tells steps of a pass apart."""
        return f"{self.part}/{self.name}"

    @property
    def total_s(self) -> Array:
        """All `count` of them."""
        return self.count * step_time_s(self.compute_s, self.memory_s, self.comm_s, self.overhead_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """What every step of a pass is priced with."""

    sizes: Sizes
    formats: Formats
    machine: Machine
    engine: Engine
    known: dict[int, Work] = field(default_factory=dict)

    def work(self, step: Step) -> Work:
        """What a step does, counted once: pricing asks several times."""
        if id(step) not in self.known:
            self.known[id(step)] = step_work(step, self.sizes, self.formats)
        return self.known[id(step)]


def _price_steps(steps: Sequence[Step], part: str, count: Array, setup: _Setup) -> list[StepPrice]:
    """Price steps in order; each looped collective is charged what its partner matmul does not hide."""
    prices = {i: _local(step, part, count, setup) for i, step in enumerate(steps) if not isinstance(step, _ON_WIRES)}
    hidden = {price.name: price.total_s / count for i, price in prices.items() if isinstance(steps[i], _MULTIPLIES)}
    for i, step in enumerate(steps):
        if isinstance(step, Collective):
            prices[i] = _collective(step, part, count, setup, hidden)
        elif isinstance(step, Exchange):
            prices[i] = _exchange(step, part, count, setup)
        elif isinstance(step, SendRecv):
            prices[i] = _send(step, part, count, setup)
    return [prices[i] for i in range(len(steps))]


_ON_WIRES = (Collective, Exchange, SendRecv)
# What gathers its weights in rounds while it multiplies.
_MULTIPLIES = (Matmul, Experts)


def _local(step: Step, part: str, count: Array, setup: _Setup) -> StepPrice:
    """A step on the chip alone: by its measured kernels where there are any."""
    timed = _timed(step, setup)
    return _by_constants(step, part, count, setup) if timed is None else _by_kernels(step, part, count, setup, timed)


def _timed(step: Step, setup: _Setup) -> TimedStep | None:
    kernels = setup.engine.kernels
    if kernels is None:
        return None
    if isinstance(step, Matmul):
        return matmul_time(kernels, step, setup.sizes, setup.formats, setup.work(step).n_rows)
    if isinstance(step, Experts):
        return experts_time(kernels, step, setup.sizes, setup.formats)
    if isinstance(step, Attention) and step.scores is None:
        return attention_time(kernels, step, setup.sizes, setup.formats)
    if isinstance(step, Pointwise | Append):
        op = step.op if isinstance(step, Pointwise) else "append"
        return pointwise_time(kernels, op, setup.formats, setup.work(step))
    return None


def _by_kernels(step: Step, part: str, count: Array, setup: _Setup, timed: TimedStep) -> StepPrice:
    """A step whose kernels were measured, times what this software's take of those."""
    constants = setup.engine.constants
    slowdown = _slowdown(step, constants)
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=timed.compute_s * slowdown,
        memory_s=timed.memory_s * slowdown,
        comm_s=0.0,
        overhead_s=timed.fixed_s * constants.launch_share,
        flop=setup.work(step).flop,
        kind=_KINDS.get(type(step), "other"),
        timed=timed,
    )


def _slowdown(step: Step, constants: Constants) -> float:
    """How much longer an engine's kernel takes than the one it is priced by."""
    return {
        "matmul": constants.matmul_slowdown,
        "attention": constants.attention_slowdown,
        "latent": constants.latent_slowdown,
        "scan": constants.scan_slowdown,
        "experts": constants.experts_slowdown,
        "pointwise": constants.pointwise_slowdown,
    }.get(_KINDS.get(type(step), "other"), 1.0)


def _by_constants(step: Step, part: str, count: Array, setup: _Setup) -> StepPrice:
    """A step at the rates the constants say."""
    work, constants, machine = setup.work(step), setup.engine.constants, setup.machine
    dtype = _computing(step, setup.formats)
    slowdown = _slowdown(step, constants)
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=slowdown
        * _issued_flop(step, work, setup)
        / (machine.peak_flop_per_s(dtype) * constants.matmul_efficiency),
        memory_s=slowdown * work.hbm_bytes / (machine.hbm_bytes_per_s * constants.hbm_efficiency),
        comm_s=0.0,
        overhead_s=0.0 if isinstance(step, Append) else constants.kernel_launch_s,
        flop=work.flop,
        kind=_KINDS.get(type(step), "other"),
    )


def _computing(step: Step, formats: Formats) -> DType:
    """The format a step multiplies in."""
    match step:
        case Matmul() | Experts():
            return formats.multiplied(step.weights[0].role)
    return formats.activations


def _issued_flop(step: Step, work: Work, setup: _Setup) -> Array:
    """Flop the chip spends: on a systolic array, those of whole tiles."""
    side = setup.machine.chip.systolic_side
    if side is None or not isinstance(step, Matmul):
        return work.flop
    return 2.0 * work.n_rows * tiled_weights(step, setup.sizes, side)


def _collective(step: Collective, part: str, count: Array, setup: _Setup, hidden: dict[str, Array]) -> StepPrice:
    """A collective; what is left of its partner in `hidden` shrinks by what it covers."""
    engine, constants = setup.engine, setup.engine.constants
    full_bytes = setup.work(step).full_bytes
    exposed_s = collective_time_s(
        step.kind,
        step.axes,
        full_bytes,
        setup.machine,
        efficiency=constants.ring_efficiency if step.looped else constants.link_efficiency,
        network_efficiency=constants.network_efficiency,
        axes_at_once=engine.axes_at_once and not step.looped,
    )
    exposed_s = exposed_s * constants.collective_slowdown
    if step.looped and step.partner is not None:
        left_s = hidden[step.partner] - exposed_s
        exposed_s, hidden[step.partner] = np.maximum(-left_s, 0.0), np.maximum(left_s, 0.0)
    latency_s = collective_latency_s(
        step.kind, step.axes, setup.machine, constants, axes_at_once=engine.axes_at_once, looped=step.looped
    )
    timed = None
    if engine.kernels is not None and not step.looped:
        timed = collective_time(engine.kernels, step, setup.machine, full_bytes, engine.launch_mode)
    if timed is not None:
        exposed_s = np.where(timed.applies, timed.comm_s * constants.collective_slowdown, exposed_s)
        latency_s = np.where(timed.applies, timed.fixed_s * constants.launch_share, latency_s)
    if engine.on_host:
        latency_s = np.maximum(latency_s, constants.dispatch_s)
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=0.0,
        memory_s=0.0,
        comm_s=exposed_s,
        overhead_s=latency_s,
        kind="collective",
        timed=timed,
    )


def _exchange(step: Exchange, part: str, count: Array, setup: _Setup) -> StepPrice:
    """Tokens on their way to experts or back: an exchange of all with all."""
    engine, constants = setup.engine, setup.engine.constants
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=0.0,
        memory_s=0.0,
        comm_s=constants.collective_slowdown
        * collective_time_s(
            "all_to_all", step.axes, setup.work(step).full_bytes, setup.machine, efficiency=constants.link_efficiency,
            network_efficiency=constants.network_efficiency, axes_at_once=engine.axes_at_once,
        ),
        overhead_s=collective_latency_s(
            "all_to_all", step.axes, setup.machine, constants, axes_at_once=engine.axes_at_once
        ),
        kind="collective",
    )  # fmt: skip


def _send(step: SendRecv, part: str, count: Array, setup: _Setup) -> StepPrice:
    """The way to the next stage."""
    constants = setup.engine.constants
    efficiency = constants.network_efficiency if setup.machine.stages_cross else constants.link_efficiency
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=0.0,
        memory_s=0.0,
        comm_s=setup.work(step).sent_bytes / (setup.machine.stage_bytes_per_s * efficiency),
        overhead_s=constants.collective_launch_s,
    )


def price_pass(
    program: ShardedProgram, sizes: Sizes, formats: Formats, machine: Machine, engine: Engine, *, pp: Array = 1
) -> list[StepPrice]:
    """Price one forward pass of one micro-batch through all stages, in order; nothing where it has no step.

    Parameters
    ----------
    pp : (...) stages; 1 for all candidates or for none
    """
    if engine.kernels is not None and machine.speed is not None:
        engine = replace(engine, kernels=engine.kernels.at_speed(machine.speed))
    setup = _Setup(sizes=sizes, formats=formats, machine=machine, engine=engine)
    prices: list[StepPrice] = []
    for part in program.parts:
        own = sizes.at(part)
        at = setup if own is sizes else replace(setup, sizes=own, known={})
        prices += _price_steps(part.steps, part.name, part.count, at)
    if is_staged(pp):
        prices += _price_steps(program.handover, "handover", pp - 1.0, setup)
    if not prices:
        return []
    # each replica along the data axes has a host that schedules its own sequences
    n_hosts = sizes.shards(program.layout.data_axes)
    n_sequences = sum((ceil_div(group.n_sequences, n_hosts) for group in sizes.groups), start=0.0)
    n_kernels = sum((price.count for price in prices), start=0.0)
    host_s = host_time_s(
        engine.constants, pass_time_s(prices), n_sequences=n_sequences, n_kernels=0.0 if engine.on_host else n_kernels
    )
    return [
        *prices,
        StepPrice(name="pass", part="pass", count=1.0, compute_s=0.0, memory_s=0.0, comm_s=0.0, overhead_s=host_s),
    ]


def host_time_s(constants: Constants, kernels_s: Array, *, n_sequences: Array, n_kernels: Array) -> Array:
    """What the host adds to a pass: its own work, and what launching every kernel outlasts the kernels by.

    Parameters
    ----------
    kernels_s : (...) seconds of all kernels of the pass
    n_sequences : (...) sequences in it
    """
    own_s = constants.pass_s + constants.sequence_s * n_sequences
    return own_s + np.maximum(constants.dispatch_s * n_kernels - kernels_s, 0.0)


def pass_time_s(prices: Sequence[StepPrice]) -> Array:
    """Seconds of a whole pass."""
    return sum((price.total_s for price in prices), start=0.0)


def pass_flop(prices: Sequence[StepPrice]) -> Array:
    """Flop of a whole pass on the chips of one stage after the other."""
    return sum((price.count * price.flop for price in prices), start=0.0)
