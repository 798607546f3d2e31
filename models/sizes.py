"""How many elements of a form one chip holds: the one place that divides a dimension by mesh axes.

Everything is an array or a scalar alike; arrays of one length are candidates priced together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from .description import Model
from .forms import AXES, Form
from .program import ShardedProgram, Tensor

Array = NDArray[np.float64] | float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """Sequences that go through one forward pass alike.

    Parameters
    ----------
    n_sequences, new_tokens, past_tokens : (...) sequences, tokens of each in this pass, tokens of each in the cache
    """

    n_sequences: Array
    new_tokens: Array
    past_tokens: Array


def ceil_div(dim: Array, n_shards: Array) -> Array:
    """Size of the largest shard; a dimension shorter than its shards is replicated or padded.

    >>> float(ceil_div(48.0, 64.0)), float(ceil_div(8192.0, 4.0))
    (1.0, 2048.0)
    """
    return np.ceil(np.divide(dim, n_shards))


class Sizes:
    """Dimension and axis sizes of one program, with what they imply cached.

    Parameters
    ----------
    mesh : size of each of the axes x, y, z, (...) arrays
    groups : the token groups of the pass
    """

    def __init__(self, program: ShardedProgram, mesh: Mapping[str, Array], groups: Sequence[TokenGroup]) -> None:
        model = program.model
        self.mesh = {axis: mesh.get(axis, 1.0) for axis in AXES}
        self.groups = tuple(groups)
        self._shards: dict[tuple[str, ...], Array] = {(): 1.0}
        self._cut: dict[tuple[int, str, tuple[str, ...]], Array] = {}
        self._elements: dict[Form, Array] = {}
        n_heads, n_kv_heads = padded_heads(model, self.shards(program.head_axes))
        n_statistics = 2.0 if model.norm == "layernorm" else 1.0
        common: dict[str, Array] = {
            "E": float(model.d_model),
            "F": float(model.d_ff),
            "H": n_heads,
            "K": n_kv_heads,
            "Q": float(model.d_head),
            "V": float(model.vocab_size),
            "P": float(model.n_learned_positions),
            # every chip's own statistics of a norm (sum of squares, for layernorm also the sum) at the entry and between
            # blocks, of attention over a part of the context (log-sum-exp), and its own best logit
            "N": n_statistics * self.shards(program.layout.entry.axes_of("E")),
            "R": n_statistics * self.shards(program.residual.form.axes_of("E")),
            "M": self.shards(program.cache.form.axes_of("S")),
            "C": self.shards(AXES),
        }
        self._dims: list[dict[str, Array]] = [
            common | {"B": g.n_sequences, "L": g.new_tokens, "S": np.add(g.past_tokens, g.new_tokens)}
            for g in self.groups
        ]

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


def padded_heads(model: Model, n_shards: Array) -> tuple[Array, Array]:
    """Query and KV heads once padded so that every shard holds equally many.

    Multiquery and grouped-query K/V heads are never padded: where there are fewer than shards they are replicated.
    """
    n_heads = ceil_div(float(model.n_heads), n_shards) * n_shards
    return n_heads, n_heads if model.n_kv_heads == model.n_heads else float(model.n_kv_heads)


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
