"""What a step does on one chip, in numbers, and what its tensors hold."""

from collections.abc import Iterable
from dataclasses import dataclass

from .formats import Formats
from .forms import Form
from .program import Tensor
from .sizes import Sizes
from .types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step on one chip, each (...) arrays.

    `flop` counts multiply and add apart. `sent_bytes` leave the chip, `full_bytes` is the tensor as the collective's
    formula knows it (the gathered output, the input of a reduction): sent = (K-1)/K x full.
    """

    flop: Array = 0.0
    weight_bytes: Array = 0.0
    kv_bytes: Array = 0.0
    activation_bytes: Array = 0.0
    full_bytes: Array = 0.0
    sent_bytes: Array = 0.0
    n_rows: Array = 0.0

    @property
    def hbm_bytes(self) -> Array:
        """All HBM traffic."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


def tensor_bytes(tensors: Iterable[Tensor], sizes: Sizes, formats: Formats) -> Array:
    """Bytes of some tensors on one chip."""
    return sum((sizes.total(t) * formats.bytes_of(t.role) for t in tensors), start=0.0)


def n_rows(tensor: Tensor, sizes: Sizes) -> Array:
    """Tokens of a tensor on one chip."""
    dims = tuple(d for d in tensor.form.dims if d[0] in ("B", "L"))
    return sizes.total(Tensor(name="rows", form=Form(dims)))
