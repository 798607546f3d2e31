"""How long a what-if of 10,000 points takes from the command to the page: Llama 3.1 70B on nodes of H100.

Every point is a plan of its own: layouts, mesh, stages and replicas are searched at each. Counts are asserted, seconds are
printed.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
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


def _measure() -> tuple[WhatIf, float, float]:
    """The answers, the first (cold) and the median warm seconds."""
    seconds = []
    for _ in range(_RUNS + 1):
        started = time.perf_counter()
        answer = what_if(_MODEL, _POOL, vary=_VARY, output_tokens=_OUTPUT)
        seconds.append(time.perf_counter() - started)
    return answer, seconds[0], statistics.median(seconds[1:])


def _whole_command() -> tuple[float, int]:
    """Seconds of the command in a process of its own, and bytes of the page it writes."""
    varied = [word for text in _VARY for word in ("--vary", text)]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        words = ["whatif", _MODEL, "--on", _POOL, "--output", str(_OUTPUT), *varied, "-o", str(page)]
        code = "import sys; from shardwise.planner.cli import app; app(sys.argv[1:])"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
        return time.perf_counter() - started, page.stat().st_size


def _peak_rss_mib() -> float:
    """Peak resident memory of this process; Linux counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2.0**20 if sys.platform == "darwin" else peak / 2.0**10


def main() -> None:
    """Measure and print."""
    answer, cold_s, warm_s = _measure()
    assert answer.n_points == _POINTS, answer.n_points
    assert answer.n_fitting > _POINTS // 2, answer.n_fitting
    command_s, n_bytes = _whole_command()
    print(f"points        {answer.n_points:12,}  ({answer.n_fitting:,} fit)")
    print(f"answers       {warm_s:12.2f} s, median of {_RUNS}; first {cold_s:.2f} s")
    print(f"points/s      {answer.n_points / warm_s:12,.0f}")
    print(f"command       {command_s:12.2f} s, imports, table and page of {n_bytes / 1e6:.1f} MB included")
    print(f"peak RSS      {_peak_rss_mib():12.0f} MiB")


if __name__ == "__main__":
    main()
