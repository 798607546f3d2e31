"""What a simulation found: a row a request, percentiles, goodput, cost, the state of the system over time."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..hardware_specs.errors import SpecError
from ..hardware_specs.html import html_table
from ..hardware_specs.units import format_seconds
from .cost.money import spent_usd, usd_per_mtok
from .engine.gaps import GapHistogram
from .engine.recorder import OUTCOMES, ROW_COLUMNS, Rows, Series
from .types import Slo

if TYPE_CHECKING:
    import pandas as pd

Column = NDArray[np.float64]
# Fewer requests than this say nothing about whether a pool keeps up.
_FEW_REQUESTS = 100
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_STRICT = ConfigDict(frozen=True, extra="forbid")


class Spread(BaseModel):
    """Mean and percentiles of a time; None where no request has one."""

    model_config = _STRICT
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class Summary(BaseModel):
    """The run in figures.

    Rates count from the first arrival that is kept to the last answer. `usd_per_mtok` is per million output tokens, all paid
    chip time included; `energy_j_at_rated_power` is what the chips would take at their rated power all the time they are paid
    for, an upper end. `itl_s` is over all gaps between tokens, its percentiles right to half a percent. `task_s` is from a
    task to the last of its answers, where requests are parts of tasks.
    """

    model_config = _STRICT
    requests: int
    finished: int
    rejected: int
    lost: int
    unfinished: int
    reasons: dict[str, int]
    duration_s: float
    ttft_s: Spread
    tpot_s: Spread
    itl_s: Spread
    e2e_s: Spread
    requests_per_s: float
    output_tokens_per_s: float
    goodput_per_s: float
    within_slo: float | None
    usd_per_mtok: float | None
    energy_j_at_rated_power: float | None
    chip_s: float
    utilization: float
    kv_peak: float
    cached_prompt_share: float
    n_preemptions: int
    n_restarts: int
    n_failures: int
    bad_rows: int = 0
    warmup_requests: int
    wall_s: float
    seed: int
    partial: bool
    saturation: str | None = None
    tasks: int = 0
    task_s: Spread | None = None

    def _repr_html_(self) -> str:
        spreads = {name: getattr(self, name) for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s")}
        rows = [
            [name.removesuffix("_s").upper(), *("-" if value is None else format_seconds(value) for _, value in spread)]
            for name, spread in spreads.items()
        ]
        said = (
            f"{self.finished:,} of {self.requests:,} requests answered in {format_seconds(self.duration_s)}: "
            f"{self.requests_per_s:.4g} requests/s, goodput {self.goodput_per_s:.4g}/s, "
            f"{self.output_tokens_per_s:.4g} output tokens/s"
        )
        return html_table(["", "mean", *QUANTILES], rows, said)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaUse:
    """What one replica did: seconds its chips worked and were paid for, and the fullest its cache was, in [0, 1]."""

    index: int
    chip_label: str
    role: str
    n_chips: int
    busy_s: float
    paid_s: float
    kv_peak: float
    usd_per_h: float | None
    rated_w: float | None


class Report:
    """One run.

    Parameters
    ----------
    rows, gaps, series : as recorded
    slo : limits that goodput is counted by: TTFT and TPOT of each request
    warmup_requests : the first requests, which percentiles and rates leave out
    """

    def __init__(
        self,
        *,
        rows: Rows,
        gaps: GapHistogram,
        series: Series,
        replicas: Sequence[ReplicaUse],
        reasons: dict[str, int],
        n_failures: int,
        slo: Slo,
        warmup_requests: int,
        wall_s: float,
        seed: int,
        partial: bool,
        bad_rows: int = 0,
    ) -> None:
        columns = {name: np.asarray(getattr(rows, name)) for name in ROW_COLUMNS}
        order = np.argsort(columns["index"], kind="stable")
        self.columns: dict[str, NDArray[Any]] = {name: column[order] for name, column in columns.items()}
        self.gaps = gaps
        self.series = series
        self.replicas = tuple(replicas)
        self.reasons = reasons
        self.n_failures = n_failures
        self.slo = slo
        self.warmup_requests = warmup_requests
        self.wall_s = wall_s
        self.seed = seed
        self.partial = partial
        self.bad_rows = bad_rows

    def _is(self, outcome: str) -> NDArray[np.bool_]:
        return np.asarray(self.columns["outcome"] == OUTCOMES.index(outcome))

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Requests that are answered and came after the warm-up."""
        return self._is("finished") & (self.columns["index"] >= self.warmup_requests)

    @property
    def ttft_s(self) -> Column:
        """Time to first token of the kept requests."""
        return self._of_kept("first_token_s") - self._of_kept("arrival_s")

    @property
    def e2e_s(self) -> Column:
        """Time to the last token of the kept requests."""
        return self._of_kept("finish_s") - self._of_kept("arrival_s")

    @property
    def tpot_s(self) -> Column:
        """Time per output token after the first, NaN for answers of one token."""
        return tpot_s(self.ttft_s, self.e2e_s, self.columns["output_tokens"][self.kept])

    def _of_kept(self, name: str) -> Column:
        return np.asarray(self.columns[name][self.kept], np.float64)

    @property
    def task_s(self) -> Column:
        """From each task's arrival to the last of its answers; of kept requests that are parts of tasks."""
        tasks = self.columns["task"][self.kept]
        parts = tasks >= 0
        _, place = np.unique(tasks[parts], return_inverse=True)
        first, last = np.full(place.max(initial=-1) + 1, np.inf), np.zeros(place.max(initial=-1) + 1)
        np.minimum.at(first, place, self._of_kept("arrival_s")[parts])
        np.maximum.at(last, place, self._of_kept("finish_s")[parts])
        return np.asarray(last - first, np.float64)

    @property
    def meets_slo(self) -> NDArray[np.bool_]:
        """Which of the kept requests keep every limit."""
        ttft, tpot = self.slo.ttft_s, self.slo.tpot_s
        in_time = np.ones(int(self.kept.sum()), np.bool_) if ttft is None else self.ttft_s <= ttft
        return in_time if tpot is None else in_time & ~(self.tpot_s > tpot)

    @property
    def duration_s(self) -> float:
        """From the first arrival that is kept to the last answer."""
        if not self.kept.any():
            return 0.0
        return float(self._of_kept("finish_s").max() - self._of_kept("arrival_s").min())

    def summary(self) -> Summary:
        """The run in figures."""
        c, duration = self.columns, self.duration_s
        per_s = 1.0 / duration if duration else 0.0
        n_kept, output = int(self.kept.sum()), float(self._of_kept("output_tokens").sum())
        good = int(self.meets_slo.sum())
        counts = {name: int(self._is(name).sum()) for name in OUTCOMES}
        paid_s = sum(use.paid_s for use in self.replicas)
        prompt = float(c["prompt_tokens"][self._is("finished")].sum())
        all_output = float(c["output_done"].sum())
        dollars = self._summed("usd_per_h")
        has_limits = self.slo.ttft_s is not None or self.slo.tpot_s is not None
        return Summary(
            requests=len(c["index"]),
            **counts,
            reasons=self.reasons,
            duration_s=duration,
            ttft_s=spread(self.ttft_s),
            tpot_s=spread(self.tpot_s),
            itl_s=self._itl(),
            e2e_s=spread(self.e2e_s),
            requests_per_s=n_kept * per_s,
            output_tokens_per_s=output * per_s,
            goodput_per_s=good * per_s,
            within_slo=good / n_kept if has_limits and n_kept else None,
            usd_per_mtok=None
            if dollars is None or not all_output
            else usd_per_mtok(spent_usd(dollars, 1.0), all_output),
            energy_j_at_rated_power=self._summed("rated_w"),
            chip_s=sum(use.paid_s * use.n_chips for use in self.replicas),
            utilization=sum(use.busy_s for use in self.replicas) / paid_s if paid_s else 0.0,
            kv_peak=max((use.kv_peak for use in self.replicas), default=0.0),
            cached_prompt_share=float(c["cached_prompt_tokens"].sum()) / prompt if prompt else 0.0,
            n_preemptions=int(c["n_preemptions"].sum()),
            n_restarts=int(c["n_restarts"].sum()),
            n_failures=self.n_failures,
            bad_rows=self.bad_rows,
            warmup_requests=self.warmup_requests,
            wall_s=self.wall_s,
            seed=self.seed,
            partial=self.partial,
            saturation=self._saturation(),
            tasks=len(self.task_s),
            task_s=spread(self.task_s) if len(self.task_s) else None,
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    @property
    def answer_rate_per_s(self) -> float:
        """Answers a second in the middle of the run, from the 2nd to the 8th tenth of them; 0 where there are too few."""
        finish = np.sort(self._of_kept("finish_s"))
        first, last = len(finish) // 5, 4 * len(finish) // 5
        if last <= first or finish[last] <= finish[first]:
            return 0.0
        return float((last - first) / (finish[last] - finish[first]))

    def _saturation(self) -> str | None:
        """A word where requests came faster than they were answered."""
        arrival = self._of_kept("arrival_s")
        if len(arrival) < _FEW_REQUESTS or arrival.max() <= arrival.min():
            return None
        span, late_s = float(arrival.max() - arrival.min()), float(self._of_kept("finish_s").max() - arrival.max())
        offered = len(arrival) / span
        if late_s < 0.1 * span or late_s < 3.0 * float(np.quantile(self.e2e_s - self._waits(), 0.5)):
            return None
        return (
            f"more than the pool carries: {offered:.4g} requests/s come, and it saturates at about {self.answer_rate_per_s:.4g} "
            "requests/s; waiting times grow with the length of the run"
        )

    def _waits(self) -> Column:
        return self._of_kept("scheduled_s") - self._of_kept("arrival_s")

    def _summed(self, name: str) -> float | None:
        """A rate of every replica times the seconds it is paid for; None where one is unknown."""
        rates = [getattr(use, name) for use in self.replicas]
        if any(rate is None for rate in rates):
            return None
        return float(sum(rate * use.paid_s for rate, use in zip(rates, self.replicas, strict=True)))

    def _itl(self) -> Spread:
        if not self.gaps.n:
            return spread(np.empty(0))
        return Spread(mean=self.gaps.mean_s, **{name: self.gaps.quantile_s(q) for name, q in QUANTILES.items()})

    def to_pandas(self) -> "pd.DataFrame":
        """One row a request, in order of arrival; times that never came are NaN."""
        import pandas as pd

        frame = pd.DataFrame({name: column for name, column in self.columns.items() if name != "outcome"})
        for name in ("scheduled_s", "first_token_s", "finish_s"):
            frame[name] = frame[name].where(frame[name] >= 0.0)
        frame["ttft_s"] = frame["first_token_s"] - frame["arrival_s"]
        frame["e2e_s"] = frame["finish_s"] - frame["arrival_s"]
        frame["tpot_s"] = tpot_s(frame["ttft_s"].to_numpy(), frame["e2e_s"].to_numpy(), self.columns["output_tokens"])
        frame["outcome"] = [OUTCOMES[i] for i in self.columns["outcome"]]
        return frame

    def series_to_pandas(self) -> "pd.DataFrame":
        """Requests that wait and run, pages in use and replicas that serve, over time."""
        import pandas as pd

        names = ("time_s", "n_waiting", "n_running", "used_pages", "n_replicas")
        return pd.DataFrame({name: getattr(self.series, name) for name in names})

    def write(self, path: Path) -> None:
        """Write the rows as ``.csv`` or ``.parquet``.

        Raises
        ------
        SpecError : another suffix, or parquet without pyarrow
        """
        check_row_file(path)
        if path.suffix == ".csv":
            self.to_pandas().to_csv(path, index=False, lineterminator="\n")
        else:
            self.to_pandas().to_parquet(path, index=False)

    def write_trace(self, path: Path) -> None:
        """Write a trace that Perfetto and chrome://tracing show: each request's way on its replica, and the counters."""
        path.write_text(json.dumps({"traceEvents": [*self._spans(), *self._counters()]}), "utf-8")

    def _spans(self) -> list[dict[str, Any]]:
        c, spans = self.columns, []
        parts = (
            ("wait", "arrival_s", "scheduled_s"),
            ("prefill", "scheduled_s", "first_token_s"),
            ("decode", "first_token_s", "finish_s"),
        )
        for i in np.flatnonzero(self._is("finished")):
            for name, start, end in parts:
                ends = (("b", c[start][i]), ("e", c[end][i]))
                spans += [
                    {"name": name, "cat": "request", "ph": mark, "id": int(c["index"][i]), "pid": int(c["replica"][i]), "tid": 0,
                     "ts": 1e6 * float(at)}
                    for mark, at in ends
                ]  # fmt: skip
        return spans

    def _counters(self) -> list[dict[str, Any]]:
        s, names = self.series, ("waiting", "running", "pages")
        rows = zip(s.time_s, s.n_waiting, s.n_running, s.used_pages, strict=True)
        return [
            {"name": "system", "ph": "C", "pid": -1, "ts": 1e6 * at, "args": dict(zip(names, counts, strict=True))}
            for at, *counts in rows
        ]


def check_row_file(path: Path) -> None:
    """Refuse a file that rows cannot be written to, before they are made."""
    if path.suffix not in (".csv", ".parquet"):
        raise SpecError(f"{path.name}: rows are written as .csv or .parquet")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise SpecError("parquet needs pyarrow: pip install pyarrow, or write a .csv")


def tpot_s(ttft_s: Column, e2e_s: Column, output_tokens: NDArray[np.int64]) -> Column:
    """Time per output token after the first, each (n,); NaN for answers of one token."""
    gaps = np.asarray(output_tokens, np.float64) - 1.0
    decode_s = np.asarray(e2e_s - ttft_s, np.float64)
    return np.divide(decode_s, gaps, out=np.full_like(decode_s, np.nan), where=gaps > 0)


def spread(values: Column) -> Spread:
    """Mean and percentiles of the numbers among `values`."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Spread(mean=None, p50=None, p90=None, p95=None, p99=None)
    points = np.quantile(known, list(QUANTILES.values()))
    return Spread(mean=float(known.mean()), **dict(zip(QUANTILES, points.tolist(), strict=True)))


class SeedInterval(BaseModel):
    """Mean of a figure over seeds, and the 90 % interval of that mean (Student's t)."""

    model_config = _STRICT
    mean: float
    low: float
    high: float


def over_seeds(summaries: Sequence[Summary]) -> dict[str, SeedInterval]:
    """The figures of several runs that differ in their seed: names as ``ttft_s.p99``.

    >>> one = t_interval([1.0, 2.0, 3.0])
    >>> round(one.low, 3), one.mean, round(one.high, 3)
    (0.314, 2.0, 3.686)
    """
    found: dict[str, list[float]] = {}
    for summary in summaries:
        for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
            for point, value in getattr(summary, name):
                found.setdefault(f"{name}.{point}", []).append(math.nan if value is None else value)
        for name in ("requests_per_s", "output_tokens_per_s", "goodput_per_s", "utilization", "kv_peak"):
            found.setdefault(name, []).append(getattr(summary, name))
    return {name: t_interval(values) for name, values in found.items() if not any(map(math.isnan, values))}


def t_interval(values: Sequence[float], confidence: float = 0.9) -> SeedInterval:
    """Mean of independent values and its interval."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return SeedInterval(mean=mean, low=mean, high=mean)
    half = float(t.ppf(0.5 + confidence / 2.0, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return SeedInterval(mean=mean, low=mean - half, high=mean + half)
