"""How many elements of a form one chip holds: the one place that divides a dimension by mesh axes.

Everything is an array or a scalar alike; arrays of one length are candidates priced together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from .blocks import RECURRENT, Block
from .description import Model
from .feed_forward import DenseFfn
from .forms import AXES, Form
from .mixers.attention import AttentionMixer
from .mixers.compressed import CompressedMixer
from .mixers.latent import LatentMixer
from .params import held_positions
from .program import Attention, BlockProgram, PassPart, ShardedProgram, Tensor
from .types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """Sequences that go through one forward pass alike.

    Parameters
    ----------
    n_sequences, new_tokens, past_tokens : (...) sequences, tokens of each in this pass, tokens of each in the cache
    input_tokens : (...) tokens of each that an encoder reads, or has read; the others are then the decoder's; None without one
    """

    n_sequences: Array
    new_tokens: Array
    past_tokens: Array
    input_tokens: Array | None = None


def ceil_div(dim: Array, n_shards: Array) -> Array:
    """Size of the largest shard; a dimension shorter than its shards is replicated or padded.

    >>> float(ceil_div(48.0, 64.0)), float(ceil_div(8192.0, 4.0))
    (1.0, 2048.0)
    """
    return np.ceil(np.divide(dim, n_shards))


class Sizes:
    """Dimension and axis sizes of one program, with what they imply cached; `of` gives those of a block.

    Parameters
    ----------
    mesh : size of each of the axes x, y, z, (...) arrays
    groups : the token groups of the pass
    block : the block whose dimensions are meant; None for the ends, and the block of a decoder that has one kind
    of_input : of what reads the input before a decoder, whose L is the input
    """

    def __init__(
        self,
        program: ShardedProgram,
        mesh: Mapping[str, Array],
        groups: Sequence[TokenGroup],
        block: BlockProgram | None = None,
        *,
        of_input: bool = False,
    ) -> None:
        model = program.model
        # V is the vocabulary at the ends, and what else a block has where it has that
        self._is_of_only = len(program.blocks) == 1 and not of_input and not program.blocks[0].block.n_other_params
        if self._is_of_only:
            block = program.blocks[0]
        self.mesh = {axis: mesh.get(axis, 1.0) for axis in AXES}
        self.groups = tuple(groups)
        self._program = program
        self._of_input = of_input
        self._blocks: dict[str, Sizes] = {}
        self._input: Sizes | None = None
        self._shards: dict[tuple[str, ...], Array] = {(): 1.0}
        self._cut: dict[tuple[int, str, tuple[str, ...]], Array] = {}
        self._elements: dict[Form, Array] = {}
        n_statistics = 2.0 if model.norm == "layernorm" else 1.0
        common: dict[str, Array] = {
            "E": float(model.d_model),
            "V": float(model.vocab_size),
            "P": float(_n_learned_positions(model, of_input=of_input)),
            "O": float(model.n_other_params),
            # every chip's own statistics of a norm (sum of squares, for layernorm also the sum) at the entry and between
            # blocks, and its own best logit
            "N": n_statistics * self.shards(program.layout.entry.axes_of("E")),
            "R": n_statistics * self.shards(program.residual.form.axes_of("E")),
            "C": self.shards(program.layout.stored.axes),
        }
        if block is not None:
            common |= block_dims(model, block.block, self.shards(program.head_axes))
            # of attention over a part of the context: its log-sum-exp
            common["M"] = self.shards(context_axes(block))
        self._dims: list[dict[str, Array]] = [
            common
            | {"B": g.n_sequences, "L": g.new_tokens, "S": np.add(_held(block, g.past_tokens), g.new_tokens)}
            | _reaching(block, g)
            | ({} if block is None or block.block.cross is None else {"T": _input_tokens(g)})
            for g in self.groups
        ]

    def of(self, block: BlockProgram) -> "Sizes":
        """Sizes of a block of the program."""
        if self._is_of_only:
            return self
        if block.kind not in self._blocks:
            self._blocks[block.kind] = Sizes(self._program, self.mesh, self.groups, block, of_input=self._of_input)
        return self._blocks[block.kind]

    @property
    def of_input(self) -> "Sizes":
        """Sizes of what reads the input before a decoder."""
        if self._input is None:
            read = (replace(g, new_tokens=_input_tokens(g), past_tokens=0.0) for g in self.groups)
            self._input = Sizes(self._program, self.mesh, tuple(read), of_input=True)
        return self._input

    def at(self, part: PassPart) -> "Sizes":
        """Sizes of a part of a pass."""
        own = self.of_input if part.of_input else self
        return own if part.block is None else own.of(part.block)

    def shards(self, axes: tuple[str, ...]) -> Array:
        """Chips along `axes` together."""
        if axes not in self._shards:
            self._shards[axes] = prod((self.mesh[axis] for axis in axes), start=1.0)
        return self._shards[axes]

    def local(self, group: int, dim: str, axes: tuple[str, ...]) -> Array:
        """Size of `dim` on one chip for one token group."""
        key = (group, dim, axes)
        if key not in self._cut:
            size = self._dims[group][dim]
            self._cut[key] = ceil_div(size, self.shards(axes)) if axes else size
        return self._cut[key]

    def elements(self, form: Form) -> Array:
        """Elements of one copy of a tensor of this form on one chip, over all token groups that it holds."""
        if form not in self._elements:
            n_groups = len(self.groups) if "B" in form.letters else 1
            parts = [prod((self.local(g, dim, axes) for dim, axes in form.dims), start=1.0) for g in range(n_groups)]
            self._elements[form] = sum(parts[1:], start=parts[0])
        return self._elements[form]

    def total(self, tensor: Tensor) -> Array:
        """Elements of a tensor with its copies on one chip."""
        return tensor.copies * self.elements(tensor.form)


def context_axes(block: BlockProgram) -> tuple[str, ...]:
    """The axes that the positions a block's attention reads are cut over."""
    kept = [(tensor.form, "S") for tensor in block.state if "S" in tensor.form.letters]
    met = [(step.cache.form, step.positions) for step in block.steps if isinstance(step, Attention)]
    cut = {axis for form, positions in (*kept, *met) for axis in form.axes_of(positions)}
    return tuple(axis for axis in AXES if axis in cut)


def _input_tokens(group: TokenGroup) -> Array:
    assert group.input_tokens is not None, "a model with an encoder needs the tokens it reads in every token group"
    return group.input_tokens


def _reaching(block: BlockProgram | None, group: TokenGroup) -> dict[str, Array]:
    """Tokens of a sequence in a block that some of them alone reach; nothing said where all do."""
    if block is None or block.block.share == 1:
        return {}
    tokens = np.ceil(block.block.share * group.new_tokens)
    return {"L": tokens, "S": tokens}


def _n_learned_positions(model: Model, *, of_input: bool) -> int:
    if of_input and model.encoder is not None:
        return model.encoder.n_learned_positions
    return model.n_learned_positions


def _held(block: BlockProgram | None, past_tokens: Array) -> Array:
    return past_tokens if block is None else held_positions(block.block, past_tokens)


def block_dims(model: Model, block: Block, head_shards: Array) -> dict[str, Array]:
    """Sizes of the dimensions that a block has to itself, heads padded so that each of `head_shards` holds equally many."""
    others: dict[str, Array] = {"V": float(block.n_other_params)} if block.n_other_params else {}
    return _mixer_dims(model, block, head_shards) | _ffn_dims(model, block) | others


def _mixer_dims(model: Model, block: Block, head_shards: Array) -> dict[str, Array]:
    mixer = block.mixer
    if isinstance(mixer, AttentionMixer):
        n_heads, n_kv_heads = padded_heads(mixer.n_heads, mixer.n_kv_heads, head_shards)
        return {"H": n_heads, "K": n_kv_heads, "Q": float(mixer.d_head)}
    if isinstance(mixer, LatentMixer):
        n_heads, _ = padded_heads(mixer.n_heads, 1, head_shards)
        index = mixer.indexer
        return {
            "H": n_heads, "D": float(mixer.q_rank or 0), "O": float(mixer.kv_rank), "J": float(mixer.d_rope),
            "I": float(mixer.d_nope), "Y": float(mixer.d_value),
            "A": float(index.n_heads if index else 0), "U": float(index.d_head if index else 0),
        }  # fmt: skip
    if isinstance(mixer, CompressedMixer):
        return _compressed_dims(mixer, head_shards)
    if isinstance(mixer, RECURRENT):
        shape = mixer.recurrence(model.d_model)
        n_heads, n_groups = padded_heads(shape.n_heads, shape.n_groups, head_shards)
        return {
            "H": n_heads, "K": n_groups, "Q": float(shape.d_value), "D": float(shape.d_state),
            "I": float(shape.per_head), "J": float(shape.per_group),
            "T": float(shape.widened or getattr(mixer, "d_squeezed", 0)), "W": float(shape.low_rank - shape.widened),
            "X": float(shape.convolved_per_head * (shape.d_conv - 1)),
            "U": float(shape.convolved_per_group * (shape.d_conv - 1)), "O": float(shape.n_vector_params),
        }  # fmt: skip
    return {}


def _compressed_dims(mixer: CompressedMixer, head_shards: Array) -> dict[str, Array]:
    n_heads, _ = padded_heads(mixer.n_heads, 1, head_shards)
    index, twice = mixer.indexer, 2 if mixer.overlapping else 1
    return {
        "H": n_heads, "K": 1.0, "Q": float(mixer.d_head), "D": float(mixer.q_rank),
        "T": float(mixer.o_groups), "Y": float(mixer.o_rank), "J": 2.0 * twice * mixer.d_head,
        "A": float(index.n_heads if index else 0), "U": float(index.d_head if index else 0),
        "X": 2.0 * twice * (index.d_head if index else 0), "O": float(mixer.n_vector_params),
    }  # fmt: skip


def _ffn_dims(model: Model, block: Block) -> dict[str, Array]:
    ffn = block.ffn
    if ffn is None:
        return {}
    dims: dict[str, Array] = {"F": float(ffn.d_ff)}
    if isinstance(ffn, DenseFfn):
        return dims | ({"Y": float(model.d_model)} if ffn.receptance else {})
    latent: dict[str, Array] = {"P": float(ffn.d_latent)} if ffn.d_latent else {}
    return dims | {"G": float(ffn.n_experts), "Z": float(ffn.d_ff_shared)} | latent


def padded_heads(n_heads: int, n_kv_heads: int, n_shards: Array) -> tuple[Array, Array]:
    """Query and KV heads once padded so that every shard holds equally many.

    Multiquery and grouped-query K/V heads are never padded: where there are fewer than shards they are replicated.
    """
    padded = ceil_div(float(n_heads), n_shards) * n_shards
    return padded, padded if n_kv_heads == n_heads else float(n_kv_heads)


def batch_prefix(mesh: Mapping[str, Array], n_sequences: Array) -> NDArray[np.int64]:
    """Length of the longest prefix of x, y, z whose product divides the batch.

    >>> int(batch_prefix({"x": 4.0, "y": 4.0, "z": 4.0}, 32.0))
    2
    """
    shards: Array = 1.0
    length: NDArray[np.int64] = np.zeros((), np.int64)
    divides: NDArray[np.bool_] = np.ones((), np.bool_)
    for axis in AXES:
        shards = np.multiply(shards, mesh[axis])
        divides = divides & (np.remainder(n_sequences, shards) == 0)
        length = length + divides
    return length


def batch_axes(sizes: tuple[int, int, int], n_sequences: int) -> tuple[str, ...]:
    """The axes that `batch_prefix` counts, for one mesh.

    >>> batch_axes((4, 4, 4), 32)
    ('x', 'y')
    """
    mesh = dict(zip(AXES, (float(size) for size in sizes), strict=True))
    return AXES[: int(batch_prefix(mesh, float(n_sequences)))]
