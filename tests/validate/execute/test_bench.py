"""The executor's steps are timed in small models, and what ships of this machine is what its rows say."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.kernel_rows import kernel_frame
from shardwise.hardware_specs.measurement import Measurement, read_measurements, shipped_measurements
from shardwise.simulator.cost.calibrated import calibration_of, load_engine_fits
from shardwise.simulator.cost.kernel_fit import fit_kernels
from shardwise.simulator.cost.kernel_times import shipped_kernel_fits
from shardwise.simulator.cost.sanity import sane
from shardwise.simulator.cost.stacks import stack_rows
from shardwise.validate.execute import bench
from shardwise.validate.execute.bench_fit import fit_executor
from shardwise.validate.execute.priced import predicted_step_s
from shardwise.validate.execute.ranks import run_ranks

CHIP = get_chip("cpu-host")
TINY = bench.llama("tiny", 32, 64, 2, 1, 16, 2, 128)


def tiny_run(tp: int, layout: str = "ws-1d-allreduce") -> bench.TimedRun:
    spec = bench.small_run(TINY, tp=tp, layout=layout, batch=2, input_tokens=6, output_tokens=2, n_timed=2)
    return bench.TimedRun(spec=spec, words=f"d_model=32 batch=2 new=6 tp={tp} layout=1")


def test_every_step_of_a_rank_is_timed_in_its_place() -> None:
    rows = bench.measured_rows(tiny_run(1), "cpu-host")
    shapes = {row.quantity.removesuffix(" by shardwise"): row.shape for row in rows}
    assert shapes["fp32 decode attention"].startswith("batch=2 context=7.5 heads=2 kv_heads=1 d_head=16")
    assert {row.shape.split("mode=")[1] for row in rows if "pointwise" in row.quantity} == {
        "embed", "norm", "rotate", "append", "activate", "add", "sample",
    }  # fmt: skip
    assert {"m=12 n=64 k=32 copies=2", "m=2 n=128 k=32 copies=1", "m=12 n=32 k=64 copies=1"} <= {
        row.shape for row in rows
    }
    assert not any("reduce" in row.quantity or "gather" in row.quantity for row in rows)
    assert len(kernel_frame(rows)) == len(rows)


def test_two_ranks_give_collectives_of_the_bytes_that_are_priced() -> None:
    rows = bench.measured_rows(tiny_run(2, "ws-1d-sequence"), "cpu-host")
    assert "bytes=1536 chips=2 mode=gloo" in {row.shape for row in rows if row.quantity.startswith("all_gather")}
    assert not any("matmul" in row.quantity for row in rows)


def test_an_interrupted_bench_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [replace(tiny_run(1), words=f"d_model={n} batch=1 new=1 tp=1 layout=1") for n in (1, 2)]
    timed: list[str] = []

    def measured_rows(run: bench.TimedRun, chip: str) -> list[Measurement]:
        if len(timed) == 3:
            raise KeyboardInterrupt
        timed.append(run.words)
        (row,) = [row for row in shipped_measurements(chip, "host.csv") if row.quantity == "memory read"]
        return [row.model_copy(update={"quantity": "pass by shardwise", "shape": f"{run.words} phase=decode"})]

    monkeypatch.setattr(bench, "timed_runs", lambda: iter(runs))
    monkeypatch.setattr(bench, "measured_rows", measured_rows)
    target = tmp_path / "rows.csv"
    with pytest.raises(KeyboardInterrupt):
        bench.measure(target, "cpu-host")
    timed.clear()
    bench.measure(target, "cpu-host")
    assert timed == [runs[1].words]
    rows = read_measurements(target.read_text().splitlines(), "rows")
    assert len(rows) == 4
    assert [row.n_repeats for row in bench.merged(rows)] == [30, 30]


def test_the_shipped_fits_of_this_machine_are_those_of_its_rows() -> None:
    rows = shipped_measurements("cpu-host", "[ek]*.csv")
    good, refused = sane(CHIP, kernel_frame(rows))
    shipped = shipped_kernel_fits()["cpu-host", "shardwise"]
    frame = stack_rows(good, "shardwise").frame
    about = {"source": shipped.source, "command": shipped.command, "refused": refused}
    again = fit_kernels(CHIP, frame, stack="shardwise", **about)
    assert [family.key for family in again.families] == [family.key for family in shipped.families]
    for new, old in zip(again.families, shipped.families, strict=True):
        assert new.constants == pytest.approx(old.constants, rel=0.01)
        assert new.median_error == pytest.approx(old.median_error, abs=0.01)
    engine = load_engine_fits()["shardwise"]
    assert fit_executor(CHIP, shipped, rows).constants == pytest.approx(engine.constants)


def test_every_step_of_a_run_here_is_predicted_and_none_without_fits_of_this_machine() -> None:
    calibration = calibration_of(CHIP, "shardwise")
    assert calibration.origin == "fitted"
    assert calibration.engine.on_host
    assert calibration_of(get_chip("h100-sxm"), "shardwise").engine.kernels is None
    spec = replace(tiny_run(1).spec, n_timed=1)
    predicted = predicted_step_s(spec, CHIP, "shardwise")
    (reports,) = run_ranks([spec], limit_s=100)
    assert set(reports[0].step_s[0]) == set(predicted)
    assert all(seconds > 0 for seconds in predicted.values())
