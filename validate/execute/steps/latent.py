"""Attention to a latent: its norms, the indexer, and attention in the latent itself."""

import torch

from ....models.forms import Form
from ....models.mixers.latent import LatentMixer
from ....models.program import Index, LatentAttention, Pointwise
from .. import arithmetic as do
from ..cache import Cache
from ..formats import widened
from ..local import Local
from ..shards import slots_between
from ..value import Pass, Value
from .attention import keep_statistics

_NORMS = {"latent": "norm of latent", "q low": "norm of q", "index key": "norm of index keys"}


def norm_latents(at: Local, step: Pointwise, now: Pass) -> None:
    """Latent and compressed query over their own width; an indexer's keys with scale and shift."""
    for tensor in step.writes:
        x, scale = at.get(tensor, now), now.held[_NORMS[tensor.name]].data
        at.put(tensor, norm_latent(x, scale, at.norm_eps), now)


def norm_latent(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """An RMS norm, or with a scale and a shift [2, n] a layer norm."""
    if scale.dim() == 1:
        return do.rms_norm(x, scale, eps)
    wide = x.float()
    return (do.rms_norm(wide - wide.mean(-1, keepdim=True), scale[0], eps) + scale[1].float()).to(x.dtype)


def rotate(at: Local, step: Pointwise, now: Pass) -> None:
    """Rotary embedding of the rotated parts of queries and keys, and of as much of an indexer's."""
    mixer = now.running.block.mixer
    assert isinstance(mixer, LatentMixer)
    for tensor in step.writes:
        x = at.get(tensor, now)
        at.put(tensor, do.rotate_first(x, mixer.d_rope, now.positions, at.theta), now)


def _cached(at: Local, name: str, n_slots: int, now: Pass) -> torch.Tensor:
    """[B, S, ...] of the first slots."""
    cache = now.state[name]
    assert isinstance(cache, Cache)
    return widened(cache.read(n_slots)[0], at.kernels.dtype)


def index(at: Local, step: Index, now: Pass) -> None:
    """Score this chip's keys; where others have more, the best scores are to go to all."""
    slots, positions = slots_between(now.dims, step.cache.form, at.wires.place, 0, now.stop)
    keys = _cached(at, step.cache.name, len(slots), now)
    scores = do.index_scores(at.get(step.q, now), at.get(step.share, now), keys)
    seen = do.visible(None, now.positions, positions.to(now.tokens.device))
    now.scores = scores.masked_fill(~seen, -torch.inf)
    cut = step.cache.form.axes_of("S")
    if cut:
        n = min(step.top_k, len(slots))
        best = now.scores.new_full((*now.scores.shape[:2], step.top_k), -torch.inf)
        best[..., :n] = now.scores.topk(n, -1).values
        form = Form((*step.share.form.dims[:2], ("M", cut)))
        now.held["index candidates"] = Value(best.movedim(-1, 0)[..., None], form)


def attend(at: Local, step: LatentAttention, now: Pass) -> None:
    """Every head over the latents this chip has, all of them or those the indexer picks."""
    mixer = now.running.block.mixer
    assert isinstance(mixer, LatentMixer)
    form = step.cache[0].form
    slots, positions = slots_between(now.dims, form, at.wires.place, 0, now.stop)
    allowed = do.visible(None, now.positions, positions.to(now.tokens.device))
    if step.reach is not None:
        allowed = allowed & _picked(now, step.reach.size, is_own=mixer.indexer is not None)
    latents, rotated_keys = (_cached(at, tensor.name, len(slots), now) for tensor in step.cache)
    q = (at.get(step.q[0], now), at.get(step.q[1], now))
    scale = (mixer.d_nope + mixer.d_rope) ** -0.5
    mixed, lse = do.attend_latent(q, latents, rotated_keys, allowed, scale)
    at.put(step.out, mixed, now)
    keep_statistics(step.out, step.cache[0], lse, now)


def _picked(now: Pass, n: int, *, is_own: bool) -> torch.Tensor:
    """[B, L, local slots] the keys an indexer picks: this layer's, or the last one's before it."""
    assert now.scores is not None
    if is_own:
        found = now.held.pop("index candidates", None)
        best = now.scores if found is None else found.data.movedim(0, -1).flatten(-2)
        now.least = do.least_of_best(best, n)
    assert now.least is not None
    return now.scores >= now.least
