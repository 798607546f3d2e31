"""The online softmax in base 2: a running maximum, a running sum, and results scaled down whenever the maximum grows."""

import triton
import triton.language as tl


@triton.jit
def absorb(scores, values, best, total, mixed, PRECISION: tl.constexpr):
    """Take in one tile: base-2 `scores` [rows, keys] and `values` [keys, d_head]; rows may have seen no key yet."""
    new_best = tl.maximum(best, tl.max(scores, 1))
    # a row without any key has -inf for its best; it is measured from 0, so that nothing is inf - inf
    origin = tl.where(new_best == float("-inf"), 0.0, new_best)
    shrink = tl.exp2(best - origin)
    shares = tl.exp2(scores - origin[:, None])
    total = total * shrink + tl.sum(shares, 1)
    mixed = tl.dot(shares.to(values.dtype), values, mixed * shrink[:, None], input_precision=PRECISION)
    return new_best, total, mixed


@triton.jit
def finish(best, total, mixed):
    """What the rows mix to, and their log-sum-exp in base 2: 0 and -inf where no key was seen."""
    some = total > 0.0
    whole = tl.where(some, total, 1.0)
    return mixed / whole[:, None], tl.where(some, best + tl.log2(whole), float("-inf"))
