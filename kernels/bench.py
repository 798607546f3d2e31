"""``python -m shardwise.kernels.bench``: time every kernel and torch's own beside it, and write measured rows.

On a CPU only torch is timed, in fp32, in one thread's CPU time; each row says so. Rows that are already in the file are
kept and not measured again: an interrupted bench goes on where it stopped.
"""

import argparse
import datetime
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch

from ..hardware_specs.documents import write_atomically
from ..hardware_specs.errors import SpecError
from ..hardware_specs.measurement import Measurement, dump_measurements, read_measurements
from .bench_case import BenchCase, Device
from .catalogue import OPS
from .timing import time_runs

COMMAND = "python -m shardwise.kernels.bench"


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; 1 if a case broke, 2 on bad input."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--op", action="append", choices=OPS, help="only this op (may be repeated)")
    parser.add_argument("--chip", help="the chip's name in hardware_specs; the device's own name unless given")
    parser.add_argument(
        "--output", "-o", type=Path, help="CSV of measured rows; rows in it are kept; <chip>-kernels.csv"
    )
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; bench with --device cpu")
    torch.set_num_threads(1)
    chip = chosen.chip or _chip(chosen.device)
    try:
        return _bench(chosen.device, chip, tuple(chosen.op or OPS), chosen.output or Path(f"{chip}-kernels.csv"))
    except SpecError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _bench(device: Device, chip: str, ops: tuple[str, ...], target: Path) -> int:
    """Every case of every op that the file does not have yet, the file whole after each; 1 if any broke.

    What the device lacks a format for is left out with a word, and is no failure.
    """
    rows = list(read_measurements(target.read_text("utf-8").splitlines(), str(target))) if target.exists() else []
    known = {(row.quantity, row.shape) for row in rows if row.chip == chip}
    n_failed = 0
    for op in ops:
        for case in import_module(f".{op}", __package__).bench_cases(device):
            try:
                for row in _measure(case, device, chip, known):
                    rows.append(row)
                    write_atomically(target, dump_measurements(rows))
                    print(f"{row.quantity:42s} {row.shape:34s} {row.p50:.4g} s ({row.p20:.4g} to {row.p80:.4g})")  # noqa: T201
            except Exception as error:  # torch, triton and the driver each have their own; the other cases go on
                n_failed += not isinstance(error, SpecError)
                print(f"{case.op} left out: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
    return 1 if n_failed else 0


def _measure(case: BenchCase, device: Device, chip: str, known: set[tuple[str, str]]) -> Iterator[Measurement]:
    """Our kernel (on a GPU) and torch's own, unless the file has them."""
    makers = ("shardwise", "torch") if device == "cuda" else ("torch",)
    shape = " ".join(f"{name}={size}" for name, size in case.shape.items())
    wanted = [maker for maker in makers if (f"{case.dtype} {case.op} by {maker}", shape) not in known]
    if not wanted:
        return
    runs = case.prepare(device, torch.Generator(device=device).manual_seed(0))
    for maker in wanted:
        timing = time_runs(runs.kernel if maker == "shardwise" else runs.torch, device)
        seconds = torch.tensor(timing.seconds, dtype=torch.float64)
        p20, p50, p80 = (
            float(f"{value:.6g}") for value in seconds.quantile(torch.tensor([0.2, 0.5, 0.8]).double()).tolist()
        )
        yield Measurement(
            chip=chip, quantity=f"{case.dtype} {case.op} by {maker}", unit="s", shape=shape,
            p20=p20, p50=p50, p80=p80, n_repeats=len(seconds),
            device=f"{device_name(device)}, {timing.how}", software=_software(device),
            command=f"{COMMAND} --device {device}", commit=commit_now(), date=datetime.date.today().isoformat(),
        )  # fmt: skip


def _chip(device: Device) -> str:
    return "cpu-host" if device == "cpu" else torch.cuda.get_device_name().lower().replace(" ", "-")


def device_name(device: Device) -> str:
    """The device as its system names it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _software(device: Device) -> str:
    versions = {"torch": torch.__version__, "triton": importlib.metadata.version("triton")}
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    if device == "cuda":
        versions["driver"] = _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {v}" for name, v in versions.items())])


def commit_now() -> str:
    """The commit of the tree the bench ran from, and whether that was changed since."""
    return _said_by("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _said_by(*command: str) -> str:
    """What a program says, or that it is unknown where there is none."""
    try:
        made = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return made.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
