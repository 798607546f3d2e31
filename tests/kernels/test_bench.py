from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.hardware_specs.measurement import read_measurements
from shardwise.kernels import bench
from shardwise.kernels import timing as timing_module
from shardwise.kernels.bench_case import BenchCase, Runs
from shardwise.kernels.catalogue import OPS
from shardwise.models.ops import elementwise_work


@pytest.fixture
def cases(monkeypatch):
    """Two cases that count how often they are run; the second breaks until it is told not to."""
    state = {"runs": 0, "breaks": True}

    def run() -> None:
        state["runs"] += 1

    def broken() -> None:
        if state["breaks"]:
            raise KeyboardInterrupt
        run()

    class Module:
        @staticmethod
        def bench_cases(device):
            for name, torch_run in (("first", run), ("second", broken)):
                runs = Runs(kernel=run, torch=torch_run)
                work = elementwise_work({}, {})
                yield BenchCase(
                    op=name, shape={"n": 1}, dtype="fp32", work=work, prepare=lambda _d, _g, runs=runs: runs
                )

    monkeypatch.setattr(bench, "import_module", lambda *_: Module)
    return state


def test_an_interrupted_bench_keeps_its_rows_and_goes_on(cases, tmp_path) -> None:
    target = tmp_path / "rows.csv"
    arguments = ["--device", "cpu", "--op", "matmul", "-o", str(target)]
    with pytest.raises(KeyboardInterrupt):
        bench.main(arguments)
    (row,) = read_measurements(target.read_text().splitlines(), "rows")
    assert row.quantity == "fp32 first by torch"
    assert "one thread, CPU time, torch path" in row.device
    cases["breaks"] = False
    assert bench.main(arguments) == 0
    rows = read_measurements(target.read_text().splitlines(), "rows")
    assert rows[0] == row
    assert [r.quantity for r in rows] == ["fp32 first by torch", "fp32 second by torch"]
    assert rows[1].n_repeats >= 15


def test_a_file_that_holds_no_rows_is_refused_and_kept(tmp_path, capsys) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("a,b\n1,2\n")
    assert bench.main(["--device", "cpu", "--op", "matmul", "-o", str(target)]) == 2
    assert "rows.csv" in capsys.readouterr().err
    assert target.read_text() == "a,b\n1,2\n"


def test_a_case_that_breaks_is_left_out_and_the_others_go_on(cases, monkeypatch, tmp_path, capsys) -> None:
    cases["breaks"] = False
    plain = bench.time_runs
    outcomes = iter([RuntimeError("out of memory"), SpecError("fp8 (e4m3) needs sm_89 or newer"), None, None])

    def time_runs(run, device):
        if outcome := next(outcomes):
            raise outcome
        return plain(run, device)

    monkeypatch.setattr(bench, "time_runs", time_runs)
    arguments = ["--device", "cpu", "--op", "matmul", "-o", str(tmp_path / "rows.csv")]
    assert bench.main(arguments) == 1
    said = capsys.readouterr().err
    assert "first left out: RuntimeError: out of memory" in said
    assert "second left out: SpecError: fp8" in said
    assert bench.main(["--device", "cpu", "--op", "matmul", "-o", str(tmp_path / "rows.csv")]) == 0


def test_rows_name_the_chip_and_go_to_its_file_unless_told_otherwise(cases, monkeypatch, tmp_path) -> None:
    cases["breaks"] = False
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # neither git nor a driver's tools
    assert bench.main(["--device", "cpu", "--op", "matmul"]) == 0
    assert bench.main(["--device", "cpu", "--op", "matmul", "--chip", "other", "-o", "cpu-host-kernels.csv"]) == 0
    rows = read_measurements((tmp_path / "cpu-host-kernels.csv").read_text().splitlines(), "rows")
    assert [row.chip for row in rows] == ["cpu-host", "cpu-host", "other", "other"]
    assert {row.commit for row in rows} == {"unknown"}


def test_every_op_has_cases_and_torch_runs_each_of_them_on_a_cpu(generator) -> None:
    found = [case for op in OPS for case in import_module(f"shardwise.kernels.{op}").bench_cases("cpu")]
    assert {case.op.split()[0] for case in found} >= set(OPS)
    names = [(case.op, tuple(case.shape.items())) for case in found]
    assert len(names) == len(set(names))
    for case in {case.op: case for case in found}.values():
        case.prepare("cpu", generator).torch()


def test_cases_of_a_gpu_name_shapes_and_work_without_one() -> None:
    for op in OPS:
        for case in import_module(f"shardwise.kernels.{op}").bench_cases("cuda"):
            assert case.work.moved_bytes > 0
            assert (
                case.dtype == ("bf16" if case.op.split()[0] not in ("gating", "sampling") else "fp32")
                or "merge" in case.op
            )


class _Gpu:
    """Stands for torch's CUDA calls, and keeps their order."""

    def __init__(self, monkeypatch, *, can_capture: bool) -> None:
        self.calls: list[str] = []
        log, empty = self.calls, torch.empty

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                log.append("record")

            def elapsed_time(self, _other) -> float:
                return 2.0

        class Graph:
            def replay(self) -> None:
                log.append("replay")

        class Flush:
            def zero_(self) -> None:
                log.append("flush")

        @contextmanager
        def graph(_graph):
            log.append("capture")
            yield
            if not can_capture:
                raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("wait"))
        monkeypatch.setattr(torch, "empty", lambda *a, **k: Flush() if k.get("device") == "cuda" else empty(*a, **k))


def test_a_gpu_replays_a_graph_between_events_after_flushing(monkeypatch) -> None:
    gpu = _Gpu(monkeypatch, can_capture=True)
    timing = timing_module.time_runs(lambda: gpu.calls.append("run"), "cuda")
    assert gpu.calls[:4] == ["run", "wait", "capture", "run"]
    assert gpu.calls[4:-1] == ["flush", "record", "replay", "record"] * len(timing.seconds)
    assert gpu.calls[-1] == "wait"
    assert set(timing.seconds) == {2e-3}
    assert timing.how == "a graph between device events, L2 flushed"


def test_what_cannot_be_a_graph_is_launched(monkeypatch) -> None:
    gpu = _Gpu(monkeypatch, can_capture=False)
    timing = timing_module.time_runs(lambda: gpu.calls.append("run"), "cuda")
    assert gpu.calls[5:9] == ["flush", "record", "run", "record"]
    assert timing.how == "launches between device events, L2 flushed"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("op", OPS)
def test_a_gpu_times_our_kernel_and_torch_s(op, tmp_path, capsys) -> None:
    target = tmp_path / "rows.csv"
    assert bench.main(["--device", "cuda", "--op", op, "-o", str(target)]) == 0, capsys.readouterr().err
    rows = read_measurements(target.read_text().splitlines(), "rows")
    assert {row.quantity.split()[-1] for row in rows} == {"shardwise", "torch"}
    assert all("L2 flushed" in row.device and "driver" in row.software for row in rows)
