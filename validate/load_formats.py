"""Files of load generators, read by what they are: a summary of the run, or every request.

``vllm-bench``
    ``vllm bench serve --save-result``: one flat object (``--append-result`` writes several, one a line), times in milliseconds.
``sglang-bench``
    ``python -m sglang.bench_serving --output-file``: an object a line, a line a run, times in milliseconds.
``guidellm``
    ``benchmarks.json``: a list of benchmarks with ``metrics.*.successful``; milliseconds but for ``request_latency``.
``aiperf``
    ``profile_export_aiperf.json``: each metric with its unit.
``inference-perf``
    ``summary_lifecycle_metrics.json``, one of a stage, or the list of its requests; seconds.
``benchmark-report``
    llm-d's Benchmark Report v0.2 in JSON or YAML: every statistic with its unit, words as the tool in it has them.
``vllm-run``
    a line a request, from the engine's own log.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..hardware_specs.documents import read_yaml
from ..hardware_specs.errors import SpecError
from ..simulator.report import QUANTILES, tpot_s
from ..simulator.workload.trace_files import opened
from ..simulator.workload.trace_results import result_format
from ..simulator.workload.traces import read_measured
from .load_results import DEFINITIONS, Arrivals, Figure, LoadResults, TokenCounts

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "s/token": 1.0, "ms/token": 1e-3}
_RATE_UNITS = ("tokens/s", "tokens/sec", "requests/s", "requests/sec", "queries/s")
KNOWN = ("vllm-bench", "sglang-bench", "guidellm", "aiperf", "inference-perf", "benchmark-report", "vllm-run")


def read_load_results(path: Path, run: int | None = None) -> LoadResults:
    """One run of a file.

    Parameters
    ----------
    run : which, from 1, where a file has several; the only one where it is None

    Raises
    ------
    SpecError : no such file or run, or the results of a tool that is not known
    """
    documents = _documents(path)
    found = kind(documents)
    if found is None:
        raise SpecError(f"{path}: results of no tool that is known; known are {', '.join(KNOWN)}")
    try:
        if found in ("vllm-run", "requests"):
            return _of_requests(path, "vllm-run" if found == "vllm-run" else "inference-perf")
        runs = documents[0].get("benchmarks", []) if found == "guidellm" else documents
        made = _READERS[found](_chosen(runs, run))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(
            f"{path}: {error if isinstance(error, SpecError) else f'results of {found} without {error}'}"
        ) from None
    return made if len(runs) == 1 else replace(made, can_replay=False)


def _documents(path: Path) -> list[Any]:
    """JSON documents of a file: one, or one a line; YAML where it is none."""
    with opened(path) as lines:
        text = lines.read()
    try:
        return [json.loads(text)]
    except json.JSONDecodeError as error:
        rows = [line for line in text.splitlines() if line.strip()]
        try:
            return [json.loads(line) for line in rows]
        except json.JSONDecodeError:
            if path.suffix not in (".yaml", ".yml"):
                raise SpecError(f"{path} cannot be read: {error}") from None
    try:
        return [read_yaml(text)]
    except yaml.YAMLError as error:
        raise SpecError(f"{path} cannot be read: {error}") from None


def kind(documents: list[Any]) -> str | None:
    """What tool wrote the first of some documents; ``requests`` for inference-perf's list of them."""
    first = documents[0] if documents else None
    if isinstance(first, dict):
        if {"run", "results"} <= first.keys():
            return "benchmark-report"
        if "total_output_tokens_retokenized" in first or "mean_e2e_latency_ms" in first:
            return "sglang-bench"
        if {"successes", "failures"} <= first.keys():
            return "inference-perf"
        if isinstance(first.get("request_latency"), dict) and "unit" in first["request_latency"]:
            return "aiperf"
    known = result_format(first)
    return "requests" if known == "inference-perf" else known


def _chosen(runs: list[Any], run: int | None) -> Any:
    if run is None and len(runs) == 1:
        return runs[0]
    if run is None or not 1 <= run <= len(runs):
        said = "" if run is None else f", not run {run}"
        raise SpecError(f"it holds {len(runs)} runs{said}; name one with --run 1 to {len(runs)}")
    return runs[run - 1]


def _figures(tool: str, values: Iterable[tuple[str, str, object, float]]) -> tuple[Figure, ...]:
    """Figures of (the tool's word, statistic, value, seconds of one unit); what is missing or no number is left out."""
    made = []
    for word, statistic, value, unit in values:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            made.append(Figure(definition=DEFINITIONS[tool][word], statistic=statistic, value=float(value) * unit))
    return tuple(made)


def _bench(tool: str, document: dict[str, Any]) -> LoadResults:
    """VLLM's and SGLang's benches, whose summaries are alike."""
    words = ("ttft", "tpot", "itl", "e2el" if tool == "vllm-bench" else "e2e_latency")
    names = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
    times = [(w, s, document.get(f"{n}_{w}_ms"), 1e-3) for w in words for n, s in names.items()]
    rates = [(w, "mean", document.get(w), 1.0) for w in ("output_throughput", "request_throughput")]
    n = int(document["completed"])
    rate, concurrency = document.get("request_rate"), document.get("max_concurrency")
    burstiness = float(document.get("burstiness") or 1.0)
    number = None if rate is None else float(rate)
    return LoadResults(
        tool=tool,
        version=_text(document.get("version")),
        model=_text(document.get("model_id") or document.get("model")),
        figures=_figures(tool, [*times, *rates]),
        n_requests=n,
        n_failed=int(document.get("failed") or 0),
        inputs=TokenCounts(mean=_mean(document.get("total_input_tokens"), n)),
        outputs=TokenCounts(mean=_mean(document.get("total_output_tokens"), n)),
        rate_per_s=None if concurrency and (number is None or math.isinf(number)) else number,
        concurrency=int(concurrency) if concurrency else None,
        arrivals="poisson" if burstiness == 1.0 else "gamma",
        burstiness=burstiness,
        can_replay=_has_requests(document),
    )


def _has_requests(document: dict[str, Any]) -> bool:
    return all(isinstance(document.get(k), list) for k in ("start_times", "input_lens", "output_lens", "ttfts", "itls"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _mean(total: Any, n: int) -> float | None:
    return None if total is None or not n else float(total) / n


def _guidellm(document: dict[str, Any]) -> LoadResults:
    metrics, config = document["metrics"], document.get("config") or {}
    strategy = config.get("strategy") or {}
    units = {word: 1.0 if word == "request_latency" else 1e-3 for word in DEFINITIONS["guidellm"]}
    rows = []
    for word, unit in units.items():
        held = (metrics.get(word) or {}).get("successful") or {}
        points = {"mean": held.get("mean"), **{p: (held.get("percentiles") or {}).get(p) for p in QUANTILES}}
        rows += [(word, statistic, value, unit) for statistic, value in points.items()]
    totals = metrics.get("request_totals") or {}
    how = strategy.get("type_") or strategy.get("kind")
    rate = {"constant": strategy.get("rate"), "poisson": strategy.get("rate"), "throughput": math.inf}.get(str(how))
    users = {"concurrent": strategy.get("streams"), "synchronous": 1}.get(str(how))
    groups = document.get("requests") or {}
    answered = groups.get("successful") or []
    return LoadResults(
        tool="guidellm",
        version=None,
        model=None,
        figures=_figures("guidellm", rows),
        n_requests=int(totals.get("successful") or len(answered)),
        n_failed=int(totals.get("errored") or 0),
        inputs=_counts((metrics.get("prompt_token_count") or {}).get("successful"), spread="std_dev"),
        outputs=_counts((metrics.get("output_token_count") or {}).get("successful"), spread="std_dev"),
        rate_per_s=rate,
        concurrency=users,
        arrivals="even" if how == "constant" else "poisson",
        can_replay=bool(answered) and len(answered) == int(totals.get("successful") or 0),
    )


def _counts(held: Any, *, mean: str = "mean", spread: str) -> TokenCounts:
    """Tokens of the requests, of a statistic under the names a tool has for its mean and its spread."""
    middle, std = (held or {}).get(mean), (held or {}).get(spread)
    return TokenCounts(
        mean=None if middle is None else float(middle),
        cv=None if not middle or std is None else float(std) / float(middle),
    )


def _aiperf(document: dict[str, Any]) -> LoadResults:
    rows = []
    for word, definition in DEFINITIONS["aiperf"].items():
        held = document.get(word)
        if not isinstance(held, dict):
            continue
        unit = _unit(held["unit"])
        points = {"mean": held.get("avg"), **{p: held.get(p) for p in QUANTILES if definition.weight != "run"}}
        rows += [(word, statistic, value, unit) for statistic, value in points.items()]
    phases = ((document.get("input_config") or {}).get("phases")) or []
    sent: dict[str, Any] = next((p for p in phases if p.get("kind") != "warmup" and p.get("name") != "warmup"), {})
    arrivals: Arrivals = {"constant": "even", "gamma": "gamma"}.get(str(sent.get("type")), "poisson")  # type: ignore[assignment]
    return LoadResults(
        tool="aiperf",
        version=_text(document.get("aiperf_version")),
        model=None,
        figures=_figures("aiperf", rows),
        n_requests=int((document.get("request_count") or {}).get("avg") or 0),
        n_failed=int((document.get("error_request_count") or {}).get("avg") or 0),
        inputs=_counts(document.get("input_sequence_length"), mean="avg", spread="std"),
        outputs=_counts(document.get("output_sequence_length"), mean="avg", spread="std"),
        rate_per_s=sent.get("rate"),
        concurrency=None if sent.get("rate") else sent.get("concurrency"),
        arrivals=arrivals,
    )


def _unit(text: str) -> float:
    """Seconds of a unit of time, and 1 of a rate.

    Raises
    ------
    SpecError : neither
    """
    if text in _RATE_UNITS:
        return 1.0
    if text not in _UNITS:
        raise SpecError(f"unit {text!r} is neither a time ({', '.join(_UNITS)}) nor a rate")
    return _UNITS[text]


def _inference_perf(document: dict[str, Any]) -> LoadResults:
    held, load = document["successes"], document.get("load_summary") or {}
    points = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
    rows = [
        (word, statistic, times.get(name), 1.0)
        for word, times in held["latency"].items()
        if word in DEFINITIONS["inference-perf"] and times
        for name, statistic in points.items()
    ]
    rates = held.get("throughput") or {}
    rows += [(word, "mean", rates.get(word), 1.0) for word in ("output_tokens_per_sec", "requests_per_sec")]
    n, users = int(held["count"]), load.get("concurrency")
    return LoadResults(
        tool="inference-perf",
        version=None,
        model=None,
        figures=_figures("inference-perf", rows),
        n_requests=n,
        n_failed=int((document.get("failures") or {}).get("count") or 0),
        inputs=TokenCounts(mean=_summary_mean(held, "prompt_len", "prompt_tokens")),
        outputs=TokenCounts(mean=_summary_mean(held, "output_len")),
        rate_per_s=None if users else load.get("requested_rate"),
        concurrency=users,
    )


def _summary_mean(held: dict[str, Any], *names: str) -> float | None:
    for name in names:
        value = held.get(name)
        if isinstance(value, dict) and isinstance(value.get("mean"), (int, float)):
            return float(value["mean"])
    return None


# How a Benchmark Report names what each tool has words for.
_REPORT_WORDS = {
    "guidellm": (
        "time_to_first_token_ms",
        "time_per_output_token_ms",
        None,
        "inter_token_latency_ms",
        "request_latency",
    ),
    "aiperf": ("time_to_first_token", None, None, "inter_token_latency", "request_latency"),
    "vllm-bench": ("ttft", "tpot", None, "itl", "e2el"),
}
_REPORT_FIELDS = (
    "time_to_first_token",
    "time_per_output_token",
    "normalized_time_per_output_token",
    "inter_token_latency",
    "request_latency",
)


def _benchmark_report(document: dict[str, Any]) -> LoadResults:
    found = document["results"]["request_performance"]["aggregate"]
    load = ((document.get("scenario") or {}).get("load") or {}).get("standardized") or {}
    tool = _report_tool(str(load.get("tool") or ""))
    words = dict(zip(_REPORT_FIELDS, _REPORT_WORDS.get(tool, _REPORT_FIELDS), strict=True))
    rows = []
    for field, word in words.items():
        held = (found.get("latency") or {}).get(field)
        if word is not None and held:
            unit = _unit(held["units"])
            rows += [(word, s, held.get(s), unit) for s in ("mean", *QUANTILES)]
    rates = found.get("throughput") or {}
    of_tool = [word for word, definition in DEFINITIONS[tool].items() if definition.weight == "run"]
    for field, word in zip(("output_token_rate", "request_rate"), of_tool, strict=False):
        rows.append((word, "mean", (rates.get(field) or {}).get("mean"), 1.0))
    requests = found["requests"]
    failed, incomplete = int(requests.get("failures") or 0), int(requests.get("incomplete") or 0)
    users = load.get("concurrency")
    return LoadResults(
        tool=_text(load.get("tool")) or "a benchmark report",
        version=_text(load.get("tool_version")),
        model=_report_model(document),
        figures=_figures(tool, rows),
        n_requests=int(requests["total"]) - failed - incomplete,
        n_failed=failed,
        inputs=_counts(requests.get("input_length"), spread="stddev"),
        outputs=_counts(requests.get("output_length"), spread="stddev"),
        rate_per_s=None if users else load.get("rate_qps"),
        concurrency=int(users) if isinstance(users, (int, float)) else None,
    )


def _report_tool(name: str) -> str:
    """The tool whose words a report has; inference-perf's, which are the report's own, where it is none of the known."""
    known = {"guide": "guidellm", "aiperf": "aiperf", "vllm": "vllm-bench"}
    return next((tool for word, tool in known.items() if word in name.lower()), "inference-perf")


def _report_model(document: dict[str, Any]) -> str | None:
    for component in (document.get("scenario") or {}).get("stack") or ():
        model = (component.get("standardized") or {}).get("model")
        if isinstance(model, dict):
            return _text(model.get("name"))
    return None


def _of_requests(path: Path, tool: str) -> LoadResults:
    """Figures made of the requests themselves, where the file has no summary."""
    run = read_measured(path, skip_bad_rows=True)
    assert run is not None
    columns = {"ttft": run.ttft_s, "tpot": tpot_s(run.ttft_s, run.e2e_s, run.output_tokens), "e2e": run.e2e_s}
    words = {definition.quantity: word for word, definition in DEFINITIONS[tool].items()}
    rows: list[tuple[str, str, object, float]] = []
    for name, column in columns.items():
        known = column[~np.isnan(column)]
        points = (
            {"mean": known.mean(), **{p: np.quantile(known, q) for p, q in QUANTILES.items()}} if len(known) else {}
        )
        rows += [(words[name], statistic, float(value), 1.0) for statistic, value in points.items()]  # type: ignore[index]
    return LoadResults(
        tool=tool,
        version=None,
        model=None,
        figures=_figures(tool, rows),
        n_requests=len(run.ttft_s),
        n_failed=0,
        inputs=TokenCounts(mean=float(run.input_tokens.mean())),
        outputs=TokenCounts(mean=float(run.output_tokens.mean())),
        rate_per_s=None,
        concurrency=None,
        can_replay=True,
    )


_READERS: dict[str, Callable[[Any], LoadResults]] = {
    "vllm-bench": lambda document: _bench("vllm-bench", document),
    "sglang-bench": lambda document: _bench("sglang-bench", document),
    "guidellm": _guidellm,
    "aiperf": _aiperf,
    "inference-perf": _inference_perf,
    "benchmark-report": _benchmark_report,
}
