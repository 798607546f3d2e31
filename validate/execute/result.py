"""What an execution found, predicted beside measured."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BytesPair(BaseModel):
    """Bytes that all chips sent over the links of some mesh axes: by the program, and by the tensors really handed over."""

    model_config = _STRICT
    priced: float
    counted: float


class MemoryPair(BaseModel):
    """Bytes of the fullest rank; nothing is measured where nothing was allocated."""

    model_config = _STRICT
    priced: float
    measured: float | None


class StepPair(BaseModel):
    """Seconds of one step over all passes of its phase, `phase/part/name`; None where it was not predicted or not timed.

    `taken_from` says which of the two stands for the step in a sum: a share of one chip measures no collective.
    """

    model_config = _STRICT
    step: str
    predicted_s: float | None
    measured_s: float | None
    taken_from: Literal["measured", "price"] = "measured"

    @property
    def taken_s(self) -> float | None:
        """What stands for the step."""
        return self.measured_s if self.taken_from == "measured" else self.predicted_s


class ExecuteResult(BaseModel):
    """One execution of a plan.

    Parameters
    ----------
    mode : `run` with real tensors, `trace` of the full-size program without any, or the `share` of one chip alone
    max_relative_error : of all logits of all passes, against the unsharded model, relative to the largest
    tokens_equal : greedy decoding chose the tokens of the unsharded model
    bytes : by the axes of the group; none of a share, which sends nothing
    """

    model_config = _STRICT
    mode: Literal["run", "trace", "share"]
    model: str
    device: str
    dtype: str
    weights: str
    kv_dtype: str
    n_ranks: int
    mesh: dict[str, int]
    prefill: str
    decode: str
    batch: int
    input_tokens: int
    output_tokens: int
    max_relative_error: float | None
    tokens_equal: bool | None
    bytes: dict[str, BytesPair]
    memory: MemoryPair
    steps: tuple[StepPair, ...]
    notes: tuple[str, ...] = ()

    @property
    def bytes_equal(self) -> bool:
        """Whether every byte that was counted had been priced, and the other way round."""
        return all(pair.priced == pair.counted for pair in self.bytes.values())

    def is_true(self, tolerance: float) -> bool:
        """Whether the executed program is the priced one and computes the model."""
        close = self.max_relative_error is None or self.max_relative_error <= tolerance
        return close and self.tokens_equal is not False and self.bytes_equal
