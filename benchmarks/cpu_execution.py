"""Predicted beside measured seconds of small Llama-like models on this machine's cores: calibrate, predict, execute.

The executor's steps are timed inside models of other sizes, fitted, and added up to passes of three models that were not
among them. Seconds are a rank's CPU time, as other work on the cores stretches wall time; that is told beside it. What is left
of the other work is told too: the spread of the same passes over rounds, and that of one matmul.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.kernel_rows import kernel_frame
from shardwise.hardware_specs.measurement import Measurement, read_measurements, shipped_measurements
from shardwise.simulator.cost.calibrated import calibration_of
from shardwise.simulator.cost.kernel_fit import fit_kernels
from shardwise.simulator.cost.price import Engine
from shardwise.simulator.cost.sanity import sane
from shardwise.simulator.cost.stacks import stack_rows
from shardwise.validate.execute import bench
from shardwise.validate.execute.bench_fit import engine_over, fit_executor, priced_pass_s
from shardwise.validate.execute.ranks import run_ranks

CHIP = "cpu-host"
# d_model, d_ff, heads, K/V heads, d_head, layers, vocabulary; then sequences and prompt tokens
SIZES = {
    "small": ((256, 704, 4, 2, 64, 4, 4096), (4, 64)),
    "medium": ((512, 1408, 8, 4, 64, 6, 8192), (4, 64)),
    "large": ((1024, 2816, 16, 8, 64, 4, 8192), (4, 48)),
}
LIMITS = {1: 0.15, 2: 0.30}
N_DECODE_STEPS = 8
# One of the runs that are calibrated on: what it takes now, over what it took then, is the machine and not the model.
ANCHOR = "d_model=640 batch=4 new=90 tp=1 layout=1"


def calibrated(rows_at: Path) -> tuple[Engine, Sequence[Measurement]]:
    """Time the executor's steps, as far as the file lacks them, and fit; the rows beside."""
    chip = get_chip(CHIP)
    bench.measure(rows_at, CHIP, lambda said: print(f"  {said}", flush=True))
    rows = read_measurements(rows_at.read_text("utf-8").splitlines(), str(rows_at))
    good, refused = sane(chip, kernel_frame(rows))
    found = stack_rows(good, bench.STACK)
    kernels = fit_kernels(chip, found.frame, stack=bench.STACK, source=str(rows_at), command="", refused=refused)
    for family in kernels.families:
        print(f"  {family.variant:10s} {family.op:18s} {family.kv:10s} median error {family.median_error:.3f}")
    return engine_over(chip, kernels, fit_executor(chip, kernels, rows).constants), rows


def one_matmul() -> float:
    """CPU seconds of one matmul, the same at every call."""
    x = torch.ones(512, 512)
    started = time.process_time()
    for _ in range(10):
        x @ x
    return (time.process_time() - started) / 10


def spread(values: list[float]) -> str:
    """Median, and from the least to the most."""
    return f"{statistics.median(values) * 1e3:9.3f} ({min(values) * 1e3:.3f} to {max(values) * 1e3:.3f})"


def main() -> None:
    """Print a line a model, number of ranks and phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="executions of every model, one after the other")
    parser.add_argument("--rows", type=Path, help="file of measured rows to add to; a new one unless given")
    parser.add_argument("--known", action="store_true", help="predict with the fit that ships, or your own")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chip = get_chip(CHIP)
    with tempfile.TemporaryDirectory(prefix="shardwise-") as folder:
        if options.known:
            engine, rows = calibration_of(chip, bench.STACK).engine, shipped_measurements(CHIP, "executor.csv")
        else:
            engine, rows = calibrated(options.rows or Path(folder) / "rows.csv")
    specs = {
        (name, tp): bench.small_run(
            bench.llama(name, *sizes), tp=tp, layout="ws-1d-allreduce", batch=batch, input_tokens=tokens,
            output_tokens=N_DECODE_STEPS, n_timed=3,
        )
        for tp in LIMITS for name, (sizes, (batch, tokens)) in SIZES.items()
    }  # fmt: skip
    cpu_s: dict[tuple[str, int, str], list[float]] = {}
    wall_s: dict[tuple[str, int, str], list[float]] = {}
    anchor = next(run for run in bench.timed_runs() if run.words == ANCHOR)
    then = {row.shape: row.p50 for row in rows if row.quantity == f"{bench.WHOLE} by {bench.STACK}"}
    drifts: dict[str, list[float]] = {"prefill": [], "decode": []}
    matmuls = []
    for _ in range(options.rounds):
        matmuls.append(one_matmul())
        (reports,) = run_ranks([anchor.spec], limit_s=600.0)
        for phase, found in drifts.items():
            now_s = statistics.median(sum(run) for run in zip(*bench.phase_s(reports, phase).values(), strict=True))
            found.append(now_s / then[f"{ANCHOR} phase={phase}"])
        for (name, tp), spec in specs.items():
            (reports,) = run_ranks([spec], limit_s=600.0)
            for phase in ("prefill", "decode"):
                runs = zip(*bench.phase_s(reports, phase).values(), strict=True)
                cpu_s.setdefault((name, tp, phase), []).append(statistics.median(sum(run) for run in runs))
                wall = statistics.median(max(r.wall_s[i][phase] for r in reports) for i in range(spec.n_timed))
                wall_s.setdefault((name, tp, phase), []).append(wall)
    print(f"milliseconds a pass, median of {options.rounds} rounds (least to most); load {os.getloadavg()[0]:.1f}")
    for phase, found in drifts.items():
        print(f"a {phase} that was calibrated on takes x {statistics.median(found):.3f} of what it took then")
    print("model   tp  phase    predicted   measured, CPU time of a rank      error   without that  wall time")
    errors: dict[int, list[float]] = {}
    for (name, tp, phase), values in cpu_s.items():
        predicted = priced_pass_s(specs[name, tp], phase, chip, engine)
        error = predicted / statistics.median(values) - 1.0
        errors.setdefault(tp, []).append(abs(error))
        print(
            f"{name:7s} {tp:2d}  {phase:7s}  {predicted * 1e3:9.3f}  {spread(values):32s}  {error:+6.1%}"
            f"{'' if abs(error) <= LIMITS[tp] else ' *'}  "
            f"{(1.0 + error) * statistics.median(drifts[phase]) - 1.0:+6.1%}  {spread(wall_s[name, tp, phase])}"
        )
    for tp, found in errors.items():
        within = sum(error <= LIMITS[tp] for error in found)
        print(
            f"tp {tp}: {within} of {len(found)} within {LIMITS[tp]:.0%}; median {statistics.median(found):.1%}, "
            f"worst {max(found):.1%}"
        )
    print(f"one matmul of 512x512x512, ms: {spread(matmuls)}")


if __name__ == "__main__":
    main()
