"""Measure this machine as the chip ``cpu-host`` and write the rows the catalogue reads.

One process, one thread: fp32 matmul, a long read of memory, and bytes from one process to another through a socket.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import datetime
import multiprocessing
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shardwise.hardware_specs.measurement import Measurement, write_measurements

N_REPEATS = 15
N_PROCESSES = 8
COMMAND = "python benchmarks/cpu_host.py"
TARGET = Path(__file__).parent.parent / "hardware_specs" / "data" / "measured" / "cpu-host" / "host.csv"


def rates(work: float, run: Callable[[], object]) -> list[float]:
    """Work per second of thread time, over repeats, after one run to warm up."""
    run()
    found = []
    for _ in range(N_REPEATS):
        started = time.thread_time()
        run()
        found.append(work / (time.thread_time() - started))
    return found


def matmul() -> tuple[str, list[float]]:
    """A square fp32 matmul that does not fit in cache."""
    n = 1536
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    return f"{n}x{n}x{n}", rates(2.0 * n**3, lambda: a @ b)


def memory_read() -> tuple[str, list[float]]:
    """A sum over far more bytes than any cache."""
    values = np.ones(2**26, np.float32)
    return f"{values.nbytes} bytes", rates(float(values.nbytes), values.sum)


def _send(port: socket.socket, n_bytes: int, times: int) -> None:
    block = bytes(n_bytes)
    for _ in range(times):
        port.sendall(block)
    port.close()


def process_to_process() -> tuple[str, list[float]]:
    """Bytes received from another process, by the clock: both ends work at once."""
    n_bytes = 2**26
    ours, theirs = socket.socketpair()
    sender = multiprocessing.get_context("fork").Process(target=_send, args=(theirs, n_bytes, N_REPEATS + 1))
    sender.start()
    theirs.close()
    buffer, found = bytearray(n_bytes), []
    for _ in range(N_REPEATS + 1):
        started, got = time.perf_counter(), 0
        while got < n_bytes:
            got += ours.recv_into(memoryview(buffer)[got:])
        found.append(n_bytes / (time.perf_counter() - started))
    sender.join()
    return f"{n_bytes} bytes", found[1:]


def cpu_name() -> str:
    """The processor as the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure and write."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    ram = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    cases = {
        "fp32 matmul": ("flop/s", *matmul()),
        "memory read": ("B/s", *memory_read()),
        "process to process": ("B/s", *process_to_process()),
        "memory of a process": ("B", f"memory of the host over {N_PROCESSES}", [ram / N_PROCESSES]),
        "processes": ("1", "processes this host is cut into", [float(N_PROCESSES)]),
    }
    rows = []
    for quantity, (unit, shape, found) in cases.items():
        p20, p50, p80 = (float(f"{value:.6g}") for value in np.percentile(found, (20, 50, 80)))
        rows.append(
            Measurement(
                chip="cpu-host", quantity=quantity, unit=unit, shape=shape, p20=p20, p50=p50, p80=p80,
                n_repeats=len(found), device=cpu_name(), software=f"python {platform.python_version()}, numpy {np.__version__}",
                command=COMMAND, commit=commit or "unknown", date=datetime.date.today().isoformat(),
            )
        )  # fmt: skip
        print(f"{quantity:22s} {p50:.4g} {unit}  ({p20:.4g} to {p80:.4g})")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    write_measurements(rows, TARGET)


if __name__ == "__main__":
    sys.exit(main())
