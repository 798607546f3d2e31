"""What the layers of a stage keep between passes, and its way from the forms of prefill to those of decode."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from ...models.forms import AXES
from ...models.program import ShardedProgram, Tensor
from ...simulator.cost.handoff import cache_collectives
from .cache import Cache, LayerState, State
from .comm import Wires
from .exchange import exchange
from .executable import source_layer
from .formats import DTYPES, kept_as
from .shards import Dimensions, indices, recut, slots_between
from .spec import RunSpec
from .stage import Layer


def part_of(state: LayerState, number: int, order: torch.Tensor, wires: Wires) -> LayerState:
    """What a layer keeps of the sequences of one pass; the same memory.

    Parameters
    ----------
    order : see `pass_order`
    """
    if len(order) == 1:
        return state
    return {
        name: kept.part(number, len(order)) if isinstance(kept, Cache) else kept.part(_rows(kept, order, number, wires))
        for name, kept in state.items()
    }


def _rows(kept: State, order: torch.Tensor, number: int, wires: Wires) -> torch.Tensor:
    """Where this chip keeps its sequences of one pass among those of the unit."""
    axes = tuple(axis for axis in AXES if axis in kept.form.axes_of("B"))
    n, me = wires.mesh.size(axes), wires.mesh.index(wires.place, axes)
    mine = order[number].view(n, -1)[me].cpu()
    return mine - me * (order.numel() // n)


def n_cut(program: ShardedProgram, spec: RunSpec) -> int:
    """Chips that the sequences of what is kept are cut over at most."""
    kept = [tensor for block in program.blocks for tensor in block.state]
    return max([spec.mesh.size(tensor.form.axes_of("B")) for tensor in kept], default=1)


class Keeper:
    """Makes the caches and states of a stage's layers.

    Parameters
    ----------
    numbers : of the layers in the model
    """

    def __init__(
        self, spec: RunSpec, wires: Wires, layers: Sequence[Layer], numbers: Sequence[int], device: torch.device
    ) -> None:
        self._spec, self._wires, self._layers, self._numbers, self._device = spec, wires, layers, numbers, device

    def make(self, phase: str) -> list[list[LayerState]]:
        """Of every unit and layer; a layer that reads another's keys has that one's cache. Decode takes over what can stay."""
        spec, made = self._spec, []
        for _ in range(spec.n_units):
            unit: dict[int, LayerState] = {}
            for number, layer in zip(self._numbers, self._layers, strict=True):
                source = source_layer(spec.model, number)
                unit[number] = self._make(phase, layer.kind) if source in (number, None) else unit[source]
            made.append(list(unit.values()))
        return made

    def _make(self, phase: str, kind: str) -> LayerState:
        spec = self._spec
        if phase == "decode" and spec.keeps_in_place(kind):
            return {}
        dims = spec.dimensions(phase, kind, 1, sequences=spec.unit_sequences)
        return {tensor.name: self._one(tensor, dims) for tensor in spec.program(phase).of(kind).state}

    def _one(self, tensor: Tensor, dims: Dimensions) -> Cache | State:
        spec, shape = self._spec, dims.shape(tensor.form)
        if "S" not in tensor.form.letters:
            dtype = DTYPES[spec.model.state_dtype if tensor.role == "state" else spec.dtype]
            return State(shape, tensor.form, dtype=dtype, device=self._device)
        return Cache(
            shape[0],
            shape[1],
            shape[2:],
            copies=tensor.copies,
            page_size=spec.page_size,
            dtype=kept_as(spec.kv or spec.dtype),
            device=self._device,
            is_dealt=bool(dims.cut_axes(tensor.form, "S")),
        )

    def n_bytes(self, states: list[list[LayerState]]) -> int:
        """Of all that is kept, once."""
        memory = {id(kept.memory): kept.memory.nbytes for unit in states for state in unit for kept in state.values()}
        return sum(memory.values())

    def hand_over(self, states: list[list[LayerState]]) -> list[list[LayerState]]:
        """What prefill left, in the forms decode reads: all layers of a kind in one message, where anything moves."""
        spec = self._spec
        if all(spec.keeps_in_place(kind) for kind in spec.model.kinds):
            return states
        made = self.make("decode")
        for old, new in zip(states, made, strict=True):
            by_kind: dict[str, list[int]] = defaultdict(list)
            for i, (number, layer) in enumerate(zip(self._numbers, self._layers, strict=True)):
                if source_layer(spec.model, number) in (number, None):
                    by_kind[layer.kind].append(i)
            for kind, places in by_kind.items():
                self._move(kind, [old[i] for i in places], [new[i] for i in places])
        return made

    def _move(self, kind: str, old: list[LayerState], new: list[LayerState]) -> None:
        spec = self._spec
        if spec.keeps_in_place(kind):
            for there, here in zip(old, new, strict=True):
                here |= there
            return
        kept = min(spec.slots("decode", kind), spec.input_tokens)
        dims = spec.dimensions("decode", kind, 1, slots=kept, sequences=spec.unit_sequences)
        befores, afters = (spec.program(name).of(kind).state for name in ("prefill", "decode"))
        for before, after in zip(befores, afters, strict=True):
            value = torch.stack([self._newest(state[before.name], before, kind, dims) for state in old])
            value = self._moved(value, before, after, dims)
            for layer, part in zip(new, value, strict=True):
                target = layer[after.name]
                if isinstance(target, State):
                    target.write(part)
                else:
                    target.write(part, torch.arange(part.shape[2], device=part.device))

    def _newest(self, kept: Cache | State, tensor: Tensor, kind: str, dims: Dimensions) -> torch.Tensor:
        """What is kept; of a cache those positions that decode has slots for, in the order of its slots."""
        if isinstance(kept, State):
            return kept.read()
        spec, place = self._spec, self._wires.place
        whole = spec.dimensions("prefill", kind, 1, sequences=spec.unit_sequences)
        _, wanted = slots_between(dims, tensor.form, place, 0, spec.input_tokens)
        held = {position: slot for slot, position in enumerate(indices(whole, tensor.form, "S", place).tolist())}
        slots = torch.tensor([held[position] for position in wanted.tolist()], dtype=torch.int64)
        found = kept.read(kept.n_slots)
        taken = found.index_select(2, slots.to(found.device))
        missing = dims.local(tensor.form, "S") - len(slots)
        return (
            torch.cat([taken, taken.new_zeros((*taken.shape[:2], missing, *taken.shape[3:]))], 2) if missing else taken
        )

    def _moved(self, value: torch.Tensor, before: Tensor, after: Tensor, dims: Dimensions) -> torch.Tensor:
        form, place = before.form, self._wires.place
        for move in cache_collectives(before, after):
            value = recut(value, dims, form, move.tensors[0].form, place)
            (value,) = exchange(move, [value], dims, self._wires)
            form = move.after[0]
        return recut(value, dims, form, after.form, place)
