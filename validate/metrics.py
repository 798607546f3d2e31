"""What a measured table's metric and unit mean: which quantity of a prediction, in which share and scale."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..hardware_specs.errors import SpecError
from ..simulator.types import PhaseName

QuantityName = Literal[
    "ttft_s",
    "tpot_s",
    "generate_s",
    "e2e_s",
    "output_tokens_per_s",
    "requests_per_s",
    "all_tokens_per_s",
    "input_tokens_per_s",
]
Share = Literal["system", "user", "chip", "node"]
Statistic = Literal["mean", "p50", "p90", "p99"]
Phases = tuple[PhaseName, ...]

_PREFILL: Phases = ("prefill",)
_DECODE: Phases = ("decode",)
_BOTH: Phases = ("prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """What a run can be measured by; None where the load does not define it.

    `ttft_s` and `e2e_s` are a request's, `tpot_s` is one decode step as a request sees it, `generate_s` all output tokens;
    rates are those of the whole system. Times are means over the requests; `percentiles` has others where requests differ.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    generate_s: float | None = None
    e2e_s: float | None = None
    output_tokens_per_s: float | None = None
    requests_per_s: float | None = None
    all_tokens_per_s: float | None = None
    input_tokens_per_s: float | None = None
    percentiles: Mapping[Statistic, "Quantities"] = field(default_factory=dict)

    def at(self, statistic: Statistic) -> "Quantities":
        """The same at a percentile; where all requests are alike it is the mean."""
        return self.percentiles.get(statistic, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A prediction with both ends of its interval, in seconds and rates.

    Parameters
    ----------
    quick, slow : the same with every phase at the low and at the high end of its own interval; the parts share their
        errors, so these add up and do not average out. `slow` is None where the price is a bound with no upper end
    n_users : requests that share the system at a time
    n_nodes : None on hardware without nodes
    """

    expected: Quantities
    quick: Quantities
    slow: Quantities | None
    n_chips: int
    n_nodes: int | None
    n_users: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A predicted value and its 90 % interval in the unit asked for."""

    predicted: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A quantity, and the phases whose time it is made of."""

    quantity: QuantityName
    phases: Phases

    @property
    def is_rate(self) -> bool:
        """More is better."""
        return self.quantity.endswith("_per_s")


_TTFT = Metric(quantity="ttft_s", phases=_PREFILL)
_GENERATE = Metric(quantity="generate_s", phases=_DECODE)
_TPOT = Metric(quantity="tpot_s", phases=_DECODE)
_E2E = Metric(quantity="e2e_s", phases=_BOTH)
_OUTPUT_RATE = Metric(quantity="output_tokens_per_s", phases=_BOTH)
_REQUEST_RATE = Metric(quantity="requests_per_s", phases=_BOTH)
_TOTAL_RATE = Metric(quantity="all_tokens_per_s", phases=_BOTH)
_INPUT_RATE = Metric(quantity="input_tokens_per_s", phases=_PREFILL)

METRICS: dict[str, Metric] = {
    "latency_prefill": _TTFT,
    "prompt_phase_latency": _TTFT,
    "first_token_latency": _TTFT,
    "prefill_plus_first_token_latency": _TTFT,
    "ttft": _TTFT,
    "latency_generate": _GENERATE,
    "latency_decode": _GENERATE,
    "latency_per_token_decode": _TPOT,
    "mean_token_time": _TPOT,
    "tpot": _TPOT,
    "itl": _TPOT,
    "per_token_latency": _TPOT,
    "latency_per_generated_token_per_seq": _TPOT,
    "latency_total": _E2E,
    "e2e_latency": _E2E,
    "e2e": _E2E,
    "max_output_throughput": _OUTPUT_RATE,
    "output_throughput": _OUTPUT_RATE,
    "throughput_offline": _OUTPUT_RATE,
    "throughput_server": _OUTPUT_RATE,
    "throughput_interactive": _OUTPUT_RATE,
    "decode_tokens_per_s": _OUTPUT_RATE,
    "request_throughput": _REQUEST_RATE,
    "samples_per_s": _REQUEST_RATE,
    "total_token_throughput": _TOTAL_RATE,
    "prefill_throughput": _INPUT_RATE,
    "prefill_input_throughput": _INPUT_RATE,
}
_SUFFIX = re.compile(r"_(?:mean|p50|p90|p99|per_chip|per_node)$")
_SHARES: dict[str, Share] = {"_per_chip": "chip", "_per_node": "node"}
# A step's time over the sequences of its batch: what transformers-bloom-inference prints.
_PER_SEQUENCE = ("latency_per_generated_token_per_seq",)
_STATISTICS: dict[str, Statistic] = {"_p50": "p50", "_p90": "p90", "_p99": "p99"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit: what it counts, a multiple of SI, and the share of the system it speaks of."""

    counts: tuple[Literal["seconds", "tokens", "requests"], ...]
    factor: float = 1.0
    share: Share = "system"


def _tokens(share: Share = "system") -> Unit:
    return Unit(counts=("tokens",), share=share)


# MLPerf's logs print rates of tokens as samples or queries a second too; there the metric says what is counted.
_REQUESTS = Unit(counts=("requests",))
_EITHER = Unit(counts=("requests", "tokens"))
UNITS: dict[str, Unit] = {
    "s": Unit(counts=("seconds",)),
    "ms": Unit(counts=("seconds",), factor=1e-3),
    "us": Unit(counts=("seconds",), factor=1e-6),
    "µs": Unit(counts=("seconds",), factor=1e-6),
    "ns": Unit(counts=("seconds",), factor=1e-9),
    "tok/s": _tokens(),
    "token/s": _tokens(),
    "tokens/s": _tokens(),
    "tok/s/user": _tokens("user"),
    "tokens/s/user": _tokens("user"),
    "tok/s/chip": _tokens("chip"),
    "tokens/s/chip": _tokens("chip"),
    "tok/s/gpu": _tokens("chip"),
    "tokens/s/gpu": _tokens("chip"),
    "tok/s/node": _tokens("node"),
    "tokens/s/node": _tokens("node"),
    "req/s": _REQUESTS,
    "requests/s": _REQUESTS,
    "samples/s": _EITHER,
    "queries/s": _EITHER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a row asks for: a metric, in the unit's factor and the share of the system."""

    metric: Metric
    statistic: Statistic
    factor: float
    share: Share

    @property
    def is_rate(self) -> bool:
        """More is better."""
        return self.metric.is_rate

    def read(self, outcome: Outcome) -> Prediction:
        """The value in the row's unit with its interval.

        Raises
        ------
        SpecError : the load of the row does not define the quantity, or the hardware has no nodes
        """
        divisor = self.factor * self._sharers(outcome)
        expected = self._value(outcome.expected)
        quick = self._value(outcome.quick) / divisor
        slow = None if outcome.slow is None else self._value(outcome.slow) / divisor
        low, high = (slow, quick) if self.metric.is_rate else (quick, slow)
        return Prediction(predicted=expected / divisor, low=low, high=high)

    def _value(self, quantities: Quantities) -> float:
        name = self.metric.quantity
        value: float | None = getattr(quantities.at(self.statistic), name)
        if value is None:
            raise SpecError(
                f"{name.removesuffix('_s')} of requests that all queue at once depends on how many there are, "
                "which no column says"
            )
        return value

    def _sharers(self, outcome: Outcome) -> float:
        if self.share == "node" and outcome.n_nodes is None:
            raise SpecError("a share per node was measured, but this hardware has no nodes")
        sharers: dict[Share, Callable[[], float]] = {
            "system": lambda: 1.0,
            "user": lambda: outcome.n_users,
            "chip": lambda: float(outcome.n_chips),
            "node": lambda: float(outcome.n_nodes or 1),
        }
        return sharers[self.share]()


def parse_target(metric: str, unit: str) -> Target:
    """Read a metric's name, with its suffixes, and a unit.

    Raises
    ------
    SpecError : a metric that is not predicted, an unknown unit, or a unit of something else

    Examples
    --------
    >>> parse_target("max_output_throughput_per_chip", "tok/s/chip").share
    'chip'
    >>> parse_target("ttft_p99", "ms").metric.quantity
    'ttft_s'
    """
    name, share, statistic = _stem(metric.strip())
    if name not in METRICS:
        raise SpecError(f"metric {metric!r} is not predicted")
    found, known = METRICS[name], UNITS.get(unit.strip().lower())
    if known is None:
        raise SpecError(f"unit {unit!r} is unknown; known: {', '.join(UNITS)}")
    if _counted(found) not in known.counts:
        raise SpecError(f"unit {unit!r} does not fit metric {metric!r}, which counts {_counted(found)}")
    shares = {s for s in (share, known.share) if s != "system"}
    if len(shares) > 1 or (shares and not found.is_rate):
        raise SpecError(f"metric {metric!r} and unit {unit!r} do not speak of the same share of the system")
    if name in _PER_SEQUENCE:
        shares.add("user")
    return Target(metric=found, statistic=statistic, factor=known.factor, share=shares.pop() if shares else "system")


def _stem(name: str) -> tuple[str, Share, Statistic]:
    share: Share = "system"
    statistic: Statistic = "mean"
    while name not in METRICS and (match := _SUFFIX.search(name)):
        share = _SHARES.get(match[0], share)
        statistic = _STATISTICS.get(match[0], statistic)
        name = name[: match.start()]
    return name, share, statistic


def _counted(metric: Metric) -> Literal["seconds", "tokens", "requests"]:
    if not metric.is_rate:
        return "seconds"
    return "requests" if metric.quantity == "requests_per_s" else "tokens"
