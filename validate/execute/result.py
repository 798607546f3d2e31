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
    """Seconds of one step over a whole pass, `phase/part/name`; None where it was not predicted or not timed."""

    model_config = _STRICT
    step: str
    predicted_s: float | None
    measured_s: float | None


class ExecuteResult(BaseModel):
    """One execution of a plan.

    Parameters
    ----------
    mode : `run` with real tensors, or `trace` of the full-size program without any
    max_relative_error : of all logits of all passes, against the unsharded model, relative to the largest
    tokens_equal : greedy decoding chose the tokens of the unsharded model
    bytes : by the axes of the group
    """

    model_config = _STRICT
    mode: Literal["run", "trace"]
    model: str
    device: str
    dtype: str
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
