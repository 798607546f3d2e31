"""The arithmetic of a step, by whichever kernels run it."""

from collections.abc import Sequence
from typing import Protocol

import torch

from ...models.description import Model
from ...models.feed_forward import Ffn
from ...models.forms import Form
from . import arithmetic as do
from .cache import Cache
from .formats import widened


class Kernels(Protocol):
    """What a rank computes with; shapes as in `arithmetic`."""

    dtype: torch.dtype

    def matmul(self, x: torch.Tensor, x_form: Form, w: torch.Tensor, w_form: Form, out_form: Form) -> torch.Tensor:
        """Einsum over the dimensions x and w share; copies of w lead its dimensions and the result's."""
        ...

    def attend(
        self,
        q: torch.Tensor,
        cache: Cache,
        n_slots: int,
        q_positions: torch.Tensor,
        k_positions: torch.Tensor,
        bias: do.Bias,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Causal attention over the first `n_slots` of a cache, which hold `k_positions`: out and log-sum-exp."""
        ...

    def norm(self, model: Model, x: torch.Tensor, known: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """Norm of rows whose statistics are `known`, or their own."""
        ...

    def rotate(self, heads: Sequence[torch.Tensor], positions: torch.Tensor, theta: float) -> list[torch.Tensor]:
        """Rotary embedding of queries and keys, each [B, L, heads, d_head]."""
        ...

    def activate(self, ffn: Ffn, x: torch.Tensor) -> torch.Tensor:
        """The activation function."""
        ...


class TorchKernels:
    """Torch's own operations."""

    def __init__(self, dtype: torch.dtype, norm_eps: float) -> None:
        self.dtype, self._norm_eps = dtype, norm_eps

    def matmul(self, x: torch.Tensor, x_form: Form, w: torch.Tensor, w_form: Form, out_form: Form) -> torch.Tensor:
        """See `Kernels`: one matrix product, what is summed being last in x and first in w."""
        lead = w.dim() - len(w_form.dims)
        n_rows = sum(dim in ("B", "L") for dim in x_form.letters)
        n_summed = len(x_form.dims) - n_rows
        rows = x.flatten(0, n_rows - 1) if n_rows else x
        flat = rows.flatten(1)
        weight = widened(w, x.dtype).flatten(lead, lead + n_summed - 1)
        made = torch.matmul(flat, weight.flatten(lead + 1) if len(w_form.dims) > n_summed else weight)
        shape = (*w.shape[:lead], *x.shape[:n_rows], *w.shape[lead + n_summed :])
        return made.view(shape)

    def attend(
        self,
        q: torch.Tensor,
        cache: Cache,
        n_slots: int,
        q_positions: torch.Tensor,
        k_positions: torch.Tensor,
        bias: do.Bias,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels`."""
        k, v = cache.read(n_slots)
        return do.attend(q, widened(k, q.dtype), widened(v, q.dtype), q_positions, k_positions, bias)

    def norm(self, model: Model, x: torch.Tensor, known: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        return do.norm(model, x, do.statistics(model, x) if known is None else known, weight, self._norm_eps)

    def rotate(self, heads: Sequence[torch.Tensor], positions: torch.Tensor, theta: float) -> list[torch.Tensor]:
        """See `Kernels`."""
        return [do.rotate(x, positions, theta) for x in heads]

    def activate(self, ffn: Ffn, x: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        return do.activate(ffn, x)
