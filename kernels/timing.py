"""Seconds of one run of something, again and again: device events on a GPU, thread CPU time on a CPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .bench_case import Device

# larger than any L2, and written before each run, so that every run starts cold
_FLUSH_BYTES = 256_000_000
_N_CPU_REPEATS = 15
_N_GPU_REPEATS = 50
_LEAST_S = 2e-4


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each run, and how they were taken."""

    seconds: list[float]
    how: str


def time_runs(run: Callable[[], object], device: Device) -> Timing:
    """Many runs, after one to warm up.

    On a GPU a run is a graph that is replayed between two events on the stream, after the L2 was flushed: the flush takes
    longer than the host needs to queue what follows, so the host's launches do not count, nor do gaps between kernels.
    On a CPU it is the CPU time of the one thread, which is what a shared machine's other work does not touch.
    """
    run()
    return _on_gpu(run) if device == "cuda" else _on_cpu(run)


def _on_cpu(run: Callable[[], object]) -> Timing:
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
    return Timing(found, "one thread, CPU time, torch path")


def _on_gpu(run: Callable[[], object]) -> Timing:
    graph = _captured(run)
    replay = run if graph is None else graph.replay
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    marks = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(_N_GPU_REPEATS)]
    for first, second in marks:
        flush.zero_()
        first.record()
        replay()
        second.record()
    torch.cuda.synchronize()
    seconds = [first.elapsed_time(second) * 1e-3 for first, second in marks]
    return Timing(seconds, f"{'launches' if graph is None else 'a graph'} between device events, L2 flushed")


def _captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    """The run as a graph, or None where it waits for the device on its way and cannot be one."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph
