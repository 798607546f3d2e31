"""Softmax attention with its projections."""

import torch

from ....models.mixers.attention import AttentionMixer
from .. import arithmetic as do
from ..formats import narrowed, widened
from .reading import Reading, Weights


def attention(
    at: Reading, mixer: AttentionMixer, x: torch.Tensor, w: Weights, cache: list[torch.Tensor]
) -> torch.Tensor:
    """[B, L, E]; keys and values of the new tokens are added to `cache`, unless it is another layer's."""
    q = torch.einsum("ble,ehq->blhq", x, w["w_q"]) + w.get("bias of q", 0.0)
    is_turned = (mixer.positions or at.model.positions) == "rope"
    q = _normed(at, mixer, q, w, 0)
    if is_turned:
        q = do.rotate(q, at.positions, at.theta)
    if mixer.own_kv:
        k, v = _keys_and_values(at, mixer, x, w)
        k = _normed(at, mixer, k, w, 1)
        if is_turned:
            k = do.rotate(k, at.positions, at.theta)
        cache.append(widened(narrowed(torch.stack((k, v)), at.kept), x.dtype))
    keys, values = torch.cat(cache, 2)
    slopes = do.alibi_slopes(mixer.n_heads) if at.model.positions == "alibi" else None
    bias = do.Bias(slopes=slopes, sinks=w.get("sinks"), reach=mixer.reach)
    mixed, _ = do.attend(q, keys, values, at.positions, torch.arange(keys.shape[1]), bias)
    if mixer.output_gate:
        gate = torch.einsum("ble,ehq->blhq", x, w["w_gate"]) + w.get("bias of gate", 0.0)
        mixed = mixed * gate.sigmoid()
    if mixer.head_gate:
        mixed = mixed * torch.einsum("ble,eh->blh", x, w["w_head_gate"]).sigmoid()[..., None]
    return torch.einsum("blhq,hqe->ble", mixed, w["w_o"]) + w.get("bias of o", 0.0)


def _keys_and_values(
    at: Reading, mixer: AttentionMixer, x: torch.Tensor, w: Weights
) -> tuple[torch.Tensor, torch.Tensor]:
    if mixer.value_is_key:
        one = torch.einsum("ble,ekq->blkq", x, w["w_kv"]) + w.get("bias of kv", 0.0)
        return one, one
    k, v = torch.einsum("ble,cekq->cblkq", x, w["w_kv"])
    if not at.model.biases.qkv:
        return k, v
    bias = w["bias of kv"]
    return k + bias[0], v + bias[1]


def _normed(at: Reading, mixer: AttentionMixer, x: torch.Tensor, w: Weights, which: int) -> torch.Tensor:
    """Queries (0) or keys (1), each head by itself or all together."""
    if not mixer.qk_norm:
        return x
    if mixer.qk_norm_over == "width":
        scale = w["norm of q" if which == 0 else "norm of k"]
        return do.rms_norm(x.flatten(2), scale.flatten(), at.eps).view(x.shape)
    scales = w["norms of q and k"]
    return do.rms_norm(x, scales[which] if mixer.own_kv else scales, at.eps)
