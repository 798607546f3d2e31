"""A simulated run as load generators write theirs: ``vllm bench serve`` and llm-d's Benchmark Report.

So what plots or compares measured runs takes simulated ones too. Each says of itself that it is simulated.
"""

import hashlib
import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.documents import write_atomically
from ...hardware_specs.errors import SpecError
from ...simulator.report import QUANTILES, Report
from ..result import Plan, PlanResult
from ..version import __version__
from .launch import LaunchOptions, make_launch
from .manifest import dump

Column = NDArray[np.float64]
# Gaps of every token are written out up to so many.
_MOST_GAPS = 5_000_000
_REPORT_PERCENTILES = {"p0p1": 0.001, "p1": 0.01, "p5": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9,
                       "p95": 0.95, "p99": 0.99, "p99p9": 0.999}  # fmt: skip
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "shardwise.simulated")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """A run and what it was a run of.

    Parameters
    ----------
    rate_per_s, concurrency : of the traffic, None where it had none of its own (a trace)
    made_at : on the wall clock
    """

    report: Report
    result: PlanResult
    rank: int
    rate_per_s: float | None
    concurrency: int | None
    burstiness: float
    made_at: datetime

    @property
    def plan(self) -> Plan:
        """The plan that was simulated."""
        return self.result.of_rank(self.rank)

    @property
    def kept(self) -> dict[str, NDArray[Any]]:
        """Columns of the requests that count: answered, after the warm-up."""
        return {name: column[self.report.kept] for name, column in self.report.columns.items()}

    @property
    def checkpoint(self) -> str:
        """What the engine would load; the model's own name where nobody knows."""
        try:
            return make_launch(self.result, self.rank, LaunchOptions()).checkpoint
        except SpecError:
            return self.result.model


def check_results_file(path: Path, *suffixes: str) -> None:
    """Refuse a file of another format before anything is simulated."""
    if path.suffix not in suffixes:
        raise SpecError(f"{path.name}: this is written as {' or '.join(suffixes)}")


def write_vllm_results(run: SimulatedRun, path: Path) -> None:
    """Write a run as ``vllm bench serve --save-result --save-detailed`` writes its own."""
    write_atomically(path, json.dumps(vllm_results(run), allow_nan=False) + "\n")


def write_benchmark_report(run: SimulatedRun, path: Path) -> None:
    """Write a run as a Benchmark Report v0.2, as YAML or JSON by the file's suffix."""
    document = benchmark_report(run)
    is_json = path.suffix == ".json"
    write_atomically(path, json.dumps(document, indent=1, allow_nan=False) + "\n" if is_json else dump(document))


def vllm_results(run: SimulatedRun) -> dict[str, Any]:
    """The document of ``vllm bench serve``: summary in milliseconds, lists of the requests in seconds."""
    report, kept = run.report, run.kept
    summary, duration = report.summary(), report.duration_s
    n_in, n_out = int(kept["prompt_tokens"].sum()), int(kept["output_tokens"].sum())
    per_s = 1.0 / duration if duration else 0.0
    has_limits = report.slo.ttft_s is not None or report.slo.tpot_s is not None
    made: dict[str, Any] = {
        "date": run.made_at.strftime("%Y%m%d-%H%M%S"),
        "backend": "shardwise",
        "simulated": True,
        "version": __version__,
        "seed": report.seed,
        "label": None,
        "model_id": run.checkpoint,
        "tokenizer_id": run.checkpoint,
        "num_prompts": len(report.columns["index"]) - report.warmup_requests,
        "request_rate": "inf" if run.rate_per_s is None or math.isinf(run.rate_per_s) else run.rate_per_s,
        "burstiness": run.burstiness,
        "max_concurrency": run.concurrency,
        "duration": duration,
        "completed": len(kept["index"]),
        "failed": summary.rejected + summary.lost,
        "total_input_tokens": n_in,
        "total_output_tokens": n_out,
        "request_throughput": summary.requests_per_s,
        "request_goodput": summary.goodput_per_s if has_limits else None,
        "output_throughput": summary.output_tokens_per_s,
        "total_token_throughput": (n_in + n_out) * per_s,
    }
    times = {"ttft": report.ttft_s, "tpot": report.tpot_s, "e2el": report.e2e_s}
    for name, values in times.items():
        made |= _milliseconds(name, _known(values))
    return made | _gap_milliseconds(report) | _lists(report, kept)


def _known(values: Column) -> Column:
    return values[~np.isnan(values)]


def _milliseconds(name: str, values: Column) -> dict[str, float]:
    if not len(values):
        return {}
    made = {"mean": float(values.mean()), "median": float(np.median(values)), "std": float(values.std())}
    made |= {point: float(np.quantile(values, q)) for point, q in QUANTILES.items()}
    return {f"{point}_{name}_ms": value * 1e3 for point, value in made.items()}


def _gap_milliseconds(report: Report) -> dict[str, float]:
    gaps = report.gaps
    if not gaps.n:
        return {}
    made = {"mean": gaps.mean_s, "median": gaps.quantile_s(0.5), "std": gaps.std_s}
    made |= {point: gaps.quantile_s(q) for point, q in QUANTILES.items()}
    return {f"{point}_itl_ms": value * 1e3 for point, value in made.items()}


def _lists(report: Report, kept: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Requests one by one; a simulation knows a request's mean gap, which stands for each of its gaps."""
    made: dict[str, Any] = {
        "input_lens": kept["prompt_tokens"].tolist(),
        "output_lens": kept["output_tokens"].tolist(),
        "start_times": kept["arrival_s"].tolist(),
        "ttfts": report.ttft_s.tolist(),
        "latencies": report.e2e_s.tolist(),
        "queue_times": (kept["scheduled_s"] - kept["arrival_s"]).tolist(),
    }
    if int(kept["output_tokens"].sum()) > _MOST_GAPS:
        return made
    gaps = zip(np.nan_to_num(report.tpot_s).tolist(), made["output_lens"], strict=True)
    return made | {"itls": [[gap] * (n - 1) for gap, n in gaps], "itls_are": "each request's mean gap, repeated"}


def benchmark_report(run: SimulatedRun) -> dict[str, Any]:
    """The document of llm-d's Benchmark Report v0.2."""
    stack, load = _stack(run), _load(run)
    said = {"stack": stack, "load": load, "seed": run.report.seed}
    return {
        "version": "0.2",
        "run": {
            "uid": str(uuid.uuid5(_NAMESPACE, json.dumps(said, sort_keys=True))),
            "eid": _hash(stack),
            "time": {"duration": f"PT{run.report.duration_s:.6f}S"},
            "description": f"simulated by shardwise {__version__}, seed {run.report.seed}",
            "keywords": ["simulated"],
        },
        "scenario": {"stack": stack, "load": load},
        "results": {
            "request_performance": {"aggregate": _aggregate(run)},
            "observability": {"components": [_seen(run, component["metadata"]["label"]) for component in stack[:1]]},
        },
    }


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _stack(run: SimulatedRun) -> list[dict[str, Any]]:
    """The engine's servers, one entry a role."""
    plan, uses = run.plan, run.report.replicas
    made = []
    for role in dict.fromkeys(use.role for use in uses):
        mine = [use for use in uses if use.role == role]
        phase = plan.prefill if role == "prefill" else plan.decode
        standardized = {
            "kind": "inference_engine",
            "tool": phase.engine,
            "tool_version": "simulated",
            "role": "replica" if role == "both" else role,
            "replicas": len(mine),
            "model": {"name": run.checkpoint},
            "accelerator": {
                "model": phase.chip,
                "count": sum(use.n_chips for use in mine),
                "parallelism": {
                    "tp": phase.tp,
                    "pp": phase.pp,
                    "ep": phase.ep,
                    "dp": len(mine),
                    "dp_local": 1,
                    "workers": 1,
                },
            },
        }
        fields = ("ffn", "attention", "weights", "kv_dtype", "page_size", "slice", "mapping")
        native = {"args": {name: getattr(phase, name) for name in fields}, "envars": None, "config": None}
        metadata = {
            "schema_version": "0.0.1",
            "label": f"{phase.engine}-{role}",
            "cfg_id": _hash([standardized, native]),
        }
        made.append({"metadata": metadata, "standardized": standardized, "native": native})
    return made


def _load(run: SimulatedRun) -> dict[str, Any]:
    kept = run.kept
    rate = run.rate_per_s if run.rate_per_s is not None and math.isfinite(run.rate_per_s) else None
    standardized = {
        "tool": "shardwise",
        "tool_version": __version__,
        "source": "sampled" if run.rate_per_s is None and run.concurrency is None else "random",
        "input_seq_len": _lengths(kept["prompt_tokens"]),
        "output_seq_len": _lengths(kept["output_tokens"]),
        "rate_qps": rate,
        "concurrency": run.concurrency,
    }
    native = {"args": {"burstiness": run.burstiness, "seed": run.report.seed}, "envars": None, "config": None}
    metadata = {"schema_version": "0.0.1", "cfg_id": _hash([standardized, native]), "description": "simulated traffic"}
    return {"metadata": metadata, "standardized": standardized, "native": native}


def _lengths(tokens: NDArray[Any]) -> dict[str, Any]:
    if not len(tokens):
        return {"distribution": "other", "value": 0}
    low, high = int(tokens.min()), int(tokens.max())
    if low == high:
        return {"distribution": "fixed", "value": low}
    spread = {"std_dev": float(tokens.std()), "min": low, "max": high}
    return {"distribution": "other", "value": float(tokens.mean()), **spread}


def _aggregate(run: SimulatedRun) -> dict[str, Any]:
    report, kept, summary = run.report, run.kept, run.report.summary()
    per_s = 1.0 / report.duration_s if report.duration_s else 0.0
    n_in, n_out = float(kept["prompt_tokens"].sum()), float(kept["output_tokens"].sum())
    per_token = report.e2e_s / np.maximum(kept["output_tokens"], 1)
    rates = {
        "input_token_rate": n_in * per_s,
        "output_token_rate": n_out * per_s,
        "total_token_rate": (n_in + n_out) * per_s,
    }
    return {
        "requests": {
            "total": len(report.columns["index"]) - report.warmup_requests,
            "failures": summary.rejected + summary.lost,
            "incomplete": summary.unfinished,
            "input_length": _statistics(kept["prompt_tokens"], "count"),
            "output_length": _statistics(kept["output_tokens"], "count"),
        },
        "latency": {
            "time_to_first_token": _statistics(report.ttft_s, "s"),
            "time_per_output_token": _statistics(_known(report.tpot_s), "s/token"),
            "normalized_time_per_output_token": _statistics(per_token, "s/token"),
            "inter_token_latency": _gap_statistics(report),
            "request_latency": _statistics(report.e2e_s, "s"),
        },
        "throughput": {name: {"units": "tokens/s", "mean": value} for name, value in rates.items()}
        | {"request_rate": {"units": "queries/s", "mean": summary.requests_per_s}},
    }


def _statistics(values: NDArray[Any], units: str) -> dict[str, Any] | None:
    if not len(values):
        return None
    return _described(units, float(values.mean()), float(values.std()), lambda q: float(np.quantile(values, q))) | {
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _gap_statistics(report: Report) -> dict[str, Any] | None:
    gaps = report.gaps
    return _described("s/token", gaps.mean_s, gaps.std_s, gaps.quantile_s) if gaps.n else None


def _described(units: str, mean: float, std: float, quantile: Callable[[float], float]) -> dict[str, Any]:
    points = {point: quantile(q) for point, q in _REPORT_PERCENTILES.items()}
    return {"units": units, "mean": mean, "stddev": std, **points}


def _seen(run: SimulatedRun, label: str) -> dict[str, Any]:
    """What an operator would see of the whole system: requests that run and wait, over time."""
    series = run.report.series
    at = np.asarray(series.time_s)
    weights = np.diff(at, append=at[-1:] if len(at) else [])
    columns = {"running_requests": series.n_running, "waiting_requests": series.n_waiting}
    seen: dict[str, Any] = {}
    for name, counts in columns.items():
        values = np.asarray(counts, np.float64)
        if len(values):
            mean = float(np.average(values, weights=weights)) if weights.sum() else float(values.mean())
            seen[name] = {"units": "count", "mean": mean, "min": float(values.min()), "max": float(values.max())}
    return {"component_label": label, "aggregate": seen}
