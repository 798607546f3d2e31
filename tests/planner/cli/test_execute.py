import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.planner.cli import app

_RUN = CliRunner()


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    arguments = ["--on", "h100-sxm:4", "--tp", "4", "--input", "64", "--output", "8", "--batch", "4", "--json"]
    made = _RUN.invoke(app, ["estimate", "llama-3.1-8b", *arguments])
    assert made.exit_code == 0, made.output
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    file.write_text(made.stdout)
    return file


def test_a_plan_is_run_small_and_found_true(plan) -> None:
    made = _RUN.invoke(app, f"execute {plan} --ranks 2 --scale-model 64 --timed 1 --json".split())
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert found["tokens_equal"]
    assert found["max_relative_error"] <= 1e-4
    assert found["bytes"]
    assert all(pair["priced"] == pair["counted"] for pair in found["bytes"].values())
    assert found["memory"]["measured"] > 0
    assert any(step["predicted_s"] and step["measured_s"] for step in found["steps"])
    assert any("shrunk to 2x1x1" in note for note in found["notes"])


def test_a_plan_is_traced_at_full_size(plan) -> None:
    made = _RUN.invoke(app, f"execute {plan} --trace".split())
    assert made.exit_code == 0, made.output
    assert "equal" in made.stdout
    assert "on 4 ranks" in made.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--device tpu", "no device 'tpu'; known: cpu, cuda"),
        ("--dtype int8", "dtype 'int8' is not executed"),
        ("--ranks 0", "--ranks 0 must be at least 1"),
        ("--batch 0", "--batch 0 must be at least 1"),
        ("--scale-model 0", "--scale-model 0 must be at least 1"),
        ("--kernels cuda", "no kernels 'cuda'"),
        ("--rank 7", "no plan of rank 7"),
        ("--limit soon", "soon"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(plan, arguments, says) -> None:
    made = _RUN.invoke(app, f"execute {plan} {arguments}".split())
    assert made.exit_code == 2
    assert says in made.stderr


def test_what_does_not_fit_is_refused_before_it_is_allocated(plan, monkeypatch) -> None:
    from shardwise.validate.execute import run

    monkeypatch.setattr(run.os, "sysconf", lambda _name: 1000)
    made = _RUN.invoke(app, f"execute {plan} --ranks 2".split())
    assert made.exit_code == 2
    assert "shrink the model with --scale-model" in made.stderr


def test_ranks_without_gpus_are_refused(plan, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    made = _RUN.invoke(app, f"execute {plan} --device cuda --scale-model 64".split())
    assert made.exit_code == 2
    assert "4 ranks need as many GPUs, torch sees 1" in made.stderr


def test_a_run_that_takes_too_long_is_ended_with_exit_code_1(plan) -> None:
    made = _RUN.invoke(app, f"execute {plan} --scale-model 64 --limit 1ms".split())
    assert made.exit_code == 1
    assert "a rank hangs, or --limit is too short" in made.stderr
