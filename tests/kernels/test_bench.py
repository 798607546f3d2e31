import pytest
from shardwise.hardware_specs.measurement import read_measurements
from shardwise.kernels import bench
from shardwise.kernels.bench_case import BenchCase, Runs
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
