"""``whatif PLAN.json --vary rate=... --simulate``: a plan under simulated traffic at each rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..load_sweep import RateRun
    from ..result import PlanResult

_SAYS = {
    "rate": "requests that come (1/s)",
    "requests_per_s": "requests answered (1/s)",
    "goodput_per_s": "requests answered within the limits (1/s), with its 90 % interval over the seeds",
    "within_slo": "share of the requests within the limits",
    "ttft_p99_s": "99th percentile of time to first token (s)",
    "tpot_p99_s": "99th percentile of time per output token (s)",
    "usd_per_mtok": "USD per million output tokens, all paid chip time included",
}


def whatif_under_load(
    base: str,
    vary: Sequence[str],
    *,
    rank: int,
    limits: Mapping[str, float | None],
    n_seeds: int,
    n_requests: int,
    out: Path | None,
    command: str,
    as_json: bool,
) -> None:
    """Simulate a plan at every rate, several seeds each, and draw what it answers and which limits it keeps."""
    import json

    from ...hardware_specs.errors import SpecError
    from ..explain import read_result
    from ..load_sweep import sweep_rates
    from ..whatif.ask import is_file
    from ..whatif.vary import parse_vary

    axes = parse_vary(vary)
    if [axis.key for axis in axes] != ["rate"] or axes[0].numbers is None:
        raise SpecError("--simulate varies the rate alone, e.g. --vary rate=1..16*2; leave out the other --vary")
    if not is_file(base):
        raise SpecError(f"--simulate needs a plan: write one with `shardwise plan {base} ... --json > plan.json`")
    result = read_result(Path(base))
    asked = {
        "ttft_s": limits["ttft_s"] if limits["ttft_s"] is not None else result.ttft_s,
        "tpot_s": limits["tpot_s"] if limits["tpot_s"] is not None else result.tpot_s,
    }
    runs = _watched(sweep_rates, result, axes[0].numbers, n_seeds=n_seeds, n_requests=n_requests, rank=rank, **asked)
    columns = _columns(runs)
    if out is not None:
        _write(result, runs, columns, asked["tpot_s"], out, command)
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if as_json:
        typer.echo(
            json.dumps({"seeds": n_seeds, "requests": n_requests, **asked, "rows": rows}, indent=1, allow_nan=False)
        )
    else:
        _print(rows)


def _watched(sweep: Any, result: "PlanResult", rates: Sequence[float], **asked: Any) -> "tuple[RateRun, ...]":
    """Run with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=len(rates) * asked["n_seeds"])
        runs: tuple[RateRun, ...] = sweep(result, rates, advance=lambda n: progress.advance(task, n), **asked)
    return runs


def _columns(runs: "Sequence[RateRun]") -> dict[str, list[float | None]]:
    import math

    columns: dict[str, list[float | None]] = {"rate": [run.rate_per_s for run in runs]}
    for name in ("requests_per_s", "goodput_per_s", "within_slo", "ttft_p99_s", "tpot_p99_s"):
        for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
            values = [float(getattr(getattr(run, name), end)) for run in runs]
            columns[name + suffix] = [None if math.isnan(value) else value for value in values]
    columns["usd_per_mtok"] = [run.usd_per_mtok for run in runs]
    return columns


def _write(
    result: "PlanResult",
    runs: "Sequence[RateRun]",
    columns: dict[str, list[float | None]],
    tpot_s: float | None,
    path: Path,
    command: str,
) -> None:
    from ...hardware_specs.documents import write_atomically
    from ..charts.serving import goodput_chart, slo_map
    from ..figures import Page, PageTable, write_charts
    from ..version import __version__
    from .plots import csv_text

    if path.suffix.lower() == ".csv":
        write_atomically(path, csv_text(columns))
    else:
        name = f"{result.model} on {result.on}"
        page = Page(
            title=f"{name} under traffic",
            lead=(f"{result.workload.input_tokens} tokens in, {result.workload.output_tokens} out; Poisson arrivals.",),
            charts=(
                goodput_chart(runs, f"{name}: goodput against rate"),
                slo_map(runs, f"{name}: limits on TTFT", of="ttft", tpot_s=tpot_s),
                slo_map(runs, f"{name}: limits on TPOT", of="tpot"),
            ),
            table=PageTable(columns=columns, says=_SAYS, file_name="rates.csv"),
            command=command,
            provenance={"shardwise": __version__},
        )
        write_charts(page, path)
    typer.echo(f"wrote {path}", err=True)


def _print(rows: list[dict[str, float | None]]) -> None:
    from ...hardware_specs.units import format_seconds
    from .text import console, table

    names = ("rate", "answered", "goodput", "low - high", "in limits", "TTFT p99", "TPOT p99")
    made = table(*names, right=names)
    for row in rows:
        times = ("-" if row[n] is None else format_seconds(float(row[n] or 0.0)) for n in ("ttft_p99_s", "tpot_p99_s"))
        made.add_row(
            f"{row['rate']:.4g}",
            f"{row['requests_per_s']:.4g}",
            f"{row['goodput_per_s']:.4g}",
            f"{row['goodput_per_s_low']:.4g} - {row['goodput_per_s_high']:.4g}",
            f"{row['within_slo']:.3f}",
            *times,
        )
    console().print(made)
