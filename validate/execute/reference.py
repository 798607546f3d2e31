"""The unsharded model, written as one reads it: what every sharded run must equal."""

import torch

from ...models.description import Model
from . import arithmetic as do
from .formats import narrowed, widened
from .weights import ENDS, Weights


class Reference:
    """A model on one device with its cache, fed pass by pass.

    Parameters
    ----------
    theta, eps : base of the rotary embedding, and what a norm adds to the variance
    kept : what the cache keeps its numbers as
    """

    def __init__(self, model: Model, weights: Weights, *, theta: float, eps: float, kept: torch.dtype) -> None:
        self.model, self.theta, self.eps, self.kept = model, theta, eps, kept
        names = ["w_in", "w_out", "w_q", "w_kv", "w_o", "norms"]
        names += ["norms of q and k"] if model.qk_norm else []
        names += ["bias of q", "bias of kv"] if model.biases.qkv else []
        names += ["bias of o"] if model.biases.attention_out else []
        names += ["bias of w_in", "bias of w_out"] if model.biases.ffn else []
        self._layers = [{name: weights(layer, name) for name in names} for layer in range(model.n_layers)]
        ends = ["embedding"] + ["positions"] * bool(model.n_learned_positions)
        ends += ["embedding norm"] * model.embedding_norm + ["final norm"] * model.final_norm
        ends += ["unembedding"] * (not model.tied_embeddings) + ["bias of logits"] * model.biases.logits
        self._ends = {name: weights(ENDS, name) for name in ends}
        self._cache: list[list[torch.Tensor]] = [[] for _ in range(model.n_layers)]
        self._slopes = do.alibi_slopes(model.n_heads) if model.positions == "alibi" else None

    def __call__(self, tokens: torch.Tensor, past: int) -> torch.Tensor:
        """Logits [B, V] of the last of `tokens` [B, L], which follow `past` tokens already seen."""
        model, positions = self.model, torch.arange(past, past + tokens.shape[1])
        x = self._ends["embedding"][tokens]
        if model.n_learned_positions:
            x = x + self._ends["positions"][positions]
        if model.embedding_norm:
            x = self._norm(x, self._ends["embedding norm"])
        for i, w in enumerate(self._layers):
            norms = w["norms"].view(model.n_norms_per_block, -1, model.d_model)
            entered = self._norm(x, norms[0])
            if model.block == "parallel":
                x = x + self._attention(entered, w, i, positions) + self._ffn(entered, w)
            else:
                x = x + self._attention(entered, w, i, positions)
                x = x + self._ffn(self._norm(x, norms[1]), w)
        last = x[:, -1]
        if model.final_norm:
            last = self._norm(last, self._ends["final norm"])
        matrix = self._ends["embedding"].T if model.tied_embeddings else self._ends["unembedding"]
        logits = last @ matrix
        return logits + self._ends["bias of logits"] if model.biases.logits else logits

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return do.norm(self.model, x, do.statistics(self.model, x), weight.view(-1, self.model.d_model), self.eps)

    def _ffn(self, x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden = torch.einsum("ble,cef->cblf", x, w["w_in"]) if self.model.gated else x @ w["w_in"]
        if self.model.biases.ffn:
            bias = w["bias of w_in"]
            hidden = hidden + (bias[:, None, None] if self.model.gated else bias)
        out = do.activate(self.model, hidden) @ w["w_out"]
        return out + w["bias of w_out"] if self.model.biases.ffn else out

    def _attention(self, x: torch.Tensor, w: dict[str, torch.Tensor], layer: int, at: torch.Tensor) -> torch.Tensor:
        q = torch.einsum("ble,ehq->blhq", x, w["w_q"])
        kv = torch.einsum("ble,cekq->cblkq", x, w["w_kv"])
        if self.model.biases.qkv:
            q, kv = q + w["bias of q"], kv + w["bias of kv"][:, None, None]
        k, v = kv
        if self.model.qk_norm:
            q, k = (do.norm_heads(y, scale, self.eps) for y, scale in zip((q, k), w["norms of q and k"], strict=True))
        if self.model.positions == "rope":
            q, k = (do.rotate(y, at, self.theta) for y in (q, k))
        self._cache[layer].append(widened(narrowed(torch.stack((k, v)), self.kept), x.dtype))
        keys, values = torch.cat(self._cache[layer], 2)
        mixed, _ = do.attend(q, keys, values, at, torch.arange(keys.shape[1]), self._slopes)
        out = torch.einsum("blhq,hqe->ble", mixed, w["w_o"])
        return out + w["bias of o"] if self.model.biases.attention_out else out
