"""Every op that has kernels: its module, by name."""

from collections.abc import Iterator
from importlib import import_module

from .variant import Variant

OPS: tuple[str, ...] = (
    "matmul",
    "quantised_matmul",
    "split_k",
    "prefill_attention",
    "decode_attention",
    "norm",
    "activation",
    "rope",
    "kv_append",
    "quantise",
    "gating",
    "permutation",
    "grouped_matmul",
    "selective_scan",
    "linear_attention",
    "sampling",
)


def variants(op: str) -> Iterator[Variant]:
    """What an op's module wants compiled."""
    yield from import_module(f".{op}", __package__).variants()
