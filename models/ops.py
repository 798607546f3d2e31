"""Work of single ops, whatever program they stand in: the formulas that cost model, kernels and benches all read."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .mixers.attention import Reach
from .types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class OpWork:
    """What an op must do if every operand is read once and every result written once.

    Parameters
    ----------
    flop : matmul work, multiply and add counted apart; element-wise arithmetic is left out
    reads, writes : bytes of each operand and result, by name
    """

    reads: Mapping[str, Array]
    writes: Mapping[str, Array]
    flop: Array = 0.0

    @property
    def moved_bytes(self) -> Array:
        """Reads plus writes."""
        return sum(self.reads.values(), start=0.0) + sum(self.writes.values(), start=0.0)

    def loaded_bytes(self, rereads: Mapping[str, float]) -> Array:
        """Bytes a kernel loads that reads each operand so many times, once where `rereads` does not name it.

        >>> matmul_work(64, 32, 16, x_bytes=2, w_bytes=2, out_bytes=2).loaded_bytes({"w": 2})
        6144
        """
        return sum((n_bytes * rereads.get(name, 1) for name, n_bytes in self.reads.items()), start=0)


def matmul_flop(n_rows: Array, n_weights: Array) -> Array:
    """2mkn: every row meets every weight once.

    >>> matmul_flop(3, 5 * 7)
    210
    """
    return 2 * n_rows * n_weights


def attention_flop(pairs: Array, d_head: Array) -> Array:
    """Scores and mix: 2 x 2 x (query, key) pairs of all heads x d_head."""
    return 4 * pairs * d_head


def visible_share(new_tokens: Array, past_tokens: Array) -> Array:
    """Share of the (query, key) pairs that the causal mask lets through.

    >>> visible_share(1.0, 2047.0), visible_share(4.0, 0.0)
    (1.0, 0.625)
    """
    return (past_tokens + (new_tokens + 1.0) / 2.0) / (past_tokens + new_tokens)


def visible_keys(new: Array, past: Array, window: Array) -> Array:
    """Keys that a query sees on average under a causal mask and a window (0 is none).

    >>> [float(visible_keys(*case)) for case in ((4.0, 0.0, 0.0), (4.0, 10.0, 0.0), (4.0, 0.0, 2.0), (1.0, 99.0, 8.0))]
    [2.5, 12.5, 1.75, 8.0]
    """
    limit = np.where(np.greater(window, 0), window, new + past)
    growing = np.clip(limit - past, 0.0, new)
    return (growing * (past + (growing + 1.0) / 2.0) + (new - growing) * limit) / new


def reach_keys(reach: Reach | None, context: Array) -> Array:
    """Keys that the last query of a context meets, and no query meets more; 0 where the reach is no limit.

    A query in a chunk meets half of it on average.

    >>> from shardwise.models.mixers.attention import Reach
    >>> float(reach_keys(Reach(pattern="sparse", size=256, share=1 / 64), 8192.0))
    384.0
    """
    if reach is None:
        return 0.0
    if reach.pattern == "chunk":
        return np.where(np.less_equal(context, reach.size), 0.0, (reach.size + 1.0) / 2.0)
    limit = reach.size + reach.share * context
    return np.where(np.less_equal(context, limit), 0.0, limit)


def met_keys(reach: Reach | None, context: Array) -> Array:
    """Keys that a query meets where it meets those after it too: all, or those of its reach.

    >>> from shardwise.models.mixers.attention import Reach
    >>> float(met_keys(Reach(pattern="window", size=128), 512.0)), float(met_keys(None, 512.0))
    (128.0, 512.0)
    """
    return context if reach is None else np.minimum(reach.size + reach.share * context, context)


def touched_experts(n_experts: Array, tokens: Array, share: Array) -> Array:
    """Experts that at least one token is routed to, where each token picks any of them with the same chance.

    >>> float(touched_experts(8.0, 1.0, 0.25)), float(touched_experts(8.0, 1e9, 0.25))
    (2.0, 8.0)
    """
    return n_experts * (1.0 - np.power(1.0 - share, tokens))


def matmul_work(m: Array, k: Array, n: Array, *, x_bytes: Array, w_bytes: Array, out_bytes: Array) -> OpWork:
    """`out[m, n] = x[m, k] @ w[k, n]`; `x_bytes`, `w_bytes`, `out_bytes` are bytes of one element."""
    return OpWork(
        flop=matmul_flop(m, k * n),
        reads={"x": m * k * x_bytes, "w": k * n * w_bytes},
        writes={"out": m * n * out_bytes},
    )


def grouped_matmul_work(
    m: Array, n_experts: Array, k: Array, n: Array, *, x_bytes: Array, w_bytes: Array, out_bytes: Array
) -> OpWork:
    """`out[m, n]`: every row of `x[m, k]` meets the weights of one of the experts, all of whose weights are read."""
    one = matmul_work(m, k, n, x_bytes=x_bytes, w_bytes=w_bytes, out_bytes=out_bytes)
    return OpWork(flop=one.flop, reads={**one.reads, "w": n_experts * one.reads["w"]}, writes=one.writes)


def linear_attention_flop(n_tokens: Array, n_heads: Array, d_key: Array, d_value: Array, chunk: Array) -> Array:
    """A chunk at a time: queries on the state, keys and values into it, and the whole square of pairs within the chunk.

    Chunks of 1 are the recurrence.

    References
    ----------
    [Dao2024] section 6.
    """
    through_state = 2 * matmul_flop(n_tokens, d_key * d_value)
    within_chunk = matmul_flop(n_tokens, chunk * (d_key + d_value))
    return n_heads * (through_state + within_chunk)


def attention_work(
    *,
    n_sequences: Array,
    new_tokens: Array,
    past_tokens: Array,
    n_heads: Array,
    n_kv_heads: Array,
    d_head: Array,
    q_bytes: Array,
    kv_bytes: Array,
    out_bytes: Array,
) -> OpWork:
    """Causal attention of new tokens over themselves and a cache; bytes are of one element.

    References
    ----------
    [Dao2022] : scores stay on the chip.
    """
    keys = new_tokens + past_tokens
    pairs = n_sequences * n_heads * new_tokens * keys * visible_share(new_tokens, past_tokens)
    queries = n_sequences * n_heads * new_tokens * d_head
    cached = n_sequences * n_kv_heads * keys * d_head
    return OpWork(
        flop=attention_flop(pairs, d_head),
        reads={"q": queries * q_bytes, "k": cached * kv_bytes, "v": cached * kv_bytes},
        writes={"out": queries * out_bytes},
    )


def elementwise_work(reads: Mapping[str, tuple[Array, Array]], writes: Mapping[str, tuple[Array, Array]]) -> OpWork:
    """Memory traffic alone: (elements, bytes of one) of each operand and result.

    >>> elementwise_work({"x": (10, 2)}, {"y": (10, 4)}).moved_bytes
    60.0
    """
    return OpWork(
        reads={name: n * size for name, (n, size) in reads.items()},
        writes={name: n * size for name, (n, size) in writes.items()},
    )
