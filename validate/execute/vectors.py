"""The vectors of a recurrent mixer: one flat tensor in the program, cut here into what its arithmetic calls by name."""

from collections.abc import Mapping

import torch

from ...models.forms import Form
from ...models.mixers.recurrent import Recurrence
from .value import Value
from .weights import pad_heads

# Those that a matrix product adds, with the dimensions of a head or a group behind it
_BIASES = {"bias of heads": ("H", "I"), "bias of groups": ("K", "J")}


def named_vectors(shape: Recurrence, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every vector by name: [numbers, heads], [numbers, groups] or [numbers]; views of `flat`, in the mixer's order."""
    times = {"H": shape.n_heads, "K": shape.n_groups, "": 1}
    parts = flat.split([vector.size * times[vector.per] for vector in shape.vectors])
    return {
        vector.name: part.view(vector.size, -1) if vector.per else part
        for vector, part in zip(shape.vectors, parts, strict=True)
    }


def local_vectors(shape: Recurrence, flat: torch.Tensor, lengths: Mapping[str, int], n_heads: int) -> dict[str, Value]:
    """The same as values, whole and with heads padded to `n_heads`."""
    found: dict[str, Value] = {}
    for vector in shape.vectors:
        data = named_vectors(shape, flat)[vector.name]
        if not vector.per:
            found[vector.name] = Value(data, Form((("E", ()),)))
            continue
        form = Form(((vector.per, ()),))
        data = pad_heads(data, form, lengths, n_heads, lead=1)
        if vector.name in _BIASES:
            data, form = data.T, Form(tuple((dim, ()) for dim in _BIASES[vector.name]))
        found[vector.name] = Value(data, form)
    return found
