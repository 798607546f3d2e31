"""Latent attention as its paper writes it: keys and values of every head expanded from the latent."""

import torch

from ....models.mixers.latent import LatentMixer
from .. import arithmetic as do
from ..formats import narrowed, widened
from .reading import Reading, Weights

Latents = dict[str, torch.Tensor]


def latent(
    at: Reading, mixer: LatentMixer, x: torch.Tensor, w: Weights, cache: Latents, picks: dict[str, torch.Tensor]
) -> torch.Tensor:
    """[B, L, E]; `cache` holds latents, rotated keys, and an indexer's keys; `picks` what the last indexer lets through.

    References
    ----------
    [DeepSeek2024] section 2.1.
    """
    low = do.rms_norm(x @ w["w_dq"], w["norm of q"], at.eps) if mixer.q_rank else x
    q, q_rotated = (torch.einsum("bld,dhi->blhi", low, w[name]) for name in ("w_uq", "w_uqr"))
    q_rotated = do.rotate(q_rotated, at.positions, at.theta)
    _keep(at, cache, "latents", do.rms_norm(x @ w["w_latent"], w["norm of latent"], at.eps))
    _keep(at, cache, "rotated keys", do.rotate_first(x @ w["w_rope"], mixer.d_rope, at.positions, at.theta))
    keys = torch.einsum("bso,hio->bshi", cache["latents"], w["w_uk"])
    values = torch.einsum("bso,hoy->bshy", cache["latents"], w["w_uv"])
    scores = torch.einsum("blhi,bshi->bhls", q, keys)
    scores = scores + torch.einsum("blhj,bsj->bhls", q_rotated, cache["rotated keys"])
    scores = scores.float() * (mixer.d_nope + mixer.d_rope) ** -0.5
    seen = do.visible(None, at.positions, torch.arange(keys.shape[1]))
    if mixer.indexer is not None:
        picks["now"] = _picked(at, mixer, x, low, w, cache)[:, None]
    is_sparse = mixer.indexer is not None or mixer.top_k is not None
    allowed = seen & picks["now"] if is_sparse else seen
    shares = scores.masked_fill(~allowed, -torch.inf).softmax(-1).to(x.dtype)
    mixed = torch.einsum("bhls,bshy->blhy", shares, values)
    if mixer.output_gate:
        mixed = mixed * torch.einsum("ble,ehy->blhy", x, w["w_gate"]).sigmoid()
    return torch.einsum("blhy,hye->ble", mixed, w["w_o"])


def _keep(at: Reading, cache: Latents, name: str, new: torch.Tensor) -> None:
    cache[name] = at.seen(cache.get(name), widened(narrowed(new, at.kept), new.dtype))


def _picked(
    at: Reading, mixer: LatentMixer, x: torch.Tensor, low: torch.Tensor, w: Weights, cache: Latents
) -> torch.Tensor:
    """[B, L, S] the best keys by the indexer's scores."""
    assert mixer.indexer is not None
    scale, shift = w["norm of index keys"]
    keys = torch.nn.functional.layer_norm(x @ w["w_index_k"], scale.shape, scale, shift, at.eps)
    _keep(at, cache, "index keys", do.rotate_first(keys, mixer.d_rope, at.positions, at.theta))
    q = torch.einsum("bld,dau->blau", low, w["w_index_q"])
    q = do.rotate_first(q, mixer.d_rope, at.positions, at.theta)
    scores = do.index_scores(q, x @ w["w_index_share"], cache["index keys"])
    seen = do.visible(None, at.positions, torch.arange(scores.shape[-1]))
    scores = scores.masked_fill(~seen, -torch.inf)
    return scores >= do.least_of_best(scores, mixer.indexer.top_k)
