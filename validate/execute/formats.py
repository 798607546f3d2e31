"""Number formats as torch keeps them, and weights in one byte a number with a scale an output column.

What is kept in fp8 lies as plain bytes (uint8): torch moves and cuts no fp8. A scale lies whole on every chip, as biases
do, so that what travels is one byte a weight, as priced.
"""

import torch

from .weights import WeightPlan, Weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FP8 = torch.float8_e4m3fn
_LARGEST = {"int8": 127.0, "fp8": torch.finfo(_FP8).max}


def kept_as(dtype: str) -> torch.dtype:
    """What tensors of a format lie as."""
    return {"fp8": torch.uint8, "int8": torch.int8}.get(dtype) or DTYPES[dtype]


def narrowed(value: torch.Tensor, kept: torch.dtype) -> torch.Tensor:
    """`value` as it is kept; what is kept so already stays."""
    if value.dtype == kept:
        return value
    return value.to(_FP8).view(torch.uint8) if kept == torch.uint8 else value.to(kept)


def widened(kept: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is kept, as a number to reckon with."""
    return (kept.view(_FP8) if kept.dtype == torch.uint8 else kept).to(dtype)


def scale_name(weight: str) -> str:
    """The name of a weight's scale."""
    return f"scale of {weight}"


def quantised(
    whole: torch.Tensor, letters: tuple[str, ...], made: tuple[str, ...], dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A whole matrix in one byte a number, and its scales [copies, ...], one an index of what it makes."""
    lead = whole.dim() - len(letters)
    summed = [lead + i for i, dim in enumerate(letters) if dim not in made]
    scale = (whole.float().abs().amax(summed, keepdim=True) / _LARGEST[dtype]).clamp(min=1e-12)
    steps = whole.float() / scale
    kept = narrowed(steps.round() if dtype == "int8" else steps, kept_as(dtype))
    return kept, scale.squeeze(summed)


class RoundedWeights:
    """Weights that went through a one-byte format and back: those of the unsharded model."""

    def __init__(self, source: Weights, plan: WeightPlan, weights: str, dtype: torch.dtype) -> None:
        self._source, self._plan, self._weights, self._dtype = source, plan, weights, dtype

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """See `Weights`."""
        whole, kind = self._source(layer, name), self._plan.kind(layer)
        made, letters = self._plan.made(kind, name), self._plan.tensors[kind][name].form.letters
        if not made:
            return whole
        kept, scale = quantised(whole, letters, made, self._weights)
        return (widened(kept, torch.float32) * spread(scale, letters, made)).to(self._dtype)


def spread(scale: torch.Tensor, letters: tuple[str, ...], made: tuple[str, ...]) -> torch.Tensor:
    """A scale [copies, ...made] as it meets its matrix [copies, ...letters]."""
    lead = scale.dim() - len(made)
    for i, dim in enumerate(letters):
        if dim not in made:
            scale = scale.unsqueeze(lead + i)
    return scale
