"""Answers as columns: a row a point, in the order they were asked; what does not fit keeps its place with a reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Cell = str | float | int | bool | None

# Columns of an answer in the order they are written: name, unit, what it is.
COLUMNS: dict[str, tuple[str, str]] = {
    "fits": ("", "whether a plan keeps memory, limits and rate"),
    "reason": ("", "why it does not"),
    "slice": ("", "chips as they are wired"),
    "n_chips": ("", "chips"),
    "mesh": ("", "mesh sizes x, y, z"),
    "tp": ("", "tensor parallel"),
    "pp": ("", "pipeline stages"),
    "dp": ("", "replicas"),
    "prefill_layout": ("", "feed-forward layout and attention sharding of prefill"),
    "decode_layout": ("", "the same of decode"),
    "prefill_batch": ("sequences", "batch of prefill"),
    "decode_batch": ("sequences", "batch of decode"),
    "weights": ("", "weight format"),
    "kv_dtype": ("", "cache format"),
    "engine": ("", "engine"),
    "ttft_s": ("s", "one pass over the prompts of a batch"),
    "tpot_s": ("s", "one decode step"),
    "request_latency_s": ("s", "prefill and all output tokens"),
    "request_latency_low_s": ("s", "low end of the 90 % interval"),
    "request_latency_high_s": ("s", "high end of the 90 % interval"),
    "prefill_latency_s": ("s", "the prompts of a batch"),
    "decode_latency_s": ("s", "all output tokens"),
    "prefill_mfu": ("", "model flop utilisation of prefill"),
    "decode_mfu": ("", "the same of decode"),
    "chip_s_per_request": ("chip-s", "cost of a request whatever a chip costs"),
    "prefill_chip_s_per_token": ("chip-s", "cost of an input token"),
    "decode_chip_s_per_token": ("chip-s", "cost of an output token"),
    "requests_per_s": ("1/s", "requests the chips answer when they are never idle"),
    "output_tokens_per_s": ("1/s", "output tokens they then write"),
    "utilization": ("", "rate asked for over that"),
    "usd_per_h": ("USD/h", "price of all chips"),
    "usd_per_mtok_output": ("USD", "per million output tokens, at the rate asked for or never idle"),
    "hbm_bytes_per_chip": ("B", "bytes on the fullest chip"),
    "hbm_limit_bytes": ("B", "bytes that may be used"),
    "weights_bytes": ("B", "of them weights"),
    "kv_bytes": ("B", "of them cache"),
    "work_bytes": ("B", "of them activations and gathered weights"),
    "prefill_bound": ("", "what binds prefill"),
    "decode_bound": ("", "what binds decode"),
    "source": ("", "where the price comes from: fitted, extrapolated or bound"),
}


@dataclass(slots=True)
class Table:
    """Columns that are filled part by part; every cell starts as None."""

    n: int
    columns: dict[str, NDArray[Any]]

    @staticmethod
    def empty(n: int) -> "Table":
        """A table of `n` rows that fit nowhere yet."""
        columns: dict[str, NDArray[Any]] = {name: np.full(n, None, object) for name in COLUMNS}
        columns["fits"] = np.full(n, False, object)
        columns["reason"] = np.full(n, "", object)
        return Table(n, columns)

    def put(self, index: NDArray[np.int64], values: Mapping[str, Sequence[Any] | NDArray[Any] | Cell]) -> None:
        """Write some columns of some rows; numbers that are not finite are None."""
        for name, column in values.items():
            self.columns[name][index] = _plain(column, len(index))

    def refuse(self, index: NDArray[np.int64], reason: str) -> None:
        """Say why some rows have no answer."""
        self.columns["reason"][index] = reason

    def lists(self) -> dict[str, list[Cell]]:
        """The columns as lists of plain values."""
        return {name: column.tolist() for name, column in self.columns.items()}


def _plain(values: Any, n: int) -> NDArray[Any]:
    """Values as Python's own, None for what is no number."""
    column = np.broadcast_to(np.asarray(values), (n,))
    if column.dtype.kind == "f":
        plain = column.astype(object)
        plain[~np.isfinite(column)] = None
        return plain
    return column.astype(object)


def as_frame(columns: Mapping[str, Sequence[Cell]]) -> "pd.DataFrame":
    """Columns as a pandas frame."""
    import pandas as pd

    return pd.DataFrame(dict(columns))
