"""Seconds of one run of something, again and again: device events on a GPU, thread CPU time on a CPU."""

import time
from collections.abc import Callable

import torch

from .bench_case import Device

# larger than any L2, and written before each run, so that every run starts cold
_FLUSH_BYTES = 256_000_000
_N_CPU_REPEATS = 15
_N_GPU_REPEATS = 50
_LEAST_S = 2e-4


def run_seconds(run: Callable[[], object], device: Device) -> list[float]:
    """Seconds of each of many runs, after one to warm up.

    On a GPU between two events on the stream, the L2 flushed before the first, so launches of the host do not count. On a
    CPU in CPU time of the one thread, which is what a shared machine's other work does not touch.
    """
    run()
    return _on_gpu(run) if device == "cuda" else _on_cpu(run)


def _on_cpu(run: Callable[[], object]) -> list[float]:
    """Short runs are timed by the dozen: the clock ticks in microseconds."""
    started = time.thread_time()
    run()
    n_inside = max(1, int(_LEAST_S / max(time.thread_time() - started, 1e-6)))
    found = []
    for _ in range(_N_CPU_REPEATS):
        started = time.thread_time()
        for _ in range(n_inside):
            run()
        found.append((time.thread_time() - started) / n_inside)
    return found


def _on_gpu(run: Callable[[], object]) -> list[float]:
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    marks = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(_N_GPU_REPEATS)]
    for first, second in marks:
        flush.zero_()
        first.record()
        run()
        second.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(second) * 1e-3 for first, second in marks]
