"""Weights of a model by the names its program gives them: random and seeded, whole or one chip's part."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch

from ...models.description import Model
from ...models.forms import Form
from ...models.program import Experts, Matmul, ShardedProgram, Step, Tensor
from ...models.sizes import block_dims
from .shards import Dimensions, cut

# Layers are numbered from 0; what lies at the ends of the model has this number.
ENDS = -1
# The ends of a model where kinds of blocks are named.
NO_BLOCK = ""
# Chosen from in full precision, so never rounded.
_ROUTER = "router"


class Weights(Protocol):
    """A source of whole tensors, unpadded."""

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """The tensor `name` of a layer, or of the model's ends."""
        ...


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """Every weight of a model, by kinds of blocks; those of the ends under `NO_BLOCK`.

    Parameters
    ----------
    summed : of each matrix, the dimensions its einsum sums over
    """

    model: Model
    tensors: Mapping[str, Mapping[str, Tensor]]
    summed: Mapping[str, Mapping[str, tuple[str, ...]]]

    def kind(self, layer: int) -> str:
        """The kind of block a layer is."""
        return NO_BLOCK if layer == ENDS else self.model.layers[layer]

    def shape(self, kind: str, name: str) -> tuple[int, ...]:
        """Whole shape of a weight, its copies first."""
        tensor = self.tensors[kind][name]
        copies = () if tensor.copies == 1 else (tensor.copies,)
        lengths = lengths_of(self.model, kind)
        return (*copies, *(lengths[dim] for dim in tensor.form.letters))

    def made(self, kind: str, name: str) -> tuple[str, ...]:
        """The dimensions of what a matrix makes; () for a vector."""
        summed = self.summed[kind].get(name)
        letters = self.tensors[kind][name].form.letters
        return () if summed is None else tuple(dim for dim in letters if dim not in summed)


def weight_plan(program: ShardedProgram) -> WeightPlan:
    """The weights a program names."""
    ends = (*program.first_weights, *program.last_weights)
    tensors = {NO_BLOCK: {tensor.name: tensor for tensor in ends}}
    summed: dict[str, dict[str, tuple[str, ...]]] = {NO_BLOCK: {"embedding": ("E",), "unembedding": ("E",)}}
    for block in program.blocks:
        tensors[block.kind] = {tensor.name: tensor for tensor in block.weights}
        summed[block.kind] = _summed(block.steps)
    return WeightPlan(program.model, tensors, summed)


def _summed(steps: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        if isinstance(step, Matmul):
            xs = step.x * len(step.weights) if len(step.x) == 1 else step.x
            for x, w in zip(xs, step.weights, strict=True):
                shared = (dim for dim in w.form.letters if dim in x.form.letters and dim != step.batched)
                found[w.name] = tuple(shared)
        elif isinstance(step, Experts):
            into, out = step.weights
            width = tuple(dim for dim in into.form.letters if dim not in "GF")
            found |= {into.name: width, out.name: ("F",)}
    return {name: dims for name, dims in found.items() if name != _ROUTER}


def lengths_of(model: Model, kind: str) -> dict[str, int]:
    """The dimensions of a model and of one kind of its blocks, unpadded."""
    own = block_dims(model, model.kinds[kind], 1.0) if kind else {}
    common = {"E": model.d_model, "V": model.vocab_size, "P": model.n_learned_positions}
    return common | {dim: int(size) for dim, size in own.items()}


class RandomWeights:
    """Normal weights of a size that keeps activations near 1, each tensor from a seed of its own."""

    def __init__(self, plan: WeightPlan, seed: int, dtype: torch.dtype) -> None:
        self._plan, self._seed, self._dtype = plan, seed, dtype

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """See `Weights`."""
        if name == "unembedding" and self._plan.model.tied_embeddings:
            return self(layer, "embedding").T
        kind = self._plan.kind(layer)
        shape = self._plan.shape(kind, name)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self._seed}/{layer}/{name}".encode()))
        spread = torch.randn(shape, generator=generator) * self._scale(kind, name, shape)
        return (1.0 + spread if "norm" in name else spread).to(self._dtype)

    def _scale(self, kind: str, name: str, shape: tuple[int, ...]) -> float:
        """One over the root of how many products a matrix adds up; other numbers spread by less than 1."""
        if name in _SPREAD:
            return _SPREAD[name]
        if "norm" in name or name.startswith("bias"):
            return 0.1
        form = self._plan.tensors[kind][name].form
        sizes = dict(zip(form.letters, shape[len(shape) - len(form.dims) :], strict=True))
        summed = self._plan.summed[kind].get(name, ("E",))
        return float(prod(sizes[dim] for dim in summed) ** -0.5)


# What is summed over nothing, or over what no einsum of the program names.
_SPREAD = {"embedding": 1.0, "positions": 0.1, "sinks": 1.0, "vectors": 0.5, "token mixing of ffn": 0.5}


def pad_heads(tensor: torch.Tensor, form: Form, lengths: Mapping[str, int], n_heads: int, *, lead: int) -> torch.Tensor:
    """Fill H up to `n_heads` with zeros, group by group, so that every query head keeps its K/V head; K where it is H.

    Parameters
    ----------
    lengths : unpadded
    """
    real, groups = lengths.get("H", 0), max(lengths.get("K", 0), 1)
    for i, dim in enumerate(form.letters):
        at = lead + i
        if dim == "K" and groups == real:
            tensor = _fill(tensor, at, n_heads)
        if dim == "H":
            parts = 1 if groups == real else groups
            opened = tensor.unflatten(at, (parts, -1))
            tensor = _fill(opened, at + 1, n_heads // parts).flatten(at, at + 1)
    return tensor


def _fill(tensor: torch.Tensor, at: int, length: int) -> torch.Tensor:
    missing = length - tensor.shape[at]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[at] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], at)


def local_part(
    whole: torch.Tensor,
    lengths: Mapping[str, int],
    form: Form,
    dims: Dimensions,
    place: Mapping[str, int],
    *,
    lead: int,
) -> torch.Tensor:
    """One chip's part of a weight, in memory of its own."""
    padded = pad_heads(whole, form, lengths, dims.lengths.get("H", 0), lead=lead)
    return cut(padded, dims, form, place).clone(memory_format=torch.contiguous_format)


def made_up_part(tensor: Tensor, dims: Dimensions, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Something of the shape of one chip's part, without the whole ever being made."""
    copies = () if tensor.copies == 1 else (tensor.copies,)
    shape = (*copies, *dims.shape(tensor.form))
    if not dtype.is_floating_point:
        return torch.randint(1, 64, shape, dtype=dtype, device=device)
    if "norm" in tensor.name:
        return torch.ones(shape, dtype=dtype, device=device)
    empty = torch.empty(shape, dtype=dtype, device=device)
    return empty if empty.is_meta else empty.normal_(std=dims.lengths["E"] ** -0.5)
