"""What the cost model says of a run: bytes a mesh axis, seconds a step, bytes a chip."""

from collections import defaultdict
from collections.abc import Iterator

from ...hardware_specs.chip import Chip
from ...hardware_specs.cluster import Mesh, Slice, meshes, parse_pool
from ...hardware_specs.dtypes import DTYPES
from ...hardware_specs.errors import SpecError
from ...models.formats import Formats
from ...models.program import Collective, Exchange, SendRecv
from ...models.sizes import Sizes, TokenGroup
from ...models.work import step_work
from ...simulator.cost.calibrated import calibration_of
from ...simulator.cost.handoff import state_moves
from ...simulator.cost.machine import Machine, make_machine
from ...simulator.cost.memory import memory_bytes
from ...simulator.cost.price import price_pass
from .comm import STAGES
from .spec import RunSpec

# By phase (prefill, handoff, decode) and axes
BytesByAxes = dict[str, dict[str, float]]


def formats_of(spec: RunSpec) -> Formats:
    """What the run keeps its weights, activations and cache in."""
    return Formats(
        weights=DTYPES[spec.weights or spec.dtype],
        activations=DTYPES[spec.dtype],
        kv=DTYPES[spec.kv or spec.dtype],
        state=DTYPES[spec.model.state_dtype],
    )


def token_group(spec: RunSpec, phase: str) -> TokenGroup:
    """One pass: whole prompts, or one token each at the mean context of the decode."""
    if phase == "prefill":
        return TokenGroup(
            n_sequences=float(spec.sequences(phase)), new_tokens=float(spec.input_tokens), past_tokens=0.0
        )
    past = spec.input_tokens + (spec.output_tokens - 1) / 2.0
    return TokenGroup(n_sequences=float(spec.sequences(phase)), new_tokens=1.0, past_tokens=past)


def priced_bytes(spec: RunSpec) -> BytesByAxes:
    """Bytes that all chips of a run send together, by the program."""
    chips = spec.mesh.tp * spec.mesh.dp
    found: BytesByAxes = {}
    for phase, n_tokens in (("prefill", 1), ("decode", spec.output_tokens)):
        n_passes = n_tokens * spec.phase(phase).n_passes
        sizes, formats = spec.sizes(phase, token_group(spec, phase)), formats_of(spec)
        sent: dict[str, float] = defaultdict(float)
        for step, count, own in _on_wires(spec, phase, sizes):
            axes = STAGES if isinstance(step, SendRecv) else "".join(step.axes)
            sent[axes] += float(step_work(step, own, formats).sent_bytes) * count * n_passes * chips
        found[phase] = {axes: n_bytes for axes, n_bytes in sent.items() if n_bytes}
    return found | {"handoff": _handoff_bytes(spec, chips)}


def _on_wires(
    spec: RunSpec, phase: str, sizes: Sizes
) -> Iterator[tuple[Collective | Exchange | SendRecv, float, Sizes]]:
    """The steps of a pass through all stages that send, how often each is run, and the sizes of its block."""
    program = spec.program(phase)
    parts = (
        (program.first, 1.0, sizes),
        *((block.steps, float(block.n_layers), sizes.of(block)) for block in program.blocks),
        (program.last, 1.0, sizes),
        (program.handover, spec.mesh.pp - 1.0, sizes),
    )
    for steps, count, own in parts:
        yield from ((step, count, own) for step in steps if isinstance(step, Collective | Exchange | SendRecv))


def _handoff_bytes(spec: RunSpec, chips: int) -> dict[str, float]:
    """What prompts have left on its way to the form decode reads it in."""
    held = TokenGroup(n_sequences=float(spec.unit_sequences), new_tokens=0.0, past_tokens=float(spec.input_tokens))
    program, sizes, formats = spec.program("prefill"), spec.sizes("prefill", held), formats_of(spec)
    sent: dict[str, float] = defaultdict(float)
    for kind, move in state_moves(program.states, spec.program("decode").states):
        n_bytes = float(step_work(move, sizes.of(program.of(kind)), formats).sent_bytes)
        sent["".join(move.axes)] += n_bytes * spec.model.n_layers_of[kind] * spec.n_units * chips
    return {axes: n_bytes for axes, n_bytes in sent.items() if n_bytes}


def find_mesh(chip: Chip, spec: RunSpec) -> tuple[Slice, Mesh] | None:
    """A slice of the chip that can be wired into the run's mesh, and that mesh; None where no slice can."""
    wanted = tuple(spec.mesh.axes.values())
    try:
        slices = parse_pool(f"{chip.name}:{spec.mesh.n_ranks}")
    except SpecError:
        return None
    for slice_ in slices:
        for mesh in meshes(slice_, spec.mesh.pp, spec.mesh.dp):
            if mesh.sizes == wanted:
                return slice_, mesh
    return None


def predicted_step_s(spec: RunSpec, chip: Chip, engine: str) -> dict[str, float]:
    """Seconds of each step of all passes of a phase (of one decode step), by phase, part and name.

    Empty where the chip has no such mesh.
    """
    found = find_mesh(chip, spec)
    if found is None:
        return {}
    return _step_s(spec, make_machine(chip, [found[1]]), engine)


def predicted_alone_s(spec: RunSpec, chip: Chip, engine: str) -> dict[str, float]:
    """Seconds of the steps of one chip's share on a chip that stands alone: what it says of collectives means nothing."""
    slice_ = parse_pool(f"{chip.name}:1")[0]
    return _step_s(spec, make_machine(chip, [meshes(slice_)[0]]), engine)


def _step_s(spec: RunSpec, machine: Machine, engine: str) -> dict[str, float]:
    runs, seconds = calibration_of(machine.chip, engine).engine, {}
    for phase in ("prefill", "decode"):
        sizes = spec.sizes(phase, token_group(spec, phase))
        for price in price_pass(spec.program(phase), sizes, formats_of(spec), machine, runs, pp=spec.mesh.pp):
            seconds[f"{phase}/{price.key}"] = float(price.total_s) * spec.phase(phase).n_passes
    return seconds


def predicted_memory_bytes(spec: RunSpec) -> float:
    """Bytes on the fullest rank at the peak of the run: weights, the larger cache, the larger phase's activations."""
    phases = [
        memory_bytes(
            spec.program(phase),
            spec.sizes(phase, token_group(spec, phase)),
            formats_of(spec),
            context=float(spec.context),
            pp=spec.mesh.pp,
            n_microbatches=float(spec.phase(phase).n_passes),
            page_size=spec.page_size,
        )
        for phase in ("prefill", "decode")
    ]
    work = max(float(m.activations) + float(m.gathered) for m in phases)
    return float(phases[0].weights) + max(float(m.kv_cache) for m in phases) + work
