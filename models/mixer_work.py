"""Work of the steps by which tokens meet: attention of every kind, scans, experts."""

from math import prod

import numpy as np

from .formats import Formats
from .mixers.attention import Reach
from .ops import (
    attention_flop,
    linear_attention_flop,
    matmul_flop,
    met_keys,
    reach_keys,
    touched_experts,
    visible_keys,
    visible_share,
)
from .program import Attention, Experts, Index, LatentAttention, Scan, Tensor
from .quantities import Work, n_rows, tensor_bytes
from .sizes import Sizes
from .types import Array


def attention_shapes(step: Attention, sizes: Sizes) -> list[dict[str, Array]]:
    """Sizes of the kernel on one chip for each token group, by the names the kernel forms use.

    Kernels are measured with a causal mask: one without is a causal one whose queries meet as many keys, of which it reads up
    to half more.
    """
    found = []
    for g, group in enumerate(sizes.groups):
        context = sizes.local(g, step.positions, step.cache.form.axes_of(step.positions))
        new = sizes.local(g, "L", step.q.form.axes_of("L"))
        if step.is_causal:
            past, window = context - np.minimum(group.new_tokens, context), _limit(step.reach, step.cache, g, sizes)
        else:
            met = _met_keys(step, g, sizes)
            window = np.where(np.less(met, context), met, 0.0)
            past = np.where(np.less(met, context), met, np.maximum(met - (new + 1.0) / 2.0, 0.0))
            context = past + new
        found.append(
            {
                "batch": sizes.local(g, "B", step.q.form.axes_of("B")),
                "new": new,
                "past": past,
                "context": context,
                "heads": sizes.local(g, "H", step.q.form.axes_of("H")),
                # one vector a position is keys and values of all heads where the cache has no heads of its own
                "kv_heads": sizes.local(g, "K", step.cache.form.axes_of("K"))
                if "K" in step.cache.form.letters
                else 1.0,
                "d_head": sizes.local(g, "Q", ()),
                "window": window,
            }
        )
    return found


def _limit(reach: Reach | None, cache: Tensor, group: int, sizes: Sizes) -> Array:
    """Keys on one chip that a query meets at most; 0 where all of them."""
    cut = sizes.shards(cache.form.axes_of("S"))
    return reach_keys(reach, sizes.local(group, "S", ())) / cut


def attention_work(step: Attention, sizes: Sizes, formats: Formats) -> Work:
    """Scores and mix: 2 x 2 x (query, key) pairs x heads x d_head; K and V are read once, but for what a causal reach leaves.

    Without a fused kernel masked pairs count too, and the scores pass HBM four times: written by the first einsum, read
    and written by the softmax, read by the second einsum.
    """
    score_bytes: Array = 0.0
    if step.scores is not None:
        pairs = sizes.total(step.scores)
        score_bytes = 4.0 * tensor_bytes((step.scores,), sizes, formats)
    elif step.is_causal:
        pairs = _visible_pairs(step.q, step.cache, step.reach, sizes)
    else:
        pairs = _met_pairs(step, sizes)
    reach = step.reach if step.is_causal else None
    return Work(
        flop=attention_flop(pairs, sizes.local(0, "Q", ())),
        kv_bytes=_read_bytes(step.cache, reach, sizes, formats),
        activation_bytes=tensor_bytes((step.q, step.out), sizes, formats) + score_bytes,
    )


def _met_pairs(step: Attention, sizes: Sizes) -> Array:
    """(Query, key) pairs of all heads on one chip where nothing is masked."""
    pairs: Array = 0.0
    for g in range(len(sizes.groups)):
        queries = [sizes.local(g, dim, step.q.form.axes_of(dim)) for dim in ("B", "L", "H")]
        pairs = pairs + prod(queries, start=_met_keys(step, g, sizes))
    return pairs


def _met_keys(step: Attention, group: int, sizes: Sizes) -> Array:
    """Keys on one chip that a query meets where nothing is masked."""
    whole = sizes.local(group, step.positions, ())
    held = sizes.local(group, step.positions, step.cache.form.axes_of(step.positions))
    return met_keys(step.reach, whole) * held / whole


def _visible_pairs(q: Tensor, cache: Tensor, reach: Reach | None, sizes: Sizes) -> Array:
    """(Query, key) pairs of all heads on one chip that the causal mask and the reach let through."""
    pairs: Array = 0.0
    axes = cache.form.axes_of("S")
    for g, group in enumerate(sizes.groups):
        queries = [sizes.local(g, dim, q.form.axes_of(dim)) for dim in ("B", "L", "H")]
        if reach is None:
            keys = sizes.local(g, "S", axes) * visible_share(group.new_tokens, group.past_tokens)
        else:
            context = sizes.local(g, "S", ())
            new = np.minimum(group.new_tokens, context)
            keys = visible_keys(new, context - new, reach_keys(reach, context)) / sizes.shards(axes)
        pairs = pairs + prod(queries, start=keys)
    return pairs


def _read_bytes(cache: Tensor, reach: Reach | None, sizes: Sizes, formats: Formats) -> Array:
    """What attention reads of a cache: all of it, or what the last new tokens reach."""
    if reach is None:
        return tensor_bytes((cache,), sizes, formats)
    total: Array = 0.0
    for g, group in enumerate(sizes.groups):
        context = sizes.local(g, "S", ())
        limit = reach_keys(reach, context)
        met = np.where(np.greater(limit, 0.0), np.minimum(context, limit + group.new_tokens - 1.0), context)
        parts = [sizes.local(g, dim, axes) for dim, axes in cache.form.dims]
        total = total + prod(parts, start=met / context) * cache.copies * formats.bytes_of(cache.role)
    return total


def latent_shapes(step: LatentAttention, sizes: Sizes) -> list[dict[str, Array]]:
    """Sizes of the kernel on one chip for each token group, by the names the kernel forms use."""
    q, latents = step.q[0], step.cache[0]
    found = []
    for g, group in enumerate(sizes.groups):
        context = sizes.local(g, "S", latents.form.axes_of("S"))
        limit = _limit(step.reach, latents, g, sizes)
        met = np.where(np.greater(limit, 0.0), np.minimum(context, limit), context)
        found.append(
            {
                "batch": sizes.local(g, "B", q.form.axes_of("B")),
                "new": sizes.local(g, "L", q.form.axes_of("L")),
                "past": met - np.minimum(group.new_tokens, met),
                "context": met,
                "heads": sizes.local(g, "H", q.form.axes_of("H")),
            }
        )
    return found


def latent_attention_work(step: LatentAttention, sizes: Sizes, formats: Formats) -> Work:
    """Scores and mix of every pair, in the latent or between expanded heads, whichever is less; the latent is read once.

    Expanding a latent takes what bringing a query into it takes, which its own steps count for the new tokens: what is past
    is expanded again.

    References
    ----------
    [DeepSeek2024] section 2.1.2 and appendix C.
    """
    q, latents = step.q[0], step.cache[0]
    rank, rotated = sizes.local(0, "O", ()), sizes.local(0, "J", ())
    pairs = _visible_pairs(q, latents, step.reach, sizes)
    absorbed = attention_flop(pairs, (2.0 * rank + rotated) / 2.0)
    past: Array = 0.0
    for g in range(len(sizes.groups)):
        held = [sizes.local(g, "B", q.form.axes_of("B")), sizes.local(g, "S", latents.form.axes_of("S"))]
        new = sizes.local(g, "L", q.form.axes_of("L"))
        past = past + held[0] * (held[1] - np.minimum(new, held[1])) * sizes.local(g, "H", q.form.axes_of("H"))
    expanded = attention_flop(pairs, (step.d_nope + rotated + step.d_value) / 2.0)
    expanded = expanded + matmul_flop(past, rank * (step.d_nope + step.d_value))
    return Work(
        flop=np.minimum(absorbed, expanded),
        kv_bytes=sum((_read_bytes(t, step.reach, sizes, formats) for t in step.cache), start=0.0),
        activation_bytes=tensor_bytes((*step.q, step.out), sizes, formats),
    )


def index_work(step: Index, sizes: Sizes, formats: Formats) -> Work:
    """One product a pair and small head, before any is left out."""
    pairs: Array = 0.0
    for g, group in enumerate(sizes.groups):
        queries = [sizes.local(g, dim, step.q.form.axes_of(dim)) for dim in ("B", "L", "A")]
        keys = sizes.local(g, "S", step.cache.form.axes_of("S")) * visible_share(group.new_tokens, group.past_tokens)
        pairs = pairs + prod(queries, start=keys)
    return Work(
        flop=attention_flop(pairs, sizes.local(0, "U", ())) / 2.0,
        kv_bytes=tensor_bytes((step.cache,), sizes, formats),
        activation_bytes=tensor_bytes((step.q, step.share), sizes, formats),
    )


# Tokens a scan takes together: within a chunk every pair meets, between chunks the state carries on.
_SCAN_CHUNK = 64.0


def scan_work(step: Scan, sizes: Sizes, formats: Formats) -> Work:
    """The recurrence, a chunk at a time; the state is read and written once a pass.

    References
    ----------
    [Dao2024] section 6.
    """
    state, out = step.state[0].form, step.out.form
    d_state, d_value = sizes.local(0, "D", ()), sizes.local(0, "Q", ())
    flop: Array = 0.0
    for g, group in enumerate(sizes.groups):
        tokens = sizes.local(g, "B", out.axes_of("B")) * sizes.local(g, "L", out.axes_of("L"))
        heads = sizes.local(g, "H", state.axes_of("H"))
        flop = flop + linear_attention_flop(tokens, heads, d_state, d_value, np.minimum(group.new_tokens, _SCAN_CHUNK))
    return Work(
        flop=flop,
        kv_bytes=2.0 * tensor_bytes(step.state, sizes, formats),
        activation_bytes=tensor_bytes((*step.reads, step.out), sizes, formats),
        n_rows=n_rows(step.out, sizes),
    )


def expert_shape(step: Experts, sizes: Sizes) -> dict[str, Array]:
    """Sizes of the kernel on one chip, by the names the kernel forms use; `tokens` are those its experts are chosen by.

    Tokens that come from `exchanged` chips are as many as those that leave, if all experts are chosen alike.
    """
    up, ffn = step.weights[0].form, step.ffn
    capacity = 1.0 if ffn.capacity_factor is None else ffn.capacity_factor
    return {
        "tokens": n_rows(step.x, sizes) * sizes.shards(step.exchanged) * capacity,
        "d_model": sizes.local(0, "E", ()),
        "d_ff": sizes.local(0, "F", ()),
        "top_k": float(ffn.n_experts_per_token),
        "experts": sizes.local(0, "G", ()),
        "tp": sizes.shards(up.axes_of("F")),
        "ep": sizes.shards(up.axes_of("G")),
        "gated": 1.0 if ffn.gated else 0.0,
    }


def experts_work(step: Experts, sizes: Sizes, formats: Formats) -> Work:
    """2mkn of the rows that meet this chip's experts; the weights of those that any token is routed to are read.

    References
    ----------
    [Fedus2021] section 2.2: capacity, which is computed whether it is filled or not.
    """
    shape = expert_shape(step, sizes)
    rows = shape["tokens"] * shape["top_k"] / shape["ep"]
    local = sum((sizes.total(w) for w in step.weights), start=0.0)
    n_local = sizes.local(0, "G", step.weights[0].form.axes_of("G"))
    touched = touched_experts(n_local, shape["tokens"], shape["top_k"] / shape["experts"])
    width = sizes.local(0, "E", ()) * formats.activations.bytes_per_element
    return Work(
        flop=matmul_flop(rows, local / n_local),
        weight_bytes=touched * local / n_local * formats.experts.bytes_per_element,
        activation_bytes=2.0 * rows * width,
        n_rows=rows,
    )
