"""The sharded program: the forward pass of one chip of one pipeline stage, as steps over tensors with forms.

Cost, memory, execution and pictures all read this object; none of them knows a layout.
"""

from dataclasses import dataclass, replace
from typing import Literal

from .description import Model
from .forms import Form
from .layouts import AttentionSharding, Layout
from .reshard import CollectiveKind

Role = Literal["activation", "weight", "kv", "statistic", "logit"]
PointwiseOp = Literal["embed", "norm", "rotate", "merge", "activate", "add", "sample"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A named tensor and how it lies; `copies` of the same form travel and are stored together (gate and up, K and V)."""

    name: str
    form: Form
    role: Role = "activation"
    copies: int = 1

    def at(self, form: Form) -> "Tensor":
        """The same tensor, lying in another form."""
        return replace(self, form=form)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matmul:
    """One einsum of `x` with one or more weights side by side; its outputs are sliced free."""

    name: str
    x: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Scores, softmax and mix of `q` over the cache.

    `out` is a partial sum over the axes the cache's S is cut over. `scores` lie in HBM between their einsums, masked ones
    too; None where a fused kernel keeps them on the chip.
    """

    name: str
    q: Tensor
    cache: Tensor
    out: Tensor
    scores: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """Norms, activation functions, rotations, sums: memory traffic and no matmul.

    `merge` weighs attention over a part of the context by its share of the whole softmax.
    """

    name: str
    op: PointwiseOp
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Write the new K and V into the cache."""

    name: str
    new: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One collective over mesh `axes` that takes each of `tensors` to the form beside it.

    `partner` names the matmul it can overlap with: the one that makes what it sends or uses what it brings. A `looped`
    collective runs beside its partner in rounds of one shard each, so what it gathers never lies whole in memory.
    """

    name: str
    kind: CollectiveKind
    axes: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    after: tuple[Form, ...]
    partner: str | None = None
    looped: bool = False

    @property
    def results(self) -> tuple[Tensor, ...]:
        """The tensors once they are moved."""
        return tuple(tensor.at(form) for tensor, form in zip(self.tensors, self.after, strict=True))

    @property
    def moves_weights(self) -> bool:
        """Whether it gathers weights; one collective never moves both weights and activations."""
        return self.tensors[0].role == "weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRecv:
    """Hand the activations to the next pipeline stage."""

    name: str
    tensor: Tensor


Step = Matmul | Attention | Pointwise | Append | Collective | SendRecv


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedProgram:
    """One forward pass: `first`, then every layer's `block`, then `last`, with `handover` between pipeline stages.

    Parameters
    ----------
    batch_axes : the axes the batch is really cut over where a form says so: the longest prefix that divides it
    head_axes : the axes the heads are cut over
    block_weights, first_weights, last_weights : what lies in memory: per layer, and at the two ends of the model; what
        both ends name is one copy where they are on one stage
    cache : the KV cache of one layer, K and V (copies=2)
    residual : the activations between blocks
    alive, buffers : what a block holds beside the residual at each step, and all it ever holds
    """

    model: Model
    layout: Layout
    attention: AttentionSharding
    batch_axes: tuple[str, ...]
    head_axes: tuple[str, ...]
    looped: bool
    first: tuple[Step, ...]
    block: tuple[Step, ...]
    last: tuple[Step, ...]
    handover: tuple[Step, ...]
    block_weights: tuple[Tensor, ...]
    first_weights: tuple[Tensor, ...]
    last_weights: tuple[Tensor, ...]
    cache: Tensor
    residual: Tensor
    alive: tuple[tuple[Tensor, ...], ...]
    buffers: tuple[Tensor, ...]

    def end_weights(self, *, pp: int) -> tuple[tuple[Tensor, ...], ...]:
        """The weights at the ends, by the stages that hold them: both on one, or each on its own."""
        if pp == 1:
            return (tuple(dict.fromkeys((*self.first_weights, *self.last_weights))),)
        return self.first_weights, self.last_weights
