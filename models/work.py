"""What each step of a program does on one chip: flop, bytes by kind, and bytes on the wire.

The cost model, the kernels and the executor all read these; there is no second formula for any of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from ..hardware_specs.dtypes import DTYPES, DType, parse_dtype
from .description import Model
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
from .program import (
    Append,
    Attention,
    Collective,
    Exchange,
    Experts,
    Index,
    LatentAttention,
    Matmul,
    Pointwise,
    Scan,
    SendRecv,
    Step,
    Tensor,
)
from .sizes import Sizes, ceil_div
from .types import Array

# Bytes of a number that is summed or compared in full precision: norm statistics, logits and their indices.
_FULL_PRECISION_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Number formats of what lies in memory and of what travels.

    Parameters
    ----------
    own_mixers, own_experts, own_ends : of the weights of mixers, of experts, and of embedding, logits, norms and biases, where
        they have a format of their own
    state : of recurrent states
    """

    weights: DType
    activations: DType
    kv: DType
    own_mixers: DType | None = None
    own_experts: DType | None = None
    own_ends: DType | None = None
    state: DType = DTYPES["fp32"]

    def of(self, role: str) -> DType | None:
        """The format of a tensor by its role; None for what is kept in full precision."""
        return {
            "activation": self.activations,
            "weight": self.weights,
            "mixer": self.own_mixers or self.weights,
            "expert": self.experts,
            "end": self.own_ends or self.weights,
            "kv": self.kv,
            "state": self.state,
        }.get(role)

    @property
    def experts(self) -> DType:
        """Of the experts' weights."""
        return self.own_experts or self.weights

    def bytes_of(self, role: str) -> float:
        """Bytes of one element of a tensor by its role."""
        dtype = self.of(role)
        return _FULL_PRECISION_BYTES if dtype is None else dtype.bytes_per_element

    @property
    def matmul(self) -> DType:
        """The format most matmuls run in."""
        return self.multiplied("weight")

    def multiplied(self, role: str) -> DType:
        """What weights are multiplied in: 8- and 4-bit floats as they are, integer weights are widened to the activations."""
        weights = self.of(role)
        return weights if weights is not None and weights.compute in ("fp8", "fp4") else self.activations


# Formats that activations are kept in; weights in anything narrower leave them as the model has them.
_ACTIVATIONS = ("bf16", "fp16")


def default_formats(model: Model, weights: str | None = None, kv: str | None = None) -> Formats:
    """Formats by name: the model as it ships unless said, 16-bit activations of its kind, and a cache as it says or like those.

    A narrow format asked of a model whose experts ship in one means the model as it ships: what it leaves wider stays so.
    """
    native = parse_dtype(model.weights_dtype)
    stored = native if weights is None else parse_dtype(weights)
    shipped = [None if name is None else parse_dtype(name) for name in _shipped(model)]
    as_shipped = stored == native or _is_shipped(stored, shipped[1])
    mixers, experts, ends = shipped if as_shipped else (None, None, None)
    kv = kv or model.kv_dtype
    kinds = [dtype for dtype in (stored, native, parse_dtype("bf16")) if dtype.name in _ACTIVATIONS]
    return Formats(
        weights=native if as_shipped else stored,
        activations=kinds[0],
        kv=kinds[0] if kv is None else parse_dtype(kv),
        own_mixers=mixers,
        own_experts=experts,
        own_ends=ends,
        state=parse_dtype(model.state_dtype),
    )


def _is_shipped(asked: DType, experts: DType | None) -> bool:
    """Whether a format of 8 bits or fewer that is asked for is what a model with narrow experts ships in: none widens them."""
    return experts is not None and experts.bytes_per_element <= asked.bytes_per_element <= 1.0


def _shipped(model: Model) -> tuple[str | None, str | None, str | None]:
    return model.mixer_dtype, model.expert_dtype, model.embedding_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step on one chip, each (...) arrays.

    `flop` counts multiply and add apart. `sent_bytes` leave the chip, `full_bytes` is the tensor as the collective's
    formula knows it (the gathered output, the input of a reduction): sent = (K-1)/K x full.
    """

    flop: Array = 0.0
    weight_bytes: Array = 0.0
    kv_bytes: Array = 0.0
    activation_bytes: Array = 0.0
    full_bytes: Array = 0.0
    sent_bytes: Array = 0.0
    n_rows: Array = 0.0

    @property
    def hbm_bytes(self) -> Array:
        """All HBM traffic."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


def tensor_bytes(tensors: Iterable[Tensor], sizes: Sizes, formats: Formats) -> Array:
    """Bytes of some tensors on one chip."""
    return sum((sizes.total(t) * formats.bytes_of(t.role) for t in tensors), start=0.0)


def step_work(step: Step, sizes: Sizes, formats: Formats) -> Work:
    """Work of one step on one chip.

    References
    ----------
    [Pope2022] section 2 and appendix A.1; [Dao2022] for attention that keeps its scores on chip.
    """
    match step:
        case Matmul():
            return _matmul(step, sizes, formats)
        case Attention():
            return _attention(step, sizes, formats)
        case Pointwise():
            touched = (*step.reads, *step.writes)
            return Work(
                activation_bytes=tensor_bytes(touched, sizes, formats),
                n_rows=_n_rows((*step.writes, *step.reads)[0], sizes),
            )
        case LatentAttention():
            return _latent_attention(step, sizes, formats)
        case Index():
            return _index(step, sizes, formats)
        case Scan():
            return _scan(step, sizes, formats)
        case Experts():
            return _experts(step, sizes, formats)
        case Exchange():
            return _exchange(step, sizes, formats)
        case Append():
            return Work(kv_bytes=tensor_bytes(step.new, sizes, formats), n_rows=_n_rows(step.new[0], sizes))
        case Collective():
            return _collective(step, sizes, formats)
        case SendRecv():
            moved = tensor_bytes((step.tensor,), sizes, formats)
            return Work(full_bytes=moved, sent_bytes=moved)


def _matmul(step: Matmul, sizes: Sizes, formats: Formats) -> Work:
    """2mkn for each weight: rows are the tokens of x on this chip."""
    n_rows = _n_rows(step.x[0], sizes)
    n_weights = sum((sizes.total(w) for w in step.weights), start=0.0)
    return Work(
        flop=matmul_flop(n_rows, n_weights),
        weight_bytes=tensor_bytes(step.weights, sizes, formats),
        activation_bytes=tensor_bytes((*step.x, *step.outs), sizes, formats),
        n_rows=n_rows,
    )


def _n_rows(tensor: Tensor, sizes: Sizes) -> Array:
    """Tokens of a tensor on one chip."""
    dims = tuple(d for d in tensor.form.dims if d[0] in ("B", "L"))
    return sizes.total(Tensor(name="rows", form=type(tensor.form)(dims)))


def tiled_weights(step: Matmul, sizes: Sizes, side: int) -> Array:
    """Elements of a matmul's weights once both sides of each are filled up to whole tiles of `side`."""
    total: Array = 0.0
    for weight in step.weights:
        inner, outer = _sides(weight, step, sizes)
        total = total + weight.copies * ceil_div(inner, side) * ceil_div(outer, side) * side**2
    return total


def _sides(weight: Tensor, step: Matmul, sizes: Sizes) -> tuple[Array, Array]:
    """Rows of a weight on one chip, those it shares with x, and its columns."""
    inner: Array = 1.0
    outer: Array = 1.0
    for dim, axes in weight.form.dims:
        if dim != step.batched and any(dim in x.form.letters for x in step.x):
            inner = inner * sizes.local(0, dim, axes)
        else:
            outer = outer * sizes.local(0, dim, axes)
    return inner, outer


def matmul_shapes(step: Matmul, sizes: Sizes) -> list[tuple[Array, Array]]:
    """(k, n) of the kernels that make a matmul: weights that meet the same x lie side by side, as engines fuse them."""
    merged: dict[tuple[str, ...], tuple[Array, Array]] = {}
    for i, weight in enumerate(step.weights):
        x = step.x[i] if len(step.x) > 1 else step.x[0]
        met = (x.name, *(dim for dim, _ in weight.form.dims if dim in x.form.letters))
        inner, outer = _sides(weight, step, sizes)
        columns = merged[met][1] if met in merged else 0.0
        merged[met] = inner, columns + weight.copies * outer
    return list(merged.values())


def product_shapes(step: Matmul, sizes: Sizes) -> list[dict[str, Array]]:
    """Sizes of each weight's own product, where nothing is fused: copies of a weight go through one kernel, side by side."""
    found = []
    for weight in step.weights:
        inner, outer = _sides(weight, step, sizes)
        found.append({"n": outer, "k": inner, "copies": float(weight.copies)})
    return found


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


def _attention(step: Attention, sizes: Sizes, formats: Formats) -> Work:
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


def _latent_attention(step: LatentAttention, sizes: Sizes, formats: Formats) -> Work:
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


def _index(step: Index, sizes: Sizes, formats: Formats) -> Work:
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


def _scan(step: Scan, sizes: Sizes, formats: Formats) -> Work:
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
        n_rows=_n_rows(step.out, sizes),
    )


def expert_shape(step: Experts, sizes: Sizes) -> dict[str, Array]:
    """Sizes of the kernel on one chip, by the names the kernel forms use; `tokens` are those its experts are chosen by.

    Tokens that come from `exchanged` chips are as many as those that leave, if all experts are chosen alike.
    """
    up, ffn = step.weights[0].form, step.ffn
    capacity = 1.0 if ffn.capacity_factor is None else ffn.capacity_factor
    return {
        "tokens": _n_rows(step.x, sizes) * sizes.shards(step.exchanged) * capacity,
        "d_model": sizes.local(0, "E", ()),
        "d_ff": sizes.local(0, "F", ()),
        "top_k": float(ffn.n_experts_per_token),
        "experts": sizes.local(0, "G", ()),
        "tp": sizes.shards(up.axes_of("F")),
        "ep": sizes.shards(up.axes_of("G")),
        "gated": 1.0 if ffn.gated else 0.0,
    }


def _experts(step: Experts, sizes: Sizes, formats: Formats) -> Work:
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


def _exchange(step: Exchange, sizes: Sizes, formats: Formats) -> Work:
    """Every token once for each of its experts, of which all but one in K are elsewhere; and the counts of them."""
    k = sizes.shards(step.axes)
    full = step.n_copies * tensor_bytes((step.tensor,), sizes, formats) + step.n_counts * _FULL_PRECISION_BYTES
    return Work(full_bytes=full, sent_bytes=full * (k - 1.0) / k, n_rows=_n_rows(step.tensor, sizes))


def _collective(step: Collective, sizes: Sizes, formats: Formats) -> Work:
    """Bytes of a collective over K chips; all_reduce counts as reduce_scatter then all_gather.

    References
    ----------
    [Pope2022] appendix A.1: D (K-1)/K per chip, D the gathered output or the reduced input; [Chan2007].
    """
    k = sizes.shards(step.axes)
    before = tensor_bytes(step.tensors, sizes, formats)
    after = tensor_bytes(step.results, sizes, formats)
    full = {
        "all_gather": k * before,
        "reduce_scatter": k * after,
        "all_reduce": 2.0 * before,
        "all_to_all": k * _piece_bytes(step, sizes, formats) if step.kind == "all_to_all" else 0.0,
    }[step.kind]
    return Work(full_bytes=full, sent_bytes=full * (k - 1.0) / k)


def _piece_bytes(step: Collective, sizes: Sizes, formats: Formats) -> Array:
    """What a chip sends to each other in an all_to_all: dimensions that axes join are cut, those they leave not yet whole."""
    total: Array = 0.0
    for tensor, after in zip(step.tensors, step.after, strict=True):
        pairs = zip(tensor.form.dims, after.dims, strict=True)
        cut = [(dim, then if set(then) - set(now) else now) for (dim, now), (_, then) in pairs]
        for g in range(len(sizes.groups) if "B" in tensor.form.letters else 1):
            n = prod((sizes.local(g, dim, axes) for dim, axes in cut), start=1.0)
            total = total + tensor.copies * n * formats.bytes_of(tensor.role)
    return total
