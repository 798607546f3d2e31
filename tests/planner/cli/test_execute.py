import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.planner.cli import app

_RUN = CliRunner()


def _written(folder: Path, command: str) -> Path:
    """The file of plans that a command prints."""
    made = _RUN.invoke(app, [*command.split(), "--json"])
    assert made.exit_code == 0, made.output
    file = folder / "plan.json"
    file.write_text(made.stdout)
    return file


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    command = "estimate llama-3.1-8b --on h100-sxm:4 --tp 4 --input 64 --output 8 --batch 4"
    return _written(tmp_path_factory.mktemp("plan"), command)


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


@pytest.mark.parametrize(
    "planned",
    [
        "estimate mixtral-8x7b --prefill dp/heads/exchange --decode dp/heads/exchange",
        "estimate deepseek-v3.2 --weights fp8 --prefill ws-1d-sequence/heads/expert --decode ws-1d-allreduce/context/expert",
        "estimate qwen3-next-80b-a3b --prefill ws-1d-allreduce/heads/tensor --decode ws-1d-allreduce/batch/tensor",
        "estimate gemma-2-9b --prefill wg-x/heads --decode ws-2d/batch",
        "estimate rwkv-4-7b --prefill ws-1d/heads --decode ws-1d/batch",
    ],
    ids=lambda text: text.split()[1],
)
def test_plans_of_every_family_are_run_small_and_found_true(planned, tmp_path) -> None:
    plan = _written(tmp_path, f"{planned} --on h200-sxm:8 --tp 8 --input 64 --output 4 --batch 16")
    made = _RUN.invoke(app, f"execute {plan} --ranks 4 --scale-model 64 --timed 0 --batch 8 --json".split())
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert found["tokens_equal"]
    assert found["max_relative_error"] <= 1e-4
    assert all(pair["priced"] == pair["counted"] for pair in found["bytes"].values())
    assert ("experts in turn" in " ".join(found["notes"])) == ("exchange" in planned)


def test_a_plan_is_traced_at_full_size(plan) -> None:
    made = _RUN.invoke(app, f"execute {plan} --trace".split())
    assert made.exit_code == 0, made.output
    assert "equal" in made.stdout
    assert "on 4 ranks" in made.stdout


def test_one_chips_share_is_measured_and_its_collectives_are_priced(plan) -> None:
    made = _RUN.invoke(app, f"execute {plan} --share --scale-model 64 --timed 1 --json".split())
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert found["mode"] == "share"
    assert found["mesh"]["x"] == 4
    assert found["bytes"] == {}
    by_step = {step["step"]: step for step in found["steps"]}
    assert all(step["predicted_s"] is not None for step in by_step.values())
    sent = {name for name in by_step if "reduce" in name or "gather" in name}
    assert sent
    assert sent == {name for name, step in by_step.items() if step["taken_from"] == "price"}
    assert all(by_step[name]["measured_s"] is None for name in sent)
    assert by_step["decode/block/attention"]["measured_s"] > 0
    assert found["memory"]["measured"] > 0


def test_a_share_of_stages_goes_through_them_one_after_the_other(tmp_path) -> None:
    plan = _written(tmp_path, "estimate llama-3.1-8b --on h100-sxm:8 --tp 4 --pp 2 --input 64 --output 8 --batch 4")
    made = _RUN.invoke(app, f"execute {plan} --share --scale-model 64 --timed 1".split())
    assert made.exit_code == 0, made.output
    assert "handover/send" in made.stdout
    assert "what crosses chips is as priced on h100-sxm" in made.stdout
    assert "price" in made.stdout
    assert "measured" in made.stdout


def test_prompts_in_several_batches_are_decoded_together(tmp_path) -> None:
    plan = _written(
        tmp_path, "plan llama-3.1-8b --on h100-sxm:2 --input 64 --output 4 --prefill-batch 2 --decode-batch 8 --top 1"
    )
    made = _RUN.invoke(app, f"execute {plan} --scale-model 64 --timed 0 --json".split())
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert found["tokens_equal"]
    assert found["batch"] == 8
    assert "prefill: 8 sequences in 4 passes of 2" in found["notes"]
    assert not any("batch" in note for note in found["notes"])


def test_a_plans_one_byte_weights_are_run_as_such(tmp_path) -> None:
    plan = _written(
        tmp_path,
        "estimate llama-3.1-8b --on h100-sxm:2 --tp 2 --input 64 --output 4 --batch 4 --weights int8 --kv-dtype fp8",
    )
    made = _RUN.invoke(app, f"execute {plan} --scale-model 64 --timed 0".split())
    assert made.exit_code == 0, made.output
    assert "fp32, weights int8, cache fp8" in made.stdout
    assert "weights: int8 in the plan" not in made.stdout


def test_real_weights_are_run_and_those_of_another_model_refused(plan, tmp_path) -> None:
    import torch
    from safetensors.torch import save_file
    from shardwise.models.catalogue import get_model
    from shardwise.tests.validate.execute.test_checkpoint import llama_tensors
    from shardwise.validate.execute.comm import MeshShape
    from shardwise.validate.execute.scale import scaled_model

    model = scaled_model(get_model("llama-3.1-8b"), MeshShape(axes={"x": 2, "y": 1, "z": 1}), 64)
    tensors = llama_tensors(model)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"rope_theta": 500000.0, "rms_norm_eps": 1e-05}')
    run = f"execute {plan} --ranks 2 --scale-model 64 --timed 0 --checkpoint {tmp_path}"
    made = _RUN.invoke(app, run.split())
    assert made.exit_code == 0, made.output
    assert "the same tokens as the unsharded model" in made.stdout
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, tmp_path / "model.safetensors")
    made = _RUN.invoke(app, run.split())
    assert made.exit_code == 2
    assert f"model.norm.weight of {tmp_path} is 3, llama-3.1-8b/64 has {model.d_model}" in made.stderr


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
        ("--share --trace", "give one of them"),
        ("--share --checkpoint .", "leave out --checkpoint"),
        ("--checkpoint /nowhere", "no checkpoint /nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(plan, arguments, says) -> None:
    made = _RUN.invoke(app, f"execute {plan} {arguments}".split())
    assert made.exit_code == 2
    assert says in made.stderr


def test_what_does_not_fit_is_refused_before_it_is_allocated(plan, monkeypatch) -> None:
    from shardwise.validate.execute import run

    monkeypatch.setattr(run.os, "sysconf", lambda _name: 1000)
    for way in ("--ranks 2", "--share"):
        made = _RUN.invoke(app, f"execute {plan} {way}".split())
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
