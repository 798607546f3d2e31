"""Number formats as torch keeps them, and weights in one byte a number with a scale an output column.

What is kept in fp8 lies as plain bytes (uint8): torch moves and cuts no fp8. A scale lies whole on every chip, as biases
do, so that what travels is one byte a weight, as priced.
"""

import torch

from .weights import Weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FP8 = torch.float8_e4m3fn
_LARGEST = {"int8": 127.0, "fp8": torch.finfo(_FP8).max}
# Weight -> the dimensions of what it makes, each index of which has a scale of its own
SCALED = {
    "w_in": ("F",), "w_out": ("E",), "w_q": ("H", "Q"), "w_kv": ("K", "Q"), "w_o": ("E",),
    "embedding": ("V",), "unembedding": ("V",),
}  # fmt: skip


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
    whole: torch.Tensor, letters: tuple[str, ...], name: str, dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A whole weight in one byte a number, and its scales [copies, ...what it makes]."""
    lead = whole.dim() - len(letters)
    summed = [lead + i for i, dim in enumerate(letters) if dim not in SCALED[name]]
    scale = (whole.float().abs().amax(summed, keepdim=True) / _LARGEST[dtype]).clamp(min=1e-12)
    steps = whole.float() / scale
    kept = narrowed(steps.round() if dtype == "int8" else steps, kept_as(dtype))
    return kept, scale.squeeze(summed)


class RoundedWeights:
    """Weights that went through a one-byte format and back: those of the unsharded model."""

    def __init__(self, source: Weights, letters: dict[str, tuple[str, ...]], weights: str, dtype: torch.dtype) -> None:
        self._source, self._letters, self._weights, self._dtype = source, letters, weights, dtype

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """See `Weights`."""
        whole = self._source(layer, name)
        if name not in SCALED:
            return whole
        letters = self._letters[name]
        kept, scale = quantised(whole, letters, name, self._weights)
        lead = whole.dim() - len(letters)
        for i, dim in enumerate(letters):
            if dim not in SCALED[name]:
                scale = scale.unsqueeze(lead + i)
        return (widened(kept, torch.float32) * scale).to(self._dtype)
