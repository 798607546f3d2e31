"""Measured kernels by the software stack that would run them."""

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from ...hardware_specs.kernel_formats import COLLECTIVES

# Libraries whose collectives every stack may call beside its own.
LIBRARIES = ("nccl", "oneccl")

# What activations are reduced and gathered in; 8-bit integers take other algorithms.
_TRAVELS = ("bf16", "fp16", "fp32", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRows:
    """Rows of one stack as `hardware_specs.kernel_rows` has them, and how many no step of a model runs, by reason."""

    stack: str
    frame: pd.DataFrame
    left_out: Counter[str]


def stacks_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """The stacks that a frame has kernels of."""
    return tuple(sorted(set(frame["framework"]) - set(LIBRARIES)))


def stack_rows(frame: pd.DataFrame, stack: str) -> StackRows:
    """Rows of a stack and of the libraries beside it; of several kernels for one shape the quickest, as a stack picks it."""
    rows = frame[frame["framework"].isin([stack, *LIBRARIES])]
    integers = rows["op"].isin(COLLECTIVES) & ~rows["dtype"].isin(_TRAVELS)
    kept = rows[~integers]
    same = [str(column) for column in kept.columns if column not in ("seconds", "kernel", "device")]
    quickest = kept.sort_values("seconds", kind="stable").drop_duplicates(same).sort_index()
    left_out = {"collectives of integers": int(integers.sum()), "slower kernels of a shape": len(kept) - len(quickest)}
    return StackRows(stack=stack, frame=quickest, left_out=+Counter(left_out))
