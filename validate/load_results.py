"""What a load generator says it measured, each time with the tool's own definition.

Tools mean different things by one word. ``TPOT`` leaves the first token out in vLLM, SGLang and inference-perf and counts it in
GuideLLM; ``ITL`` is over every gap in vLLM and SGLang, and a request's mean gap in aiperf and GuideLLM. So a figure is kept as
what it is (`Quantity`), what it is averaged over (`Weight`), and the formula its tool gives.
"""

from dataclasses import dataclass
from typing import Literal

from ..hardware_specs.errors import SpecError

Quantity = Literal["ttft", "tpot", "ntpot", "itl", "e2e", "output_tokens_per_s", "requests_per_s"]
Weight = Literal["requests", "tokens", "gaps", "run"]
Arrivals = Literal["poisson", "gamma", "even"]
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
RATES: tuple[Quantity, ...] = ("output_tokens_per_s", "requests_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a tool's word means.

    Parameters
    ----------
    word : the tool's own
    quantity : `tpot` leaves the first token out, `ntpot` counts it, `itl` is one gap
    weight : what a mean or a percentile is over: requests, their tokens, all gaps, or the whole run
    formula : as the tool has it
    """

    word: str
    quantity: Quantity
    weight: Weight
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number: seconds, or per second."""

    definition: Definition
    statistic: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Tokens of the requests of a run: their mean, and standard deviation over it; None where the file does not say."""

    mean: float | None = None
    cv: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResults:
    """One run of a load generator.

    Parameters
    ----------
    version, model : where the file says
    figures : what was measured
    n_requests, n_failed : answered, and not
    inputs, outputs : tokens of a request
    rate_per_s, concurrency : the traffic; infinity sends all at once, None for both where the file does not say
    arrivals, burstiness : how open traffic comes
    can_replay : the file has every request with its arrival and lengths
    """

    tool: str
    version: str | None
    model: str | None
    figures: tuple[Figure, ...]
    n_requests: int
    n_failed: int
    inputs: TokenCounts
    outputs: TokenCounts
    rate_per_s: float | None
    concurrency: int | None
    arrivals: Arrivals = "poisson"
    burstiness: float = 1.0
    can_replay: bool = False

    def __post_init__(self) -> None:
        """Refuse a run in which nothing was answered."""
        if self.n_requests < 1 or not self.figures:
            raise SpecError(
                f"{self.tool} answered {self.n_requests} requests and measured {len(self.figures)} figures; nothing to check"
            )


_FIRST = "first token - sent"
_AFTER_FIRST = "(e2e - TTFT) / (output tokens - 1), of each request"
_GAP = "every gap between two tokens"
_WHOLE = "last token - sent"


def _rates(output: str, requests: str) -> dict[str, Definition]:
    return {
        output: Definition(
            word=output, quantity="output_tokens_per_s", weight="run", formula="output tokens / duration"
        ),
        requests: Definition(
            word=requests, quantity="requests_per_s", weight="run", formula="answered requests / duration"
        ),
    }


def _times(*rows: tuple[str, Quantity, Weight, str]) -> dict[str, Definition]:
    return {
        word: Definition(word=word, quantity=quantity, weight=weight, formula=formula)
        for word, quantity, weight, formula in rows
    }


# Of each tool, the words it uses; see the module docstring of `load_formats` for where they stand.
DEFINITIONS: dict[str, dict[str, Definition]] = {
    "vllm-bench": _times(
        ("ttft", "ttft", "requests", _FIRST),
        ("tpot", "tpot", "requests", _AFTER_FIRST),
        ("itl", "itl", "gaps", _GAP),
        ("e2el", "e2e", "requests", _WHOLE),
    )
    | _rates("output_throughput", "request_throughput"),
    "sglang-bench": _times(
        ("ttft", "ttft", "requests", _FIRST),
        ("tpot", "tpot", "requests", _AFTER_FIRST),
        ("itl", "itl", "gaps", _GAP),
        ("e2e_latency", "e2e", "requests", _WHOLE),
    )
    | _rates("output_throughput", "request_throughput"),
    "guidellm": _times(
        ("time_to_first_token_ms", "ttft", "requests", _FIRST),
        ("time_per_output_token_ms", "ntpot", "tokens", "e2e / output tokens, weighted by output tokens"),
        (
            "inter_token_latency_ms",
            "tpot",
            "tokens",
            "(last token - first token) / (output tokens - 1), weighted by output tokens - 1",
        ),
        ("request_latency", "e2e", "requests", _WHOLE),
    ),
    "aiperf": _times(
        ("time_to_first_token", "ttft", "requests", _FIRST),
        ("inter_token_latency", "tpot", "requests", _AFTER_FIRST),
        ("request_latency", "e2e", "requests", _WHOLE),
    )
    | _rates("output_token_throughput", "request_throughput"),
    "inference-perf": _times(
        ("time_to_first_token", "ttft", "requests", _FIRST),
        (
            "time_per_output_token",
            "tpot",
            "requests",
            "(last token - first token) / (output tokens - 1), of each request",
        ),
        ("normalized_time_per_output_token", "ntpot", "requests", "e2e / output tokens, of each request"),
        ("inter_token_latency", "itl", "gaps", _GAP),
        ("request_latency", "e2e", "requests", _WHOLE),
    )
    | _rates("output_tokens_per_sec", "requests_per_sec"),
    "vllm-run": _times(
        ("ttft", "ttft", "requests", "first token - arrival, on the engine's clock"),
        ("tpot", "tpot", "requests", _AFTER_FIRST),
        ("e2e", "e2e", "requests", "last token - arrival"),
    ),
}
