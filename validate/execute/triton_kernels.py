"""The arithmetic of a step by our own Triton kernels."""

from collections.abc import Sequence

import torch

from ...hardware_specs.errors import SpecError
from ...kernels.activation import activate
from ...kernels.decode_attention import decode_attention
from ...kernels.matmul import matmul
from ...kernels.norm import norm
from ...kernels.prefill_attention import prefill_attention
from ...kernels.rope import plain_frequencies, rotate, turn_table
from ...models.description import Model
from ...models.feed_forward import Ffn
from ...models.forms import Form
from .arithmetic import NORM_EPS, Bias
from .cache import Cache
from .formats import widened
from .kernels import TorchKernels


class TritonKernels:
    """Our kernels, on a GPU or in Triton's interpreter.

    Where a chip holds every n-th position of a context, prompts (and ALiBi) see keys that no range of slots names: these
    are attended to by torch, as is a cache in another format than the queries; a norm with another epsilon than the kernel's
    is torch's too, and weights in one byte a number are widened before their product.

    Parameters
    ----------
    n_positions : positions a sequence can have
    """

    def __init__(
        self, dtype: torch.dtype, n_positions: int, theta: float, device: torch.device, norm_eps: float
    ) -> None:
        self.dtype, self._norm_eps = dtype, norm_eps
        self._torch = TorchKernels(dtype, norm_eps)
        self._n_positions, self._theta, self._device = n_positions, theta, device
        self._tables: dict[int, torch.Tensor] = {}

    def _turns(self, d_head: int) -> torch.Tensor:
        if d_head not in self._tables:
            table = turn_table(plain_frequencies(d_head, self._theta), self._n_positions)
            self._tables[d_head] = table.to(self._device)
        return self._tables[d_head]

    def matmul(self, x: torch.Tensor, x_form: Form, w: torch.Tensor, w_form: Form, out_form: Form) -> torch.Tensor:
        """See `Kernels`: copies of w one after the other."""
        lead = w.dim() - len(w_form.dims)
        n_rows = sum(dim in ("B", "L") for dim in x_form.letters)
        n_summed = len(x_form.dims) - n_rows
        rows = x.flatten(0, n_rows - 1).flatten(1)
        kept = w.shape[lead + n_summed :]
        copies = widened(w, x.dtype).reshape(-1, rows.shape[1], kept.numel())
        made = torch.stack([matmul(rows, copy) for copy in copies])
        return made.view(*w.shape[:lead], *x.shape[:n_rows], *kept)

    def attend(
        self,
        q: torch.Tensor,
        cache: Cache,
        n_slots: int,
        q_positions: torch.Tensor,
        k_positions: torch.Tensor,
        bias: Bias,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels`."""
        n_new, slopes = q.shape[1], bias.slopes
        is_apart = cache.is_dealt and (n_new > 1 or slopes is not None)
        if n_slots == 0 or cache.memory.dtype != q.dtype or is_apart or not bias.is_plain or len(cache.memory) == 1:
            return self._torch.attend(q, cache, n_slots, q_positions, k_positions, bias)
        if n_new > 1:
            k, v = (held.contiguous() for held in cache.read(n_slots))
            out, lse = prefill_attention(q.contiguous(), k, v, alibi_slopes=slopes)
            return out, lse.transpose(1, 2)
        lengths = torch.full((q.shape[0],), n_slots, dtype=torch.int32, device=q.device)
        table = None if cache.page_size == 1 else cache.table.to(torch.int32)
        k, v = cache.memory
        out, lse = decode_attention(q[:, 0].contiguous(), k, v, lengths, block_table=table, alibi_slopes=slopes)
        return out[:, None], lse[:, None]

    def norm(self, model: Model, x: torch.Tensor, known: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        if self._norm_eps != NORM_EPS or not model.norm_scale:
            return self._torch.norm(model, x, known, weight)
        shifted = weight if model.norm_bias else weight[:1]
        out, _ = norm(x, shifted, kind=model.norm, known=known, n_whole=model.d_model)
        return out

    def rotate(self, heads: Sequence[torch.Tensor], positions: torch.Tensor, theta: float) -> list[torch.Tensor]:
        """See `Kernels`: queries and keys in one launch."""
        if theta != self._theta:
            raise SpecError(f"the rotary table is for theta {self._theta}, not {theta}")
        if len(heads) == 1:
            return self._torch.rotate(heads, positions, theta)
        q, k = (x.contiguous() for x in heads)
        return list(rotate(q, k, positions.expand(q.shape[0], -1), self._turns(q.shape[-1])))

    def activate(self, ffn: Ffn, x: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        if ffn.activation == "relu2":
            return self._torch.activate(ffn, x)
        return activate(x, ffn.activation, gated=ffn.gated)
