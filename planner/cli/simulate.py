"""``shardwise simulate``: a plan under real traffic, request by request."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ...simulator.report import Report, Spread, Summary

_Rate = Annotated[str | None, typer.Option("--rate", help="Requests a second; inf sends all at once.")]
_Requests = Annotated[int | None, typer.Option("--requests", help="Requests to send; 1000, or all of a trace.")]


def simulate(
    file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Output of `plan --json` or `estimate --json`.")],
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Recorded requests: Azure, Mooncake, BurstGPT, ...")
    ] = None,
    rate: _Rate = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Users in a closed loop.")] = None,
    modulated: Annotated[
        str | None, typer.Option("--modulated", help="RATE:SECONDS of each state, e.g. 2:60,20:10.")
    ] = None,
    day_curve: Annotated[
        str | None, typer.Option("--day-curve", help="Rates over a day, the first at midnight.")
    ] = None,
    requests: _Requests = None,
    arrivals: Annotated[str, typer.Option("--arrivals", help="poisson, gamma or even.")] = "poisson",
    burstiness: Annotated[float, typer.Option("--burstiness", help="Shape of gamma arrivals; 1 is Poisson.")] = 1.0,
    lengths: Annotated[
        str | None, typer.Option("--lengths", help="fixed, uniform:0.8, lognormal:1.0, or a CSV.")
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", help="rag, self-consistency, memgpt, ... (show workloads); --requests counts tasks."
        ),
    ] = None,
    priorities: Annotated[
        str | None, typer.Option("--priorities", help="Share of each priority, e.g. 0.1,0.9.")
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option("--scheduler", help="static, orca, vllm, chunked, two-tier, disaggregated, priority or deadline."),
    ] = "chunked",
    router: Annotated[
        str,
        typer.Option("--router", help="round-robin, least-outstanding, least-kv, prefix-aware or power-of-two."),
    ] = "least-outstanding",
    replicas: Annotated[
        int | None, typer.Option("--replicas", help="Copies of the model, in place of the plan's.")
    ] = None,
    prefill_replicas: Annotated[
        int | None, typer.Option("--prefill-replicas", help="Copies that read prompts.")
    ] = None,
    decode_replicas: Annotated[int | None, typer.Option("--decode-replicas", help="Copies that write answers.")] = None,
    max_sequences: Annotated[
        int | None, typer.Option("--max-sequences", help="Requests of a replica at a time.")
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option("--token-budget", help="Tokens of a pass of chunked prefill.")
    ] = None,
    no_prefix_cache: Annotated[bool, typer.Option("--no-prefix-cache", help="Do not share prompts' blocks.")] = False,
    swap: Annotated[
        bool, typer.Option("--swap", help="Swap preempted caches to the host instead of computing anew.")
    ] = False,
    speculate: Annotated[
        str | None, typer.Option("--speculate", help="DRAFT_TOKENS:ACCEPTANCE[:DRAFT_COST], e.g. 4:0.7:0.05.")
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option("--draft", help="MODEL[:TOKENS[:ACCEPTANCE]] or auto: a draft model, priced on the plan's chips."),
    ] = None,
    autoscale: Annotated[
        str | None, typer.Option("--autoscale", help="LEAST:MOST:REQUESTS_EACH:STARTUP, e.g. 1:8:64:90s.")
    ] = None,
    mtbf: Annotated[
        str | None, typer.Option("--mtbf", help="Mean time between failures of a chip, e.g. 5000h.")
    ] = None,
    repair: Annotated[str, typer.Option("--repair", help="Until a failed replica serves again.")] = "10min",
    lose: Annotated[bool, typer.Option("--lose", help="Requests of a failed replica are lost, not retried.")] = False,
    ttft: opt.Ttft = None,
    tpot: opt.Tpot = None,
    step_scale: Annotated[float, typer.Option("--step-scale", help="Factor on every step time.")] = 1.0,
    fit_steps: Annotated[
        bool, typer.Option("--fit-steps", help="Fit that factor to the decode rate of a measured trace.")
    ] = False,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows of a trace that cannot be read.")
    ] = False,
    warmup: Annotated[int, typer.Option("--warmup", help="Requests at the start that the figures leave out.")] = 0,
    until: Annotated[str | None, typer.Option("--until", help="Stop after so much simulated time, e.g. 1h.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="What everything random is drawn from.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs with seeds that follow each other.")] = 1,
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file to simulate.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a row a request: .csv or .parquet.")
    ] = None,
    series: Annotated[
        Path | None, typer.Option("--series", help="Write queue, batch and cache over time: .csv.")
    ] = None,
    perfetto: Annotated[
        Path | None, typer.Option("--perfetto", help="Write a trace for ui.perfetto.dev: .json.")
    ] = None,
    vllm_json: Annotated[
        Path | None, typer.Option("--vllm-json", help="Write the run as `vllm bench serve` writes its own: .json.")
    ] = None,
    benchmark_report: Annotated[
        Path | None,
        typer.Option("--benchmark-report", help="Write the run as llm-d's Benchmark Report v0.2: .yaml or .json."),
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw batch, cache and queue over time.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Serve traffic by a plan: queues, batches, cache, failures; percentiles, goodput and cost."""
    from ..explain import read_result
    from ..replay import compare, fit_step_scale
    from ..serving import simulate as run
    from .plots import check_plot, write_plot
    from .text import check_writable

    for path in (output, series, perfetto, vllm_json, benchmark_report):
        if path is not None:
            check_writable(path)
    _check_suffixes(output, vllm_json, benchmark_report)
    check_plot(plot)
    result = read_result(file)
    asked: dict[str, Any] = {
        "rank": rank,
        "trace": trace,
        "skip_bad_rows": skip_bad_rows,
        "rate_per_s": _rate(rate),
        "concurrency": concurrency,
        "modulated": None if modulated is None else _pairs(modulated),
        "day_rates_per_s": None if day_curve is None else _numbers("--day-curve", day_curve),
        "n_requests": requests,
        "arrivals": arrivals,
        "burstiness": burstiness,
        "lengths": lengths,
        "workload": workload,
        "priority_shares": (1.0,) if priorities is None else _numbers("--priorities", priorities),
        "scheduler": scheduler,
        "router": router,
        "replicas": replicas,
        "prefill_replicas": prefill_replicas,
        "decode_replicas": decode_replicas,
        "max_sequences": max_sequences,
        "token_budget": token_budget,
        "prefix_caching": not no_prefix_cache,
        "preemption": "swap" if swap else "recompute",
        "speculation": None if speculate is None else _speculation(speculate),
        "draft": draft,
        "autoscaling": None if autoscale is None else _autoscaling(autoscale),
        "failures": None if mtbf is None else _failures(mtbf, repair, retries=not lose),
        "ttft_s": opt.seconds(ttft),
        "tpot_s": opt.seconds(tpot),
        "warmup_requests": warmup,
        "until_s": opt.seconds(until),
    }
    if fit_steps:
        step_scale = fit_step_scale(result, asked, seed=seed)
        typer.echo(f"step times scaled by {step_scale:.4g} to meet the measured decode rate", err=True)
    reports = []
    for n in range(seed, seed + seeds):
        reports.append(_watched(run, result, asked | {"step_scale": step_scale, "seed": n}))
        if reports[-1].partial:
            break
    first = reports[0]
    _write_files(first, output, series, perfetto)
    _write_results(first, result, asked, vllm_json, benchmark_report)
    if plot is not None:
        from ..charts.serving import timeline_chart

        name = f"{result.model} on {result.on}"
        write_plot(plot, f"{name}: a simulated run", [timeline_chart(first, f"{name} over time, seed {seed}")])
    measured = None if trace is None else compare(first, trace, skip_bad_rows=skip_bad_rows)
    _print(reports, measured, as_json=as_json)


def _watched(run: Any, result: Any, asked: dict[str, Any]) -> "Report":
    """Run with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ...simulator.workload.presets import get_preset

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        n_each = 1 if asked["workload"] is None else get_preset(asked["workload"]).n_requests
        total = n_each * (asked["n_requests"] or 1000) if asked["trace"] is None else asked["n_requests"]
        task = progress.add_task("requests", total=total)
        report: Report = run(result, **asked, advance=lambda n: progress.update(task, completed=n))
    return report


def _write_files(report: "Report", output: Path | None, series: Path | None, perfetto: Path | None) -> None:
    if output is not None:
        report.write(output)
    if series is not None:
        report.series_to_pandas().to_csv(series, index=False, lineterminator="\n")
    if perfetto is not None:
        report.write_trace(perfetto)
    for path in (output, series, perfetto):
        if path is not None:
            typer.echo(f"wrote {path}", err=True)


def _write_results(
    report: "Report", result: Any, asked: dict[str, Any], vllm_json: Path | None, benchmark_report: Path | None
) -> None:
    """The run as load generators write theirs."""
    from datetime import datetime

    from ..export.simulated import SimulatedRun, write_benchmark_report, write_vllm_results

    run = SimulatedRun(
        report=report,
        result=result,
        rank=asked["rank"],
        rate_per_s=asked["rate_per_s"],
        concurrency=asked["concurrency"],
        burstiness=asked["burstiness"],
        made_at=datetime.now(),
    )
    for path, write in ((vllm_json, write_vllm_results), (benchmark_report, write_benchmark_report)):
        if path is not None:
            write(run, path)
            typer.echo(f"wrote {path}", err=True)


def _print(reports: "list[Report]", measured: Any, *, as_json: bool) -> None:
    """The first run's figures, intervals over the seeds, and what was measured beside it."""
    import json

    from ...simulator.report import over_seeds

    summaries = [report.summary() for report in reports]
    first = summaries[0]
    intervals = over_seeds(summaries) if len(summaries) > 1 else {}
    if as_json:
        document = first.model_dump()
        if intervals:
            document["over_seeds"] = {name: interval.model_dump() for name, interval in intervals.items()}
        if measured is not None:
            document["measured"] = measured.model_dump()
        typer.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        _print_summary(first)
        if intervals:
            _print_intervals(intervals, len(summaries))
        if measured is not None:
            _print_measured(measured)
    _say_what_is_wrong(first)


_TIMES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")


def _print_summary(s: "Summary") -> None:
    from ...hardware_specs.units import format_seconds
    from .text import console, table

    made = table("", "mean", "p50", "p90", "p95", "p99", right=("mean", "p50", "p90", "p95", "p99"))
    for name in _TIMES:
        spread: Spread = getattr(s, name)
        made.add_row(name.removesuffix("_s").upper(), *("-" if v is None else format_seconds(v) for _, v in spread))
    out = console()
    out.print(made, highlight=False)
    price = "no price known" if s.usd_per_mtok is None else f"${s.usd_per_mtok:.2f} per million output tokens"
    within = "" if s.within_slo is None else f" ({s.within_slo:.3f} of them within the limits)"
    out.print(
        f"{s.finished:,} of {s.requests:,} requests answered in {format_seconds(s.duration_s)}{within}: "
        f"{s.requests_per_s:.4g} requests/s, goodput {s.goodput_per_s:.4g}/s, {s.output_tokens_per_s:.4g} output tokens/s, "
        f"{price}",
        highlight=False,
    )
    if s.task_s is not None and s.task_s.p50 is not None and s.task_s.p99 is not None:
        half, most = format_seconds(s.task_s.p50), format_seconds(s.task_s.p99)
        out.print(f"{s.tasks:,} tasks of several requests: p50 {half}, p99 {most} to the last answer", highlight=False)
    counts = (
        f"chips busy {s.utilization:.2f}, cache at most {s.kv_peak:.2f} full",
        f"{s.cached_prompt_share:.2f} of prompt tokens cached" if s.cached_prompt_share else "",
        f"{s.n_preemptions} preemptions" if s.n_preemptions else "",
        f"{s.n_failures} failures, {s.n_restarts} retries, {s.lost} lost" if s.n_failures else "",
    )
    out.print("; ".join(text for text in counts if text), highlight=False)


def _print_intervals(intervals: Any, n: int) -> None:
    from .text import console, table

    made = table(
        "over seeds", "mean", "low", "high", right=("mean", "low", "high"), title=f"90 % t-intervals of {n} seeds"
    )
    for name, interval in intervals.items():
        made.add_row(name, *(f"{value:.4g}" for value in (interval.mean, interval.low, interval.high)))
    console().print(made, highlight=False)


def _print_measured(measured: Any) -> None:
    from ...hardware_specs.units import format_seconds
    from .text import console, table

    made = table("measured", "value", "simulated", "error", right=("value", "simulated", "error"))
    for row in measured.rows:
        made.add_row(row.name, format_seconds(row.measured_s), format_seconds(row.simulated_s), f"{row.error:+.3f}")
    out = console()
    out.print(made, highlight=False)
    out.print(f"rank correlation of the requests' TTFT: {measured.ttft_rank_correlation:.4f}", highlight=False)


def _say_what_is_wrong(s: "Summary") -> None:
    """On stderr: what was refused, what is missing, and whether the load was more than the pool carries."""
    for reason, count in s.reasons.items():
        typer.echo(f"{count:,} requests: {reason}", err=True)
    if s.bad_rows:
        typer.echo(f"{s.bad_rows:,} rows of the trace left out", err=True)
    if s.partial:
        typer.echo(f"partial: stopped with {s.unfinished:,} requests under way", err=True)
    if s.saturation is not None:
        typer.echo(s.saturation, err=True)


def _rate(text: str | None) -> float | None:
    from ...hardware_specs.errors import SpecError

    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"rate {text!r} is no number of requests a second") from None


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from ...hardware_specs.errors import SpecError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(f"{option} {text!r} must be numbers separated by commas") from None


def _pairs(text: str) -> tuple[tuple[float, float], ...]:
    from ...hardware_specs.errors import SpecError

    pairs = [part.split(":") for part in text.split(",")]
    try:
        return tuple((float(rate), float(dwell)) for rate, dwell in pairs)
    except ValueError:
        raise SpecError(f"--modulated {text!r} must be RATE:SECONDS pairs, e.g. 2:60,20:10") from None


def _speculation(text: str) -> Any:
    from ...hardware_specs.errors import SpecError
    from ...simulator.engine.deployment import Speculation

    parts = text.split(":")
    try:
        draft_tokens, acceptance = int(parts[0]), float(parts[1])
        cost = float(parts[2]) if len(parts) > 2 else 0.0
    except (ValueError, IndexError):
        raise SpecError(f"--speculate {text!r}: write DRAFT_TOKENS:ACCEPTANCE[:DRAFT_COST], e.g. 4:0.7:0.05") from None
    return Speculation(draft_tokens=draft_tokens, acceptance=acceptance, draft_cost=cost)


def _autoscaling(text: str) -> Any:
    from ...hardware_specs.errors import SpecError
    from ...hardware_specs.units import parse_quantity
    from ...simulator.engine.deployment import Autoscaling

    try:
        least, most, target, startup = text.split(":")
        counts = int(least), int(most), float(target)
    except ValueError:
        raise SpecError(f"--autoscale {text!r}: write LEAST:MOST:REQUESTS_EACH:STARTUP, e.g. 1:8:64:90s") from None
    return Autoscaling(
        least=counts[0], most=counts[1], target_outstanding=counts[2], startup_s=parse_quantity(startup, "s")
    )


def _failures(mtbf: str, repair: str, *, retries: bool) -> Any:
    from ...hardware_specs.units import parse_quantity
    from ...simulator.engine.deployment import Failures

    return Failures(chip_mtbf_s=parse_quantity(mtbf, "s"), repair_s=parse_quantity(repair, "s"), retries=retries)


def _check_suffixes(rows: Path | None, vllm_json: Path | None, benchmark_report: Path | None) -> None:
    from ...simulator.report import check_row_file
    from ..export.simulated import check_results_file

    if rows is not None:
        check_row_file(rows)
    if vllm_json is not None:
        check_results_file(vllm_json, ".json")
    if benchmark_report is not None:
        check_results_file(benchmark_report, ".yaml", ".yml", ".json")
