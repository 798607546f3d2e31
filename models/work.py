"""What each step of a program does on one chip: flop, bytes by kind, and bytes on the wire.

The cost model, the kernels and the executor all read these; there is no second formula for any of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from ..hardware_specs.dtypes import DType, parse_dtype
from .description import Model
from .ops import attention_flop, matmul_flop, visible_share
from .program import Append, Attention, Collective, Matmul, Pointwise, SendRecv, Step, Tensor
from .sizes import Array, Sizes, ceil_div

# Bytes of a number that is summed or compared in full precision: norm statistics, logits and their indices.
_FULL_PRECISION_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Number formats of what lies in memory and of what travels."""

    weights: DType
    activations: DType
    kv: DType

    def bytes_of(self, role: str) -> float:
        """Bytes of one element of a tensor by its role."""
        sizes = {"activation": self.activations, "weight": self.weights, "kv": self.kv}
        return sizes[role].bytes_per_element if role in sizes else _FULL_PRECISION_BYTES

    @property
    def matmul(self) -> DType:
        """The format matmuls run in: 8- and 4-bit floats as they are, integer weights are widened to the activations."""
        return self.weights if self.weights.compute in ("fp8", "fp4") else self.activations


# Formats that activations are kept in; weights in anything narrower leave them as the model has them.
_ACTIVATIONS = ("bf16", "fp16")


def default_formats(model: Model, weights: str | None = None, kv: str | None = None) -> Formats:
    """Formats by name: the model's own weights unless said, 16-bit activations of its kind, and a cache like those."""
    native = parse_dtype(model.weights_dtype)
    stored = native if weights is None else parse_dtype(weights)
    kinds = [dtype for dtype in (stored, native, parse_dtype("bf16")) if dtype.name in _ACTIVATIONS]
    return Formats(weights=stored, activations=kinds[0], kv=kinds[0] if kv is None else parse_dtype(kv))


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
        case Append():
            return Work(kv_bytes=tensor_bytes((step.new,), sizes, formats), n_rows=_n_rows(step.new, sizes))
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
        weight_bytes=n_weights * formats.weights.bytes_per_element,
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
        if any(dim in x.form.letters for x in step.x):
            inner = inner * sizes.local(0, dim, axes)
        else:
            outer = outer * sizes.local(0, dim, axes)
    return inner, outer


def matmul_shapes(step: Matmul, sizes: Sizes) -> list[tuple[Array, Array]]:
    """(k, n) of the kernels that make a matmul: weights that meet the same x lie side by side, as engines fuse them."""
    merged: dict[tuple[str, ...], tuple[Array, Array]] = {}
    for weight in step.weights:
        shared = tuple(dim for dim, _ in weight.form.dims if any(dim in x.form.letters for x in step.x))
        inner, outer = _sides(weight, step, sizes)
        columns = merged[shared][1] if shared in merged else 0.0
        merged[shared] = inner, columns + weight.copies * outer
    return list(merged.values())


def attention_shapes(step: Attention, sizes: Sizes) -> list[dict[str, Array]]:
    """Sizes of the kernel on one chip for each token group, by the names the kernel forms use."""
    found = []
    for g, group in enumerate(sizes.groups):
        context = sizes.local(g, "S", step.cache.form.axes_of("S"))
        new = sizes.local(g, "L", step.q.form.axes_of("L"))
        found.append(
            {
                "batch": sizes.local(g, "B", step.q.form.axes_of("B")),
                "new": new,
                "past": context - np.minimum(group.new_tokens, context),
                "context": context,
                "heads": sizes.local(g, "H", step.q.form.axes_of("H")),
                "kv_heads": sizes.local(g, "K", step.cache.form.axes_of("K")),
                "d_head": sizes.local(g, "Q", ()),
                "window": 0.0,
            }
        )
    return found


def _attention(step: Attention, sizes: Sizes, formats: Formats) -> Work:
    """Scores and mix: 2 x 2 x (query, key) pairs x heads x d_head; K and V are read once.

    Without a fused kernel masked pairs count too, and the scores pass HBM four times: written by the first einsum, read
    and written by the softmax, read by the second einsum.
    """
    score_bytes: Array = 0.0
    if step.scores is not None:
        pairs = sizes.total(step.scores)
        score_bytes = 4.0 * tensor_bytes((step.scores,), sizes, formats)
    else:
        pairs = _visible_pairs(step, sizes)
    return Work(
        flop=attention_flop(pairs, sizes.local(0, "Q", ())),
        kv_bytes=tensor_bytes((step.cache,), sizes, formats),
        activation_bytes=tensor_bytes((step.q, step.out), sizes, formats) + score_bytes,
    )


def _visible_pairs(step: Attention, sizes: Sizes) -> Array:
    """(Query, key) pairs of all heads on one chip that the causal mask lets through."""
    pairs: Array = 0.0
    for g, group in enumerate(sizes.groups):
        queries = [sizes.local(g, dim, step.q.form.axes_of(dim)) for dim in ("B", "L", "H")]
        keys = sizes.local(g, "S", step.cache.form.axes_of("S")) * visible_share(group.new_tokens, group.past_tokens)
        pairs = pairs + prod(queries, start=keys)
    return pairs


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
