"""Seconds of every step of a program.

``t(step) = max(compute, memory) + exposed communication + fixed overhead``, summed over the program's steps. A looped
collective is exposed only as far as it outlasts its partner matmul.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...models.program import Attention, Collective, Matmul, Pointwise, SendRecv, ShardedProgram, Step
from ...models.sizes import Array, Sizes
from ...models.work import Formats, Work, step_work, tiled_weights
from .collectives import collective_latency_s, collective_time_s
from .constants import Constants
from .machine import Machine


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
    origin : where the constants come from: ``bound``, or the name of a fit
    """

    constants: Constants
    looped: bool = False
    axes_at_once: bool = True
    materialised_scores: bool = False
    static_buffers: bool = False
    microbatch_tokens: int | None = None
    pipelines: bool = True
    origin: str = "bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrice:
    """One step on one chip, each (...) seconds; `count` times in the pass. `comm_s` is what is exposed."""

    name: str
    part: str
    count: float
    compute_s: Array
    memory_s: Array
    comm_s: Array
    overhead_s: Array
    is_collective: bool = False

    @property
    def key(self) -> str:
        """Part and name: what tells steps of a pass apart."""
        return f"{self.part}/{self.name}"

    @property
    def total_s(self) -> Array:
        """All `count` of them."""
        return self.count * (np.maximum(self.compute_s, self.memory_s) + self.comm_s + self.overhead_s)


def price_steps(
    steps: Sequence[Step], part: str, count: float, sizes: Sizes, formats: Formats, machine: Machine, engine: Engine
) -> list[StepPrice]:
    """Price steps in order; each looped collective is charged what its partner does not hide."""
    hidden: dict[str, Array] = {}
    prices = []
    for step in steps:
        if isinstance(step, Matmul):
            hidden[step.name] = _local(step, part, 1.0, sizes, formats, machine, engine).total_s
    for step in steps:
        if isinstance(step, Collective):
            prices.append(_collective(step, part, count, sizes, formats, machine, engine, hidden))
        elif isinstance(step, SendRecv):
            prices.append(_send(step, part, count, sizes, formats, machine, engine))
        else:
            prices.append(_local(step, part, count, sizes, formats, machine, engine))
    return prices


def _work(step: Step, sizes: Sizes, formats: Formats, engine: Engine) -> Work:
    return step_work(step, sizes, formats, materialised_scores=engine.materialised_scores)


def _local(
    step: Step, part: str, count: float, sizes: Sizes, formats: Formats, machine: Machine, engine: Engine
) -> StepPrice:
    """A step on the chip alone."""
    work, constants = _work(step, sizes, formats, engine), engine.constants
    dtype = formats.matmul if isinstance(step, Matmul) else formats.activations
    peak, hbm = machine.peak_flop_per_s(dtype), machine.chip.hbm_bytes_per_s.value
    rate = peak * constants.matmul_efficiency
    memory_s = np.divide(work.hbm_bytes, hbm * constants.hbm_efficiency)
    launches = constants.kernel_launch_s if isinstance(step, Matmul | Attention | Pointwise) else 0.0
    compute_s = np.divide(_issued_flop(step, work, sizes, machine), rate)
    return StepPrice(
        name=step.name, part=part, count=count, compute_s=compute_s, memory_s=memory_s, comm_s=0.0, overhead_s=launches
    )


def _issued_flop(step: Step, work: Work, sizes: Sizes, machine: Machine) -> Array:
    """Flop the chip spends: on a systolic array, those of whole tiles."""
    side = machine.chip.systolic_side
    if side is None or not isinstance(step, Matmul):
        return work.flop
    return 2.0 * work.n_rows * tiled_weights(step, sizes, side)


def _collective(
    step: Collective,
    part: str,
    count: float,
    sizes: Sizes,
    formats: Formats,
    machine: Machine,
    engine: Engine,
    hidden: dict[str, Array],
) -> StepPrice:
    work = _work(step, sizes, formats, engine)
    constants = engine.constants
    busy_s = collective_time_s(
        step.kind,
        step.axes,
        work.full_bytes,
        machine,
        efficiency=constants.ring_efficiency if step.looped else constants.link_efficiency,
        network_efficiency=constants.network_efficiency,
        axes_at_once=engine.axes_at_once and not step.looped,
    )
    latency_s = collective_latency_s(step.kind, step.axes, machine, constants, axes_at_once=engine.axes_at_once)
    exposed_s = busy_s
    if step.looped and step.partner is not None:
        exposed_s = np.maximum(busy_s - hidden[step.partner], 0.0)
        hidden[step.partner] = np.maximum(hidden[step.partner] - busy_s, 0.0)
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=0.0,
        memory_s=0.0,
        comm_s=exposed_s,
        overhead_s=latency_s,
        is_collective=True,
    )


def _send(
    step: SendRecv, part: str, count: float, sizes: Sizes, formats: Formats, machine: Machine, engine: Engine
) -> StepPrice:
    work = _work(step, sizes, formats, engine)
    rate = machine.stage_bytes_per_s * engine.constants.network_efficiency
    latency_s = engine.constants.collective_launch_s
    return StepPrice(
        name=step.name,
        part=part,
        count=count,
        compute_s=0.0,
        memory_s=0.0,
        comm_s=np.divide(work.sent_bytes, rate),
        overhead_s=latency_s,
    )


def price_pass(
    program: ShardedProgram, sizes: Sizes, formats: Formats, machine: Machine, engine: Engine, *, pp: int = 1
) -> list[StepPrice]:
    """Price one forward pass of one micro-batch through all stages, in order."""
    n_layers = float(program.model.n_layers)
    parts = [("first", program.first, 1.0), ("block", program.block, n_layers), ("last", program.last, 1.0)]
    if pp > 1:
        parts.append(("handover", program.handover, pp - 1.0))
    prices = [
        price
        for part, steps, count in parts
        for price in price_steps(steps, part, count, sizes, formats, machine, engine)
    ]
    host = StepPrice(
        name="pass", part="pass", count=1.0, compute_s=0.0, memory_s=0.0, comm_s=0.0, overhead_s=engine.constants.pass_s
    )
    return [*prices, host]


def pass_time_s(prices: Sequence[StepPrice]) -> Array:
    """Seconds of a whole pass."""
    return sum((price.total_s for price in prices), start=0.0)
