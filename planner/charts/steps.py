"""Where one pass of a plan goes: its steps one after the other, each against the roofs of the chip, and its memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.dtypes import parse_dtype
from ...hardware_specs.units import parse_quantity
from ...models.description import Model
from ...models.sizes import batch_axes
from ...models.work import step_work
from ...simulator.cost.phases import bind, microbatch_sequences
from ...simulator.cost.price import price_pass
from ..deploy import phase_run
from ..result import PhasePlan, Plan, StepShare, WorkloadShape
from .values import BarChart, Chart, Curve, Panel, Scale, Stack

# Steps with a bar of their own.
_MOST_STEPS = 14
_PARTS = {"compute": "compute", "hbm": "memory traffic", "links": "links", "latency": "fixed"}
_MEMORY = {"weights": "weights", "kv_cache": "KV cache", "activations": "activations", "gathered": "gathered weights"}
_GIB = parse_quantity("1 GiB", "B")


def waterfall_chart(phase: PhasePlan) -> BarChart:
    """The steps of one pass one after the other, by what each waits for."""
    steps = _merged(phase.breakdown)
    base, at = [], 0.0
    for step in steps:
        base.append(1e3 * at)
        at += step.total_s
    parts = {name: [1e3 * _seconds(step)[name] for step in steps] for name in _PARTS}
    what = "pass of prefill" if phase.phase == "prefill" else "decode step"
    return BarChart(
        name=f"waterfall-{phase.phase}",
        title=f"One {what}: {1e3 * at:.4g} ms",
        says=f"Batch {phase.batch} on {phase.slice}, {phase.layout}; each bar begins where the one above it ends",
        bars=tuple(step.step for step in steps),
        parts=tuple(
            Stack(name=_PARTS[name], values=tuple(values), hover=tuple(f"{v:.4g} ms" for v in values))
            for name, values in parts.items()
        ),
        base=tuple(base),
        value=Scale(title="time since the pass began (ms)"),
        labels=tuple(f"{1e3 * step.total_s:.3g} ms" for step in steps),
    )


def _merged(steps: Sequence[StepShare]) -> list[StepShare]:
    """The longest steps in their order, the others as one."""
    if len(steps) <= _MOST_STEPS:
        return [step for step in steps if step.total_s > 0.0]
    least = sorted((step.total_s for step in steps), reverse=True)[_MOST_STEPS - 1]
    kept = [step for step in steps if step.total_s >= least][:_MOST_STEPS]
    rest = [step for step in steps if step not in kept]
    named = {name: sum(getattr(step, name) for step in rest) for name in ("comm_s", "overhead_s")}
    local = {
        name: sum(_seconds(step)[part] for step in rest) for name, part in (("compute", "compute"), ("hbm", "hbm"))
    }
    other = StepShare(
        step=f"{len(rest)} more",
        compute_s=local["compute"] + local["hbm"] if local["compute"] >= local["hbm"] else local["compute"],
        memory_s=local["compute"] + local["hbm"] if local["hbm"] > local["compute"] else local["hbm"],
        source=rest[0].source,
        **named,
    )
    return [*kept, other]


def _seconds(step: StepShare) -> dict[str, float]:
    """Seconds of a step by what binds it."""
    computes = step.compute_s >= step.memory_s
    return {
        "compute": step.compute_s if computes else 0.0,
        "hbm": 0.0 if computes else step.memory_s,
        "links": step.comm_s,
        "latency": step.overhead_s,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One step of a pass on one chip: its work, and the seconds it takes without communication."""

    name: str
    kind: str
    flop: float
    hbm_bytes: float
    seconds: float


def step_works(phase: PhasePlan, model: Model, shape: WorkloadShape) -> tuple[StepWork, ...]:
    """Flop, HBM bytes and seconds of every step that computes or moves memory, of one micro-batch."""
    run = phase_run(phase, model, shape)
    sequences = int(microbatch_sequences(run.setting, phase.batch / phase.dp, phase.n_microbatches))
    axes = batch_axes(run.sizes, sequences)
    program, sizes = bind(run.setting, run.machine, float(sequences), axes, run.engine)
    prices = price_pass(program, sizes, run.setting.formats, run.machine, run.engine, pp=phase.pp)
    steps = [(step, sizes) for step in program.first]
    steps += [(step, sizes.of(block)) for block in program.blocks for step in block.steps]
    steps += [(step, sizes) for step in program.last]
    found = []
    for (step, at), price in zip(steps, prices, strict=False):
        work = step_work(step, at, run.setting.formats)
        seconds = float(max(float(price.compute_s), float(price.memory_s)))
        if seconds > 0.0 and float(work.hbm_bytes) > 0.0:
            found.append(
                StepWork(
                    name=step.name,
                    kind=price.kind,
                    flop=float(work.flop),
                    hbm_bytes=float(work.hbm_bytes),
                    seconds=seconds,
                )
            )
    return tuple(found)


def roofline_chart(plan: Plan, model: Model, shape: WorkloadShape) -> Chart:
    """Every matmul and attention of both phases against what the chip claims.

    References
    ----------
    [Williams2009] for the picture.
    """
    panels = []
    for phase in (plan.decode, plan.prefill):
        chip = get_chip(phase.chip)
        dtype = parse_dtype(
            phase.weights if parse_dtype(phase.weights).compute in ("fp8", "fp4") else phase.activations
        )
        peak, rate = chip.peak_flop_per_s(dtype), chip.hbm_bytes_per_s.value
        works = [work for work in step_works(phase, model, shape) if work.flop > 0.0]
        kinds = sorted({work.kind for work in works})
        curves = [_kind(kind, [work for work in works if work.kind == kind]) for kind in kinds]
        found = [work.flop / work.hbm_bytes for work in works]
        bend = peak / rate
        xs = sorted({min(found, default=1.0) / 2.0, bend, 2.0 * max([*found, bend])})
        roof = Curve(
            name="roof",
            style="guide",
            x=tuple(xs),
            y=tuple(min(rate * x, peak) / 1e12 for x in xs),
            labels=tuple(f"{peak / 1e12:.4g} Tflop/s {dtype.name}" if x == bend else "" for x in xs),
        )
        panels.append(
            Panel(
                title=phase.phase,
                x=Scale(title="intensity (flop a byte of HBM)", log=True),
                y=Scale(title="reached (Tflop/s a chip)", log=True),
                curves=(*curves, roof),
            )
        )
    return Chart(
        name="roofline",
        title=f"{model.name} on {plan.decode.slice}: each step under the roof of its chip",
        says="Left of the bend HBM binds, right of it arithmetic; the dotted line is what the chip claims",
        panels=tuple(panels),
    )


def _kind(kind: str, works: Sequence[StepWork]) -> Curve:
    return Curve(
        name=kind,
        style="points",
        x=tuple(work.flop / work.hbm_bytes for work in works),
        y=tuple(work.flop / work.seconds / 1e12 for work in works),
        labels=tuple(work.name for work in works),
        hover=tuple(
            f"{work.name}: {work.flop:.3g} flop, {work.hbm_bytes:.3g} B, {1e6 * work.seconds:.4g} us" for work in works
        ),
    )


def memory_chart(plan: Plan) -> BarChart:
    """What lies on the fullest chip in each phase."""
    phases = (plan.prefill, plan.decode)
    parts = []
    for name, says in _MEMORY.items():
        values = tuple(getattr(phase.memory, name) / _GIB for phase in phases)
        parts.append(Stack(name=says, values=values, hover=tuple(f"{value:.4g} GiB" for value in values)))
    limit = plan.decode.memory.limit / _GIB
    return BarChart(
        name="memory",
        title=f"Memory of a chip: {plan.decode.slice}",
        says="The fullest chip; what the driver and fragmentation take is beyond the line",
        bars=tuple(f"{phase.phase}, batch {phase.batch}" for phase in phases),
        parts=tuple(parts),
        value=Scale(title="memory (GiB)"),
        limit=(limit, f"{limit:.4g} GiB may be used"),
        labels=tuple(f"{phase.memory.total / _GIB:.4g} GiB" for phase in phases),
    )
