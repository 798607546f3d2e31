"""What each step of a program does on one chip: flop, bytes by kind, and bytes on the wire.

The cost model, the kernels and the executor all read these; there is no second formula for any of them.
"""

from math import prod

from .formats import FULL_PRECISION_BYTES, Formats
from .mixer_work import (
    attention_work,
    experts_work,
    index_work,
    latent_attention_work,
    scan_work,
)
from .ops import (
    matmul_flop,
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
from .quantities import Work, n_rows, tensor_bytes
from .sizes import Sizes, ceil_div
from .types import Array


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
            return attention_work(step, sizes, formats)
        case Pointwise():
            touched = (*step.reads, *step.writes)
            return Work(
                activation_bytes=tensor_bytes(touched, sizes, formats),
                n_rows=n_rows((*step.writes, *step.reads)[0], sizes),
            )
        case LatentAttention():
            return latent_attention_work(step, sizes, formats)
        case Index():
            return index_work(step, sizes, formats)
        case Scan():
            return scan_work(step, sizes, formats)
        case Experts():
            return experts_work(step, sizes, formats)
        case Exchange():
            return _exchange(step, sizes, formats)
        case Append():
            return Work(kv_bytes=tensor_bytes(step.new, sizes, formats), n_rows=n_rows(step.new[0], sizes))
        case Collective():
            return _collective(step, sizes, formats)
        case SendRecv():
            moved = tensor_bytes((step.tensor,), sizes, formats)
            return Work(full_bytes=moved, sent_bytes=moved)


def _matmul(step: Matmul, sizes: Sizes, formats: Formats) -> Work:
    """2mkn for each weight: rows are the tokens of x on this chip."""
    rows = n_rows(step.x[0], sizes)
    n_weights = sum((sizes.total(w) for w in step.weights), start=0.0)
    return Work(
        flop=matmul_flop(rows, n_weights),
        weight_bytes=tensor_bytes(step.weights, sizes, formats),
        activation_bytes=tensor_bytes((*step.x, *step.outs), sizes, formats),
        n_rows=rows,
    )


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


def _exchange(step: Exchange, sizes: Sizes, formats: Formats) -> Work:
    """Every token once for each of its experts, of which all but one in K are elsewhere; and the counts of them."""
    k = sizes.shards(step.axes)
    full = step.n_copies * tensor_bytes((step.tensor,), sizes, formats) + step.n_counts * FULL_PRECISION_BYTES
    return Work(full_bytes=full, sent_bytes=full * (k - 1.0) / k, n_rows=n_rows(step.tensor, sizes))


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
