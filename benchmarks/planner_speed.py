"""How many candidates a second one core prices: PaLM 540B on 64 TPU v4, each weight and cache format in two sizes.

A candidate is a pair of a prefill and a decode phase on one slice, priced and either feasible or refused with a reason; a
phase cell is one phase of one layout, mesh and batch. Pairs ruled out before pricing are not counted. Element-wise array
arithmetic runs on one core.
"""

import resource
import statistics
import sys
import time

from shardwise.planner.request import make_request
from shardwise.planner.search import Found, search

_RUNS = 3


def _measure() -> tuple[Found, float, float]:
    """The search's result, its first (cold) and its median warm seconds."""
    request = make_request(
        "palm-540b",
        "tpu-v4:4x4x4",
        input_tokens=2048,
        output_tokens=64,
        weights="bf16,int8",
        kv_dtype="bf16,int8",
    )
    seconds = []
    for _ in range(_RUNS + 1):
        started = time.perf_counter()
        found = search(request)
        seconds.append(time.perf_counter() - started)
    return found, seconds[0], statistics.median(seconds[1:])


def _peak_rss_mib() -> float:
    """Peak resident memory of this process; Linux counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2.0**20 if sys.platform == "darwin" else peak / 2.0**10


def main() -> None:
    """Measure and print."""
    found, cold_s, warm_s = _measure()
    refused = sum(found.rejected[reason] for reason in ("out of memory", "TTFT over the limit", "TPOT over the limit"))
    feasible = found.n_candidates - refused
    print(f"candidates    {found.n_candidates:12,}  ({feasible:,} feasible, {refused:,} refused after pricing)")
    print(f"phase cells   {found.n_phase_cells:12,}")
    print(f"search        {warm_s:12.2f} s, median of {_RUNS}; first {cold_s:.2f} s")
    print(f"candidates/s  {found.n_candidates / warm_s:12,.0f}")
    print(f"phase cells/s {found.n_phase_cells / warm_s:12,.0f}")
    print(f"peak RSS      {_peak_rss_mib():12.0f} MiB")


if __name__ == "__main__":
    main()
