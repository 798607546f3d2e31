"""Weights of a model by the names its program gives them: random and seeded, whole or one chip's part."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch

from ...models.description import Model
from ...models.forms import Form
from ...models.program import Tensor
from .shards import Dimensions, cut

# Layers are numbered from 0; what lies at the ends of the model has this number.
ENDS = -1


class Weights(Protocol):
    """A source of whole tensors, unpadded."""

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """The tensor `name` of a layer, or of the model's ends."""
        ...


def lengths_of(model: Model) -> dict[str, int]:
    """The model's own dimensions, unpadded."""
    return {
        "E": model.d_model,
        "F": model.d_ff,
        "H": model.n_heads,
        "K": model.n_kv_heads,
        "Q": model.d_head,
        "V": model.vocab_size,
        "P": model.n_learned_positions,
    }


def whole_shape(model: Model, tensor: Tensor) -> tuple[int, ...]:
    """Shape of a weight, its copies first."""
    copies = () if tensor.copies == 1 else (tensor.copies,)
    return (*copies, *(lengths_of(model)[dim] for dim in tensor.form.letters))


class RandomWeights:
    """Normal weights of a size that keeps activations near 1, each tensor from a seed of its own.

    Parameters
    ----------
    tensors : every weight of the program, ends and block alike
    """

    def __init__(self, model: Model, tensors: Iterable[Tensor], seed: int, dtype: torch.dtype) -> None:
        self._shapes = {tensor.name: whole_shape(model, tensor) for tensor in tensors}
        self._forms = {tensor.name: tensor.form for tensor in tensors}
        self._seed, self._dtype, self._tied = seed, dtype, model.tied_embeddings

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """See `Weights`."""
        if name == "unembedding" and self._tied:
            return self(layer, "embedding").T
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self._seed}/{layer}/{name}".encode()))
        spread = torch.randn(self._shapes[name], generator=generator) * self._scale(name)
        return (1.0 + spread if "norm" in name else spread).to(self._dtype)

    def _scale(self, name: str) -> float:
        """One over the root of how many products a matrix adds up; vectors and positions spread by a tenth."""
        form = self._forms[name]
        if name == "embedding":
            return 1.0
        if name == "positions" or "norm" in name or name.startswith("bias"):
            return 0.1
        shape = dict(zip(form.letters, self._shapes[name][-len(form.dims) :], strict=True))
        summed = ("E",) if form.letters[0] == "E" else tuple(dim for dim in form.letters if dim != "E")
        n = 1
        for dim in summed:
            n *= shape[dim]
        return float(n**-0.5)


def pad_heads(model: Model, tensor: torch.Tensor, form: Form, n_heads: int, *, lead: int) -> torch.Tensor:
    """Fill H up to `n_heads` with zeros, group by group, so that every query head keeps its K/V head; K where it is H."""
    for i, dim in enumerate(form.letters):
        at = lead + i
        if dim == "K" and model.n_kv_heads == model.n_heads:
            tensor = _fill(tensor, at, n_heads)
        if dim == "H":
            groups = 1 if model.n_kv_heads == model.n_heads else model.n_kv_heads
            opened = tensor.unflatten(at, (groups, -1))
            tensor = _fill(opened, at + 1, n_heads // groups).flatten(at, at + 1)
    return tensor


def _fill(tensor: torch.Tensor, at: int, length: int) -> torch.Tensor:
    missing = length - tensor.shape[at]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[at] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], at)


def local_part(
    whole: torch.Tensor, model: Model, form: Form, dims: Dimensions, place: Mapping[str, int], *, lead: int
) -> torch.Tensor:
    """One chip's part of a weight, in memory of its own."""
    padded = pad_heads(model, whole, form, dims.lengths["H"], lead=lead)
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
