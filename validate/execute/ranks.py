"""Ranks as processes: started together, watched together, ended together."""

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, Store

from .comm import GroupWires
from .spec import RunSpec
from .worker import Rank, RankReport, TellTokens, weights_of

_PR_SET_PDEATHSIG = 1


class RankFailedError(Exception):
    """A rank died, hung or raised; the text is its own error."""


class Progress:
    """How many steps each rank has begun, in memory that all of them share."""

    def __init__(self, n_ranks: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 8 * n_ranks)).cast("q")

    def note(self, rank: int) -> None:
        """One more step of a rank."""
        self._counts[rank] += 1

    def behind(self, ranks: Sequence[int]) -> str:
        """Which of some ranks did the fewest steps, if they differ."""
        counts = {rank: self._counts[rank] for rank in ranks}
        least, most = min(counts.values()), max(counts.values())
        slowest = ", ".join(str(rank) for rank, count in counts.items() if count == least)
        return f"; rank {slowest} did the fewest steps, {least:,} of {most:,}" if least < most else ""


def run_ranks(specs: Sequence[RunSpec], *, limit_s: float) -> list[list[RankReport]]:
    """Run specs one after the other on one set of processes, a process a rank; all on as many ranks of one device.

    Returns
    -------
    of each spec, what each rank saw

    Raises
    ------
    RankFailedError : a rank failed, or not all were done after `limit_s`; none is left running
    """
    with tempfile.TemporaryDirectory(prefix="shardwise-") as folder:
        store = str(Path(folder) / "store")
        n_ranks = specs[0].mesh.n_ranks
        progress = Progress(n_ranks)
        by_rank = start_together(
            n_ranks, limit_s, lambda rank: _run_rank(specs, rank, store, limit_s, progress), progress=progress
        )
    return [list(reports) for reports in zip(*by_rank, strict=True)]


def start_together(
    n: int, limit_s: float, work: Callable[[int], Any], *, progress: Progress | None = None
) -> list[Any]:
    """Run `work(rank)` in `n` processes and return what each returns; `progress` tells who hangs."""
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes: list[ForkProcess] = []
    try:
        for rank in range(n):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, rank, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        return _gather(pipes, processes, limit_s, progress)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        for process in processes:
            process.join()


def _gather(
    pipes: list[Connection], processes: Sequence[ForkProcess], limit_s: float, progress: Progress | None
) -> list[Any]:
    """What every rank sends, or the error of the first that fails."""
    found: dict[int, Any] = {}
    ends = time.monotonic() + limit_s
    while len(found) < len(pipes):
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in found}
        woken = wait(list(waiting), timeout=max(ends - time.monotonic(), 0.0))
        ready = [pipe for pipe in waiting if pipe in woken]
        if not ready:
            missing = sorted(waiting.values())
            raise RankFailedError(
                f"rank {', '.join(str(rank) for rank in missing)} not done after {limit_s:g} s; "
                f"a rank hangs, or --limit is too short{progress.behind(missing) if progress else ''}"
            )
        failed: list[tuple[int, str]] = []
        for pipe in ready:
            rank = waiting[pipe]
            try:
                is_fine, value = pipe.recv()
            except EOFError:
                is_fine, value = False, _death(processes[rank])
            if is_fine:
                found[rank] = value
            else:
                failed.append((rank, str(value)))
        if failed:
            rank, text = min(failed, key=lambda item: "Connection" in item[1] or "gloo" in item[1])
            raise RankFailedError(f"rank {rank} of {len(pipes)}: {text}")
    return [found[rank] for rank in range(len(pipes))]


def _death(process: ForkProcess) -> str:
    """How a rank ended that said nothing."""
    process.join(1.0)
    code = process.exitcode
    if code is None or code >= 0:
        return f"died without a word (exit code {code})"
    name = signal.Signals(-code).name
    return f"died without a word ({name}{', perhaps out of memory' if name == 'SIGKILL' else ''})"


def _child(work: Callable[[int], Any], rank: int, pipe: Connection, parent: int) -> None:
    """Run, and send what came out; die with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipe.send((True, work(rank)))
    except BaseException as error:
        pipe.send((False, "".join(traceback.format_exception_only(error)).strip() + f"\n{_where(error)}"))
    pipe.close()
    os._exit(0)


def _where(error: BaseException) -> str:
    """The innermost line of the error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"  at {Path(last.filename).name}:{last.lineno}, {last.line}"


def join(rank: int, n_ranks: int, device_type: str, store: str, limit_s: float) -> torch.device:
    """Meet the other ranks at the file `store`: gloo over CPU cores, a thread each, or NCCL over GPUs, one each."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if device_type == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        store=FileStore(store, n_ranks),
        rank=rank,
        world_size=n_ranks,
        timeout=timedelta(seconds=limit_s),
    )
    return device


def _run_rank(specs: Sequence[RunSpec], rank: int, store: str, limit_s: float, progress: Progress) -> list[RankReport]:
    """Join the others, then run."""
    n_ranks = specs[0].mesh.n_ranks
    device = join(rank, n_ranks, specs[0].device, store, limit_s)
    shared = FileStore(f"{store} of tokens", n_ranks)
    reports: list[RankReport] = []
    known: dict[tuple[object, ...], tuple[GroupWires, TellTokens]] = {}
    for spec in specs:
        shape = (*spec.mesh.axes.items(), spec.mesh.pp, spec.mesh.dp)
        if shape not in known:
            wires = GroupWires(spec.mesh, rank)
            known[shape] = (wires, _teller(wires, shared, f"tokens {len(known)}"))
        reports.append(_run_spec(spec, *known[shape], device, progress))
    dist.barrier()
    dist.destroy_process_group()
    return reports


def _run_spec(
    spec: RunSpec, wires: GroupWires, tell: TellTokens, device: torch.device, progress: Progress
) -> RankReport:
    report = RankReport(rank=wires.rank)
    with torch.inference_mode():
        Rank(spec, wires, tell, device, weights_of(spec), lambda: progress.note(wires.rank)).run(report)
    return report


def _teller(wires: GroupWires, store: Store, kind: str) -> TellTokens:
    """Tokens go by the host, as an engine's scheduler sends them: one rank of the last stage tells the other stages."""
    n_told = 0

    def tell(_step: int, chosen: torch.Tensor | None) -> torch.Tensor:
        nonlocal n_told
        n_told += 1
        if wires.mesh.pp == 1:
            assert chosen is not None
            return chosen
        key = f"{kind} {wires.place['dp']} {n_told}"
        if chosen is None:
            return torch.tensor([int(token) for token in store.get(key).decode().split()])
        if all(wires.place[axis] == 0 for axis in wires.mesh.axes):
            store.set(key, " ".join(str(token) for token in chosen.tolist()))
        return chosen

    return tell
