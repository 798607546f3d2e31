"""What every part of the unsharded model knows of the pass it is in."""

from dataclasses import dataclass

import torch

from ....models.blocks import Block
from ....models.description import Model

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A pass over new tokens of all sequences, through one layer.

    Parameters
    ----------
    positions : [L] of the new tokens
    theta, eps : base of the rotary embedding, and what a norm adds to the variance
    kept : what caches keep their numbers as
    n_chips : where tokens go to experts in turn, the chips these are spread over; None where the router chooses
    """

    model: Model
    block: Block
    positions: torch.Tensor
    theta: float
    eps: float
    kept: torch.dtype
    n_chips: int | None

    def seen(self, past: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        """All tokens [B, S, ...] so far, of which `new` are the last."""
        return new if past is None else torch.cat([past, new], 1)
