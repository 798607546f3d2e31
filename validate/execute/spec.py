"""What is to be executed: a model, a mesh and the two phases, in plain values that travel to every rank."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...hardware_specs.errors import SpecError
from ...models.description import Model
from ...models.forms import AXES, Form
from ...models.layouts import AttentionSharding, ExpertSharding
from ...models.lower import lower
from ...models.params import full_window
from ...models.program import ShardedProgram, Tensor
from ...models.sizes import Sizes, TokenGroup, batch_axes, block_dims, context_axes
from ...models.stages import stage_layers
from .arithmetic import NORM_EPS
from .comm import MeshShape
from .executable import check_block, check_model
from .shards import Dimensions, make_dimensions
from .weights import NO_BLOCK, WeightPlan, weight_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpec:
    """How one phase is cut.

    Parameters
    ----------
    n_passes : parts a replica's sequences go through the phase in: batches one after the other, or micro-batches
    """

    layout: str
    attention: AttentionSharding
    head_axes: tuple[str, ...] = AXES
    experts: ExpertSharding = "tensor"
    looped: bool = False
    n_passes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run: a batch of prompts through prefill and `output_tokens` decode steps, over one copy of the weights.

    Parameters
    ----------
    batch : sequences of all replicas
    dtype : of activations, and of weights and cache where they have no format of their own
    weights, kv : formats of weights (int8, fp8: dequantised where they are used) and cache (fp8, bf16, fp16)
    checkpoint : safetensors file, or folder of them, to take the weights from; else they are random
    theta, norm_eps : base of the rotary embedding, and what a norm adds to the variance
    kernels : torch's own operations, or our Triton kernels (on a CPU in Triton's interpreter)
    routing : tokens go to the experts their router chooses; or to experts in turn, which spreads them as evenly as they are
        priced, weighed by the router all the same
    n_timed : further runs of both phases that are timed, unwatched
    """

    model: Model
    mesh: MeshShape
    prefill: PhaseSpec
    decode: PhaseSpec
    batch: int
    input_tokens: int
    output_tokens: int
    page_size: int = 1
    dtype: str = "fp32"
    weights: Literal["int8", "fp8"] | None = None
    kv: Literal["fp8", "bf16", "fp16"] | None = None
    checkpoint: str | None = None
    device: str = "cpu"
    kernels: Literal["torch", "triton"] = "torch"
    routing: Literal["router", "balanced"] = "router"
    seed: int = 0
    theta: float = 10000.0
    norm_eps: float = NORM_EPS
    n_timed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be executed."""
        few, many = sorted((self.prefill.n_passes, self.decode.n_passes))
        if self.batch % (self.mesh.dp * many):
            raise SpecError(
                f"a batch of {self.batch} does not divide by {self.mesh.dp} replicas x {many} passes; "
                f"execute with a --batch that does"
            )
        if many % few:
            raise SpecError(
                f"{self.prefill.n_passes} passes of prefill and {self.decode.n_passes} of decode: one must be a multiple of "
                f"the other; execute a plan whose batches divide"
            )
        if self.mesh.pp > self.model.n_layers:
            raise SpecError(
                f"{self.mesh.pp} pipeline stages need as many layers; {self.model.name} has {self.model.n_layers}"
            )
        check_model(self.model)

    def sequences(self, phase: str) -> int:
        """Of one pass of one replica."""
        return self.batch // (self.mesh.dp * self.phase(phase).n_passes)

    @property
    def n_units(self) -> int:
        """Groups of a replica's sequences whose cache is one piece: the passes of the phase that has fewer."""
        return min(self.prefill.n_passes, self.decode.n_passes)

    @property
    def unit_sequences(self) -> int:
        """Sequences of one unit."""
        return self.batch // (self.mesh.dp * self.n_units)

    @property
    def context(self) -> int:
        """Positions of a sequence's cache once the run is over."""
        return self.input_tokens + self.output_tokens

    def phase(self, name: str) -> PhaseSpec:
        """The phase of a name."""
        return self.prefill if name == "prefill" else self.decode

    def program(self, name: str) -> ShardedProgram:
        """The program of a phase."""
        phase, axes = self.phase(name), self.mesh.axes
        cut = batch_axes((axes["x"], axes["y"], axes["z"]), self.sequences(name))
        return lower(
            self.model,
            phase.layout,
            phase.attention,
            experts=phase.experts,
            batch_axes=cut,
            head_axes=phase.head_axes,
            looped=phase.looped,
        )

    def weight_plan(self) -> WeightPlan:
        """Every weight of the model."""
        return weight_plan(self.program("prefill"))

    def layers_of(self, stage: int) -> range:
        """The layers of a pipeline stage; the first stages have one more where they do not divide."""
        return stage_layers(self.model.n_layers, self.mesh.pp)[stage]

    def sizes(self, name: str, group: TokenGroup) -> Sizes:
        """Sizes of a phase's program for some tokens, as they are priced."""
        return Sizes(self.program(name), {axis: float(n) for axis, n in self.mesh.axes.items()}, [group])

    def keeps_in_place(self, kind: str) -> bool:
        """Whether decode goes on in the very cache that prefill has written, whose oldest positions it never drops."""
        before, after = (self.program(name).of(kind) for name in ("prefill", "decode"))
        pairs = zip(before.state, after.state, strict=True)
        alike = all(_axes_of_dims(a.form) == _axes_of_dims(b.form) for a, b in pairs)
        kept = full_window(before.block)
        return alike and not 0 < kept < self.context

    def slots(self, name: str, kind: str) -> int:
        """Positions that a layer's cache has room for in a phase."""
        if name == "decode":
            return min(full_window(self.model.kinds[kind]) or self.context, self.context)
        return self.context if self.keeps_in_place(kind) else self.input_tokens

    def dimensions(
        self, name: str, kind: str, new_tokens: int, *, slots: int | None = None, sequences: int | None = None
    ) -> Dimensions:
        """Lengths and digits in one kind of block, or at the ends, in a pass of `new_tokens`.

        Parameters
        ----------
        slots : of a cache, where it has not as many as the phase gives it
        sequences : where they are not those of one pass
        """
        program, model = self.program(name), self.model
        counted = {
            "N": self._along(program.layout.entry.axes_of("E")),
            "R": self._along(program.residual.form.axes_of("E")),
            "C": self._along(program.layout.stored.axes),
        }
        lengths = {
            "B": sequences or self.sequences(name),
            "L": new_tokens,
            "E": model.d_model,
            "V": model.vocab_size,
            "P": max(model.n_learned_positions, 1),
        }
        if kind:
            block = program.of(kind)
            counted["M"] = self._along(context_axes(block))
            sizes = block_dims(model, block.block, float(self._size(program.head_axes)))
            own = {dim: int(size) for dim, size in sizes.items() if size}
            lengths |= own | {"S": self.slots(name, kind) if slots is None else slots}
        n_statistics = 2 if model.norm == "layernorm" else 1
        numbers = {dim: self._size(axes) * (n_statistics if dim in "NR" else 1) for dim, axes in counted.items()}
        return make_dimensions(program.layout, lengths | numbers, self.mesh.axes, counted)

    def dimensions_of(self, name: str, new_tokens: int) -> dict[str, Dimensions]:
        """Of every kind of block, and of the ends."""
        return {kind: self.dimensions(name, kind, new_tokens) for kind in (NO_BLOCK, *self.model.kinds)}

    def check_shards(self, name: str) -> None:
        """Hold the real shards to the priced ones.

        Raises
        ------
        SpecError : a dimension does not divide over its axes in any way that gives shards of the priced size
        """
        program, new = self.program(name), self.input_tokens if name == "prefill" else 1
        self._check_part(name, NO_BLOCK, (*program.first_weights, *program.last_weights, *program.buffers), new)
        for block in program.blocks:
            check_block(self, name, block)
            self._check_part(name, block.kind, (*block.weights, *block.state, *block.buffers), new)

    def _check_part(self, name: str, kind: str, tensors: Iterable[Tensor], new: int) -> None:
        dims = self.dimensions(name, kind, new)
        past = (self.slots(name, kind) if kind else self.context) - new
        group = TokenGroup(n_sequences=self.sequences(name), new_tokens=new, past_tokens=past)
        sizes = self.sizes(name, group)
        if kind:
            sizes = sizes.of(self.program(name).of(kind))
        for tensor in tensors:
            for dim, axes in tensor.form.dims:
                real, priced = dims.local(tensor.form, dim), float(sizes.local(0, dim, axes))
                if real != priced:
                    raise SpecError(
                        f"{tensor.name} {tensor.form}: {dim} of {dims.lengths[dim]} gives shards of {real}, "
                        f"priced as {priced:g}; execution needs {dim} to divide over the mesh {dict(self.mesh.axes)}"
                    )

    def _along(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(axis for axis in AXES if axis in axes)

    def _size(self, axes: tuple[str, ...]) -> int:
        return self.mesh.size(axes)


def _axes_of_dims(form: Form) -> tuple[tuple[str, frozenset[str]], ...]:
    """A form without the order of its axes, which says nothing."""
    return tuple((dim, frozenset(axes)) for dim, axes in form.dims)
