"""Kernels are fitted from the terminal: imported or measured here, into the user's own folder, every refusal told."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from shardwise.hardware_specs import kernel_database
from shardwise.hardware_specs.measurement import Measurement, write_measurements
from shardwise.planner.cli import app
from typer.testing import CliRunner

pytest.importorskip("pyarrow")

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data directory, and a small database of kernels of an h100-sxm."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    monkeypatch.setattr(kernel_database, "database_folder", lambda: tmp_path / "database")
    rows = [
        {"m": m, "n": n, "k": 4096, "latency": 4e-3 + 2e3 * m * n * 4096 / 6e14}
        for m in range(16, 512, 16)
        for n in (1024, 4096, 8192)
    ]
    about = {"device": "NVIDIA H100", "kernel_source": "cublas", "gemm_dtype": "bfloat16"}
    frame = pd.DataFrame([about | row for row in [*rows, rows[0] | {"latency": 0.0}, rows[1] | {"latency": 1e-9}]])
    path = tmp_path / "database" / "data" / "h100_sxm" / "gemm" / "vllm" / "0.24.0" / "gemm_perf.parquet"
    path.parent.mkdir(parents=True)
    frame.to_parquet(path)
    return tmp_path / "data"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a plain, wide terminal would."""
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, ["calibrate", *(str(a) for a in arguments)])


IMPORT = ("--from", "aiconfigurator", "--chip", "H100")


def test_an_import_tells_every_refusal_and_leaves_its_fit_in_the_user_s_folder(run: Run, data: Path) -> None:
    done = run(*IMPORT)
    assert done.exit_code == 0, done.output
    told = "93 of 95 rows stand; vllm, time or size is no positive number: 1; vllm, above the dense peak: 1"
    assert f"h100-sxm matmul: {told}" in done.stderr
    assert "h100-sxm under vllm, from aiconfigurator-core 0.12.0" in done.stdout
    assert "bf16 matmul" in done.stdout
    assert "refused, matmul: above the dense peak: 1" in done.stdout
    assert [path.name for path in (data / "kernels").glob("*.json")] == ["h100-sxm.vllm.json"]


def test_what_was_finished_stands_until_it_is_asked_for_again(run: Run, data: Path) -> None:
    run(*IMPORT)
    written = (data / "kernels" / "h100-sxm.vllm.json").stat().st_mtime_ns
    again = run(*IMPORT)
    assert "finished before" in again.stderr
    assert (data / "kernels" / "h100-sxm.vllm.json").stat().st_mtime_ns == written
    run(*IMPORT, "--again")
    assert (data / "kernels" / "h100-sxm.vllm.json").stat().st_mtime_ns > written


def test_a_folder_takes_the_fits_of_a_release(run: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fits"
    folder.mkdir()
    done = run(*IMPORT, "--output", folder, "--json")
    (fit,) = json.loads(done.stdout)
    assert (fit["chip"], fit["stack"]) == ("h100-sxm", "vllm")
    assert fit["command"] == "shardwise calibrate --from aiconfigurator --chip h100-sxm"
    assert fit == json.loads((folder / "h100-sxm.vllm.json").read_text("utf-8"))
    assert not list((data / "kernels").glob("*.json"))


def test_a_user_s_own_fit_is_shown_and_drawn(run: Run, data: Path, tmp_path: Path) -> None:
    run(*IMPORT)
    page = tmp_path / "page.html"
    done = run("--show", "--plot", page)
    assert done.exit_code == 0, done.output
    assert "made by: shardwise calibrate --from aiconfigurator --chip h100-sxm" in done.stdout
    assert "half of the 90 % interval" in page.read_text("utf-8")


def test_too_few_measured_rows_say_what_is_missing_and_are_kept(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = pytest.importorskip("shardwise.kernels.bench")

    def main(arguments: Sequence[str]) -> int:
        rows = [_measured(m) for m in (64, 128)]
        write_measurements(rows, Path(arguments[arguments.index("--output") + 1]))
        sys.stdout.write("a measured row\n")
        return 0

    monkeypatch.setattr(bench, "main", main)
    monkeypatch.setattr("shardwise.validate.execute.bench.measure", lambda *_: None)
    done = run("--device", "cpu")
    assert done.exit_code == 2
    assert "a measured row" in done.stderr
    assert "too few measured rows for a fit: cpu-host under torch, fp32 matmul: 2 of 60 rows" in done.stderr
    assert (data / "measured" / "cpu.csv").exists()


def _measured(m: int) -> Measurement:
    return Measurement(
        chip="cpu-host", quantity="fp32 matmul by torch", unit="s", shape=f"m={m} n=64 k=64", p20=1e-2, p50=1e-2,
        p80=1e-2, n_repeats=3, device="d", software="torch 2", command="c", commit="c", date="2026-01-01",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "calibrate from what?"),
        (("--from", "aiconfigurator", "--device", "cpu"), "give one of them"),
        (("--device", "tpu"), "no device 'tpu'; known: cpu, cuda"),
        (("--chip", "h100"), "go with --from aiconfigurator"),
        (("--show", "--again"), "go with --from aiconfigurator"),
        (("--plot", "page.html"), "--plot draws what --show prints"),
        (("--output", "fit.yaml"), "-o needs a fit to write"),
        (("--from", "aiconfigurator", "--chip", "tpu-v4"), "no chip with imported kernels 'tpu-v4'"),
        (("--from", "aiconfigurator", "--output", "no-such-folder"), "is no folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, data: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert told in done.stderr
