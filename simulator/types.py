"""What goes into the cost model and what comes out, as values."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.errors import SpecError

PhaseName = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Every request alike: `input_tokens` to read, `output_tokens` to write."""

    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        """Refuse counts that no request has."""
        for name, value in (("input_tokens", self.input_tokens), ("output_tokens", self.output_tokens)):
            if not math.isfinite(value) or value < 0 or value > 10_000_000:
                raise SpecError(f"{name}={value} must lie between 0 and 10,000,000")
        if self.input_tokens == 0:
            raise SpecError("input_tokens=0: a request has at least one input token")

    @property
    def context_tokens(self) -> int:
        """Tokens of a sequence once it is finished."""
        return self.input_tokens + self.output_tokens

    @property
    def mean_decode_past(self) -> float:
        """Cached tokens in the middle decode step; exact for sums over steps that are linear in the context."""
        return self.input_tokens + max(self.output_tokens - 1, 0) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workloads:
    """Workloads of candidates that are priced together, each (n,) tokens; (1, ...) where all candidates have all of them."""

    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]

    @property
    def context_tokens(self) -> NDArray[np.float64]:
        """As of `Workload`."""
        return self.input_tokens + self.output_tokens

    @property
    def mean_decode_past(self) -> NDArray[np.float64]:
        """As of `Workload`."""
        return self.input_tokens + np.maximum(self.output_tokens - 1.0, 0.0) / 2.0

    def take(self, index: NDArray[np.int64]) -> "Workloads":
        """Those of some candidates; a first dimension of 1 is shared by all."""
        if len(self.input_tokens) == len(self.output_tokens) == 1:
            return self
        return Workloads(input_tokens=self.input_tokens[index], output_tokens=self.output_tokens[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Limits a plan must keep; None is no limit.

    `ttft_s` holds for the whole prefill batch, `tpot_s` for one decode step.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that nothing can keep."""
        for name, value in (("ttft", self.ttft_s), ("tpot", self.tpot_s)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SpecError(f"{name}={value} must be a positive time, e.g. 500ms")
