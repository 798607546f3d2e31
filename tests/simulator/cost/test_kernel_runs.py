"""Fits of a stack's kernels: made op by op, taken up again, whole or not there, in the user's data directory."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.errors import SpecError
from shardwise.hardware_specs.kernel_package import SOURCE
from shardwise.simulator.cost import kernel_runs
from shardwise.simulator.cost.kernel_runs import FitRun, run_fit
from shardwise.simulator.cost.stacks import stack_rows, stacks_of
from shardwise.simulator.cost.user_fits import (
    finished_fit,
    kernel_fit_path,
    kernel_fits_folder,
    parts_folder,
    user_kernel_fits,
)

H100 = get_chip("h100-sxm")
ABOUT = {"chip": "h100-sxm", "dtype": "bf16", "framework": "vllm", "version": "0", "kernel": "k", "device": "d"}


@pytest.fixture(autouse=True)
def _own_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))


def _matmuls(n: int = 120, **about: str) -> pd.DataFrame:
    sizes = [(64.0 * (1 + i % 8), 256.0 * (1 + i % 5), 128.0 * (1 + i)) for i in range(n)]
    rows = [{"m": m, "n": w, "k": k, "seconds": 4e-6 + 2.0 * m * w * k / 5e14} for m, w, k in sizes]
    return pd.DataFrame([ABOUT | {"op": "matmul"} | about | row for row in rows])


def _gathers(**about: str) -> pd.DataFrame:
    sizes = [(float(chips), 2.0**power) for chips in (2, 4, 8) for power in range(10, 31)]
    rows = [{"chips": k, "bytes": b, "mode": "nccl", "seconds": 1e-5 + b * (k - 1) / k / 3e11} for k, b in sizes]
    return pd.DataFrame(
        [ABOUT | {"op": "all_gather", "framework": "nccl", "dtype": "fp16"} | about | row for row in rows]
    )


def _run(frame: pd.DataFrame, folder: Path | None = None) -> FitRun:
    return FitRun(
        chip=H100, rows=stack_rows(frame, "vllm"), refused=Counter({"matmul: launch floor": 3}), source=SOURCE,
        command="a test", folder=folder or kernel_fits_folder(),
    )  # fmt: skip


BOTH = pd.concat([_matmuls(), _gathers()], ignore_index=True)


def test_a_stack_has_its_own_kernels_and_the_library_s_collectives_without_integers() -> None:
    frame = pd.concat([BOTH, _gathers(dtype="int8"), _matmuls(framework="sglang")], ignore_index=True)
    assert stacks_of(frame) == ("sglang", "vllm")
    rows = stack_rows(frame, "vllm")
    assert set(rows.frame["framework"]) == {"vllm", "nccl"}
    assert rows.left_out == {"collectives of integers": 63}


def test_of_several_kernels_for_a_shape_the_quickest_counts() -> None:
    slow = _matmuls(kernel="other").assign(seconds=lambda rows: 2.0 * rows["seconds"])
    rows = stack_rows(pd.concat([slow, _matmuls()], ignore_index=True), "vllm")
    assert set(rows.frame["kernel"]) == {"k"}
    assert rows.left_out == {"slower kernels of a shape": 120}


def test_a_fit_is_written_whole_with_what_was_refused() -> None:
    heard: list[str] = []
    path = run_fit(_run(BOTH), heard.append)
    fit = finished_fit(path, source=SOURCE)
    assert fit is not None
    assert {family.op for family in fit.families} == {"matmul", "collective"}
    assert len(heard) == len(fit.families) == 2
    assert fit.refused == {"matmul: launch floor": 3}
    assert path == kernel_fit_path(kernel_fits_folder(), "h100-sxm", "vllm")
    assert list(parts_folder().iterdir()) == []
    assert user_kernel_fits() == {("h100-sxm", "vllm"): fit}


def test_an_interrupted_fit_leaves_no_fit_and_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[str] = []
    whole = kernel_runs.fit_kernels

    def interrupted(chip: object, rows: pd.DataFrame, **options: object) -> object:
        fitted.append(str(rows["op"].iloc[0]))
        if len(fitted) == 2:
            raise KeyboardInterrupt
        return whole(chip, rows, **options)

    monkeypatch.setattr(kernel_runs, "fit_kernels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_fit(_run(BOTH))
    assert list(kernel_fits_folder().glob("*.json")) == []
    run_fit(_run(BOTH))
    assert fitted == ["all_gather", "matmul", "matmul"]


def test_a_half_written_fit_is_no_fit_and_an_older_one_stays_until_the_new_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = run_fit(_run(BOTH))
    good = path.read_text("utf-8")

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kernel_runs, "fit_kernels", broken)
    with pytest.raises(KeyboardInterrupt):
        run_fit(_run(BOTH))
    assert path.read_text("utf-8") == good
    path.write_text(good[: len(good) // 2], "utf-8")
    assert finished_fit(path, source=SOURCE) is None
    assert user_kernel_fits() == {}


def test_a_fit_to_another_version_is_never_taken_for_this_one() -> None:
    path = run_fit(_run(BOTH))
    path.write_text(path.read_text("utf-8").replace(SOURCE, "aiconfigurator-core 0.11.0"), "utf-8")
    assert finished_fit(path, source=SOURCE) is None
    assert user_kernel_fits() == {}


def test_parts_of_other_rows_are_fitted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _matmuls()
    run_fit(_run(rows))
    part = parts_folder() / "h100-sxm.vllm.matmul.json"
    part.write_text(kernel_fit_path(kernel_fits_folder(), "h100-sxm", "vllm").read_text("utf-8"), "utf-8")
    more = _matmuls(180)
    run_fit(_run(more))
    fit = finished_fit(kernel_fit_path(kernel_fits_folder(), "h100-sxm", "vllm"), source=SOURCE)
    assert fit is not None
    assert sum(family.n_rows + family.n_held_out for family in fit.families) == 180


def test_too_few_rows_for_any_fit_name_what_is_missing() -> None:
    run = _run(_matmuls(12))
    assert run.n_families == 0
    with pytest.raises(SpecError, match="bf16 matmul: 12 of 60 rows"):
        run_fit(run)


def test_a_fit_may_be_written_elsewhere(tmp_path: Path) -> None:
    path = run_fit(_run(_matmuls(), folder=tmp_path))
    assert path.parent == tmp_path
    assert list(kernel_fits_folder().glob("*.json")) == []


def test_a_fit_finds_the_rate_that_was_put_in() -> None:
    fit = finished_fit(run_fit(_run(_matmuls(300))), source=SOURCE)
    assert fit is not None
    (family,) = fit.families
    assert family.median_error < 0.1  # rows have no noise, but the form rounds up to whole tiles
    assert np.isclose(family.n_rows + family.n_held_out, 300)
