"""What every step of a rank works with, and how it takes and leaves tensors."""

from dataclasses import dataclass
from typing import Literal

import torch

from ...models.description import Model
from ...models.forms import AXES, Form
from ...models.program import ShardedProgram, Tensor
from .comm import Wires
from .formats import scale_name, spread, widened
from .kernels import Kernels
from .shards import cut, indices, recut
from .value import Pass, Value

# What a norm reads under a name of its own is the residual, at the last position where logits are to come.
_LAST = ("last", "final normed")


@dataclass(slots=True, kw_only=True)
class Local:
    """A rank's program, wires and kernels.

    Parameters
    ----------
    routing : see `RunSpec`
    """

    program: ShardedProgram
    wires: Wires
    kernels: Kernels
    theta: float
    norm_eps: float
    routing: Literal["router", "balanced"] = "router"

    @property
    def model(self) -> Model:
        """The model."""
        return self.program.model

    def get(self, tensor: Tensor, now: Pass) -> torch.Tensor:
        """A tensor in the form a step wants; what slices alone bring about is done here."""
        held = now.held.get(tensor.name) or self._residual_as(tensor, now)
        if set(held.form.partial) != set(tensor.form.partial):
            raise AssertionError(f"{tensor.name} lies as {held.form} where {tensor.form} is read")
        return recut(held.data, now.dims, held.form, tensor.form, self.wires.place)

    def put(self, tensor: Tensor, data: torch.Tensor, now: Pass) -> None:
        """Leave a tensor in the form its step says."""
        now.held[tensor.name] = Value(data, tensor.form)

    def weight(self, tensor: Tensor, now: Pass) -> torch.Tensor:
        """A matrix in the form a step wants, as numbers to reckon with."""
        found = widened(self.get(tensor, now), self.kernels.dtype)
        scale = now.held.get(scale_name(tensor.name))
        if scale is None:
            return found
        form = Form(tuple(item for item in tensor.form.dims if item[0] in scale.form.letters))
        part = recut(scale.data, now.dims, scale.form, form, self.wires.place)
        return (found * spread(part, tensor.form.letters, form.letters)).to(self.kernels.dtype)

    def vector(self, name: str, dim: str, axes: tuple[str, ...], now: Pass) -> torch.Tensor:
        """A chip's part of a vector whose last dimension is cut over `axes`; what leads it is whole."""
        return cut(now.held[name].data, now.dims, Form(((dim, axes),)), self.wires.place)

    def part_of(self, name: str, form: Form, now: Pass) -> torch.Tensor:
        """A vector in the form a step wants."""
        held = now.held[name]
        return recut(held.data, now.dims, held.form, form, self.wires.place)

    def maybe_vector(self, name: str, dim: str, axes: tuple[str, ...], now: Pass) -> torch.Tensor | None:
        """The same of a vector that need not be there."""
        return self.vector(name, dim, axes, now) if name in now.held else None

    def is_first(self, axes: tuple[str, ...]) -> bool:
        """Whether this chip is the one that adds what must be added once to a sum over `axes`."""
        return all(self.wires.place[axis] == 0 for axis in axes)

    def own_part(self, parts: torch.Tensor, axes: tuple[str, ...]) -> torch.Tensor:
        """The number of this chip among those of its group."""
        return parts[..., self.wires.mesh.index(self.wires.place, tuple(axis for axis in AXES if axis in axes))]

    def _residual_as(self, tensor: Tensor, now: Pass) -> Value:
        residual = now.held["residual"]
        if tensor.name not in _LAST:
            return residual
        axes = residual.form.axes_of("L")
        last = self._last_position(residual, now)
        return Value(last, Form(tuple(item for item in residual.form.dims if item[0] != "L"), axes))

    def _last_position(self, residual: Value, now: Pass) -> torch.Tensor:
        """[B, E] of the last position where this chip holds it, else zeros."""
        held = indices(now.dims, residual.form, "L", self.wires.place).tolist()
        last = now.tokens.shape[1] - 1
        return residual.data[:, held.index(last)] if last in held else torch.zeros_like(residual.data[:, 0])
