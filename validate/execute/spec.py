"""What is to be executed: a model, a mesh and the two phases, in plain values that travel to every rank."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...hardware_specs.errors import SpecError
from ...models.description import Model
from ...models.forms import AXES
from ...models.layouts import AttentionSharding, ExpertSharding
from ...models.lower import lower
from ...models.program import ShardedProgram, Tensor
from ...models.sizes import Sizes, TokenGroup, batch_axes
from ...models.stages import stage_layers
from .arithmetic import NORM_EPS
from .comm import MeshShape
from .shards import Dimensions, make_dimensions


def is_plain(model: Model) -> bool:
    """Whether every block is attention over the whole context and a dense feed-forward part."""
    return not model.stack and not model.post_norms


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
        if not is_plain(self.model):
            raise SpecError(f"{self.model.name} is no plain decoder; only those are executed")
        norms = 1 if self.model.block == "parallel" else 2
        if self.model.n_norms_per_block != norms:
            raise SpecError(
                f"{self.model.name} has {self.model.n_norms_per_block} norms in a {self.model.block} block; "
                f"programs run {norms}"
            )

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

    def weight_tensors(self) -> tuple[Tensor, ...]:
        """Every weight of the model once, a layer's and the ends'."""
        program = self.program("prefill")
        return tuple(dict.fromkeys((*program.only.weights, *program.first_weights, *program.last_weights)))

    def layers_of(self, stage: int) -> range:
        """The layers of a pipeline stage; the first stages have one more where they do not divide."""
        return stage_layers(self.model.n_layers, self.mesh.pp)[stage]

    def sizes(self, name: str, group: TokenGroup) -> Sizes:
        """Sizes of a phase's program for some tokens, as they are priced."""
        return Sizes(self.program(name), {axis: float(n) for axis, n in self.mesh.axes.items()}, [group])

    def dimensions(self, name: str, new_tokens: int, context: int, sequences: int | None = None) -> Dimensions:
        """Lengths and digits for a pass of `new_tokens`, and a cache of `context` positions; of a unit's `sequences`."""
        program, model = self.program(name), self.model
        heads = {
            "H": self._padded(name),
            "K": self._padded(name) if model.n_kv_heads == model.n_heads else model.n_kv_heads,
        }
        n_statistics = 2 if model.norm == "layernorm" else 1
        counted = {
            "N": self._along(program.layout.entry.axes_of("E")),
            "R": self._along(program.residual.form.axes_of("E")),
            "M": self._along(program.only.state[0].form.axes_of("S")),
            "C": AXES,
        }
        numbers = {dim: self._size(axes) * (n_statistics if dim in "NR" else 1) for dim, axes in counted.items()}
        lengths = {
            "B": sequences or self.sequences(name),
            "L": new_tokens,
            "S": context,
            "E": model.d_model,
            "F": model.d_ff,
            "Q": model.d_head,
            "V": model.vocab_size,
            "P": max(model.n_learned_positions, 1),
        }
        return make_dimensions(program.layout, lengths | heads | numbers, self.mesh.axes, counted)

    def check_shards(self, name: str) -> None:
        """Hold the real shards to the priced ones.

        Raises
        ------
        SpecError : a dimension does not divide over its axes in any way that gives shards of the priced size
        """
        new = self.input_tokens if name == "prefill" else 1
        dims = self.dimensions(name, new, self.context)
        sizes = self.sizes(
            name, TokenGroup(n_sequences=self.sequences(name), new_tokens=new, past_tokens=self.context - new)
        )
        for tensor in self._tensors(name):
            for dim, axes in tensor.form.dims:
                real, priced = dims.local(tensor.form, dim), float(sizes.local(0, dim, axes))
                if real != priced:
                    raise SpecError(
                        f"{tensor.name} {tensor.form}: {dim} of {dims.lengths[dim]} gives shards of {real}, "
                        f"priced as {priced:g}; execution needs {dim} to divide over the mesh {dict(self.mesh.axes)}"
                    )

    def _tensors(self, name: str) -> Iterable[Tensor]:
        program = self.program(name)
        return (
            *program.only.weights,
            *program.first_weights,
            *program.last_weights,
            *program.only.state,
            *program.buffers,
            *program.only.buffers,
        )

    def _along(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(axis for axis in AXES if axis in axes)

    def _size(self, axes: tuple[str, ...]) -> int:
        n = 1
        for axis in axes:
            n *= self.mesh.axes[axis]
        return n

    def _padded(self, name: str) -> int:
        n = self._size(self.phase(name).head_axes)
        return -(-self.model.n_heads // n) * n
