"""How long a what-if of 10,000 points takes from the command to the page: Llama 3.1 70B on nodes of H100.

Every point is a plan of its own: layouts, mesh, stages and replicas are searched at each. Counts are asserted, seconds are
printed: those of the clock, and those of the processor, which a busy machine stretches less.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from shardwise.planner.whatif.ask import WhatIf, what_if

_RUNS = 3
_VARY = (
    "chips=8,16",
    "weights=bf16,fp8",
    "kv-dtype=bf16,fp8",
    "batch=1..512*2",
    "input=512..8192*2",
    "link=x1..x3+0.5",
    "hbm-bandwidth=x1..x2+0.25",
)
_MODEL, _POOL, _OUTPUT = "llama-3.1-70b", "h100-sxm", 256
_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seconds:
    clock: float
    processor: float


def _measure() -> tuple[WhatIf, _Seconds, _Seconds]:
    """The answers, the first (cold) and the median warm seconds."""
    clock, processor = [], []
    for _ in range(_RUNS + 1):
        started, used = time.perf_counter(), time.process_time()
        answer = what_if(_MODEL, _POOL, vary=_VARY, output_tokens=_OUTPUT)
        clock.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    warm = _Seconds(clock=statistics.median(clock[1:]), processor=statistics.median(processor[1:]))
    return answer, _Seconds(clock=clock[0], processor=processor[0]), warm


def _whole_command() -> tuple[_Seconds, int]:
    """Seconds of the command in a process of its own, and bytes of the page it writes."""
    varied = [word for text in _VARY for word in ("--vary", text)]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        words = ["whatif", _MODEL, "--on", _POOL, "--output", str(_OUTPUT), *varied, "-o", str(page)]
        code = "import sys; from shardwise.planner.cli import app; app(sys.argv[1:])"
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
        clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return _Seconds(clock=clock, processor=used), page.stat().st_size


def _peak_rss_mib() -> float:
    """Peak resident memory of this process; Linux counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2.0**20 if sys.platform == "darwin" else peak / 2.0**10


def main() -> None:
    """Measure and print."""
    answer, cold, warm = _measure()
    assert answer.n_points == _POINTS, answer.n_points
    assert answer.n_fitting > _POINTS // 2, answer.n_fitting
    command, n_bytes = _whole_command()
    print(f"points        {answer.n_points:12,}  ({answer.n_fitting:,} fit)")
    print(f"answers       {warm.clock:12.2f} s, median of {_RUNS} ({warm.processor:.2f} s of the processor)")
    print(f"first time    {cold.clock:12.2f} s ({cold.processor:.2f} s of the processor)")
    print(f"points/s      {answer.n_points / warm.clock:12,.0f}")
    print(
        f"command       {command.clock:12.2f} s ({command.processor:.2f} s of the processor), with imports, table and a "
        f"page of {n_bytes / 1e6:.1f} MB"
    )
    print(f"peak RSS      {_peak_rss_mib():12.0f} MiB")


if __name__ == "__main__":
    main()
