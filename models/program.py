"""The sharded program: the forward pass of one chip of one pipeline stage, as steps over tensors with forms.

Cost, memory, execution and pictures all read this object; none of them knows a layout.
"""

from dataclasses import dataclass, replace
from typing import Literal

from .blocks import Block
from .description import Model
from .feed_forward import ExpertsFfn
from .forms import Form
from .layouts import AttentionSharding, ExpertSharding, Layout
from .mixers.attention import Reach
from .reshard import CollectiveKind

WeightRole = Literal["weight", "mixer", "expert", "end"]
WEIGHT_ROLES: tuple[WeightRole, ...] = ("weight", "mixer", "expert", "end")
Role = Literal["activation", "kv", "state", "statistic", "logit"] | WeightRole
PointwiseOp = Literal[
    "embed", "norm", "rotate", "merge", "activate", "add", "sample", "gate", "convolve", "route", "mix"
]


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
    """One einsum of `x` with one or more weights side by side; its outputs are sliced free.

    Over a `batched` dimension every index of x has a weight of its own.
    """

    name: str
    x: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    batched: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Scores, softmax and mix of `q` over the cache.

    `out` is a partial sum over the axes the cache's positions are cut over. `scores` lie in HBM between their einsums, masked
    ones too; None where a fused kernel keeps them on the chip.

    Parameters
    ----------
    cache : what is attended to, whose positions are S, a sequence so far; T, the input an encoder read; or L, the tokens of
        this pass alone, which are not kept
    """

    name: str
    q: Tensor
    cache: Tensor
    out: Tensor
    scores: Tensor | None = None
    reach: Reach | None = None

    @property
    def positions(self) -> str:
        """The dimension of the cache's positions."""
        return next(dim for dim in self.cache.form.letters if dim in ("S", "T", "L"))

    @property
    def is_causal(self) -> bool:
        """Whether a query meets what came before it alone; else every query meets every position."""
        return self.positions == "S"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Scores, softmax and mix of every head's `q` (latent part, rotated part) over the one `cache` (latent, rotated key).

    A prompt is cheaper with keys and values of `d_nope` and `d_value` expanded from the latent, which takes as much work as
    bringing its queries into the latent does; `reach` are the keys an indexer has picked.
    """

    name: str
    q: tuple[Tensor, Tensor]
    cache: tuple[Tensor, Tensor]
    out: Tensor
    d_nope: int
    d_value: int
    reach: Reach | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Scores of a few small heads `q` (A heads, U wide) over their own cached keys, to pick the `top_k` that attention reads.

    `share` weighs the heads.
    """

    name: str
    q: Tensor
    share: Tensor
    cache: Tensor
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Every token updates `state` and reads it: the recurrent mixers' attention."""

    name: str
    reads: tuple[Tensor, ...]
    state: tuple[Tensor, ...]
    out: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Every token of `x` through those of its experts that this chip has, up, activation and down.

    `out` is a partial sum over the axes that the experts, or their d_ff, are cut over.

    Parameters
    ----------
    exchanged : axes whose chips have sent each other the tokens of their experts before
    """

    name: str
    x: Tensor
    weights: tuple[Tensor, ...]
    out: Tensor
    ffn: ExpertsFfn
    exchanged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Send every token to the chips along `axes` that hold its experts, or bring back what they made of it.

    A token travels once for each of its experts.

    Parameters
    ----------
    n_counts : numbers that go ahead, one an expert: how many tokens are for it
    """

    name: str
    axes: tuple[str, ...]
    tensor: Tensor
    n_copies: int
    n_counts: int = 0


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
    """Write what new tokens leave (K and V, or the parts of a latent) into the cache."""

    name: str
    new: tuple[Tensor, ...]


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
        return self.tensors[0].role in WEIGHT_ROLES


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRecv:
    """Hand the activations to the next pipeline stage."""

    name: str
    tensor: Tensor


Step = (
    Matmul
    | Attention
    | LatentAttention
    | Index
    | Scan
    | Experts
    | Exchange
    | Pointwise
    | Append
    | Collective
    | SendRecv
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockProgram:
    """One layer of one kind of block.

    Parameters
    ----------
    kind, block, n_layers : its name in the model, what it is, layers of that kind
    weights : what lies in memory a layer
    state : what a layer keeps of every sequence: keys and values, a latent, a recurrent state; () for none
    alive, buffers : what a block holds beside the residual at each step, and all it ever holds
    of_input : steps over the input that an encoder read: what of it the block's cross-attention keeps
    of_input_alive : what is held at each of these
    """

    kind: str
    block: Block
    n_layers: int
    steps: tuple[Step, ...]
    weights: tuple[Tensor, ...]
    state: tuple[Tensor, ...]
    alive: tuple[tuple[Tensor, ...], ...]
    buffers: tuple[Tensor, ...]
    of_input: tuple[Step, ...] = ()
    of_input_alive: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderProgram:
    """What reads the input before the decoder begins: `first`, every layer's block, `last`; its L is the input.

    Parameters
    ----------
    weights : what lies in memory at its two ends, the embedding apart
    residual : the activations between blocks
    alive, buffers : of the two ends, as of a block
    """

    first: tuple[Step, ...]
    blocks: tuple[BlockProgram, ...]
    last: tuple[Step, ...]
    weights: tuple[Tensor, ...]
    residual: Tensor
    alive: tuple[tuple[Tensor, ...], ...]
    buffers: tuple[Tensor, ...]


# What every block of a model is called where there is one kind, and what leads the kind's name where there are several; and
# what leads the names of all parts that read the input for a decoder.
BLOCK = "block"
ENCODER = "encoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPart:
    """Steps of a pass that are run `count` times over, on tokens of the pass or of the input that an encoder reads."""

    name: str
    steps: tuple[Step, ...]
    count: float = 1.0
    block: BlockProgram | None = None
    of_input: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedProgram:
    """One forward pass: `first`, then every layer's block, then `last`, with `handover` between pipeline stages.

    An encoder goes before all of these.

    Parameters
    ----------
    batch_axes : the axes the batch is really cut over where a form says so: the longest prefix that divides it
    head_axes : the axes the heads are cut over
    experts : how experts are cut, where there are any
    blocks : one for each kind of block
    encoder : its blocks hold their weights and have no steps where the input is read already
    first_weights, last_weights : what lies in memory at the two ends of the model; what both name is one copy where they
        are on one stage
    residual : the activations between blocks
    alive, buffers : of the two ends, as of a block
    """

    model: Model
    layout: Layout
    attention: AttentionSharding
    batch_axes: tuple[str, ...]
    head_axes: tuple[str, ...]
    experts: ExpertSharding
    looped: bool
    first: tuple[Step, ...]
    blocks: tuple[BlockProgram, ...]
    last: tuple[Step, ...]
    handover: tuple[Step, ...]
    first_weights: tuple[Tensor, ...]
    last_weights: tuple[Tensor, ...]
    residual: Tensor
    alive: tuple[tuple[Tensor, ...], ...]
    buffers: tuple[Tensor, ...]
    encoder: EncoderProgram | None = None

    @property
    def parts(self) -> tuple[PassPart, ...]:
        """Everything a pass runs but the handover, in order."""
        several = len(self.blocks) > 1
        named = [(block, f" {block.kind}" if several else "") for block in self.blocks]
        own = [PassPart(name=f"{BLOCK}{n}", steps=b.steps, count=float(b.n_layers), block=b) for b, n in named]
        written = (PassPart(name="first", steps=self.first), *own, PassPart(name="last", steps=self.last))
        if self.encoder is None:
            return written
        read = [
            PassPart(name=b.kind, steps=b.steps, count=float(b.n_layers), block=b, of_input=True)
            for b in self.encoder.blocks
        ]
        kept = [
            PassPart(name=f"{ENCODER} cross{n}", steps=b.of_input, count=float(b.n_layers), block=b, of_input=True)
            for b, n in named
        ]
        return (
            PassPart(name=f"{ENCODER} first", steps=self.encoder.first, of_input=True),
            *read,
            PassPart(name=f"{ENCODER} last", steps=self.encoder.last, of_input=True),
            *kept,
            *written,
        )

    @property
    def only(self) -> BlockProgram:
        """The block of a model whose layers are all of one kind."""
        (block,) = self.blocks
        return block

    @property
    def states(self) -> tuple[tuple[str, tuple[Tensor, ...]], ...]:
        """What every kind of block keeps of a sequence, and in which form."""
        return tuple((block.kind, block.state) for block in self.blocks)

    def of(self, kind: str) -> BlockProgram:
        """The block of a kind."""
        return next(block for block in self.blocks if block.kind == kind)

    def end_weights(self, *, pp: int) -> tuple[tuple[Tensor, ...], ...]:
        """The weights at the ends, by the stages that hold them: both on one, or each on its own."""
        if pp == 1:
            return (tuple(dict.fromkeys((*self.first_weights, *self.last_weights))),)
        return self.first_weights, self.last_weights
