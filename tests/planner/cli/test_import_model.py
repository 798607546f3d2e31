"""``shardwise import-model``, and models named by their files in other commands."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from shardwise.hardware_specs.errors import UnknownNameError
from shardwise.models.catalogue import get_model
from shardwise.planner.cli import app
from shardwise.planner.explorer.question import Question, request_of
from shardwise.tests.models.hf.reading import LATENT, LLAMA, MIXTRAL
from typer.testing import CliRunner

Run = Callable[..., Result]
_KEYS = [
    "name", "n_params", "n_params_active", "weight_bytes", "kv_bytes_per_token", "state_bytes_per_seq", "max_context",
    "unknown_fields",
]  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a plain, wide terminal would."""
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    return lambda *arguments, **given: CliRunner().invoke(app, [str(a) for a in arguments], **given)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small Llama in a directory of its own."""
    folder = tmp_path / "Tiny-Llama"
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA), "utf-8")
    return path


def test_json_has_its_keys_and_nothing_else_on_stdout(run: Run, config: Path) -> None:
    result = run("import-model", config, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert list(found) == _KEYS
    block = 256 * (8 + 2 * 2 + 8) * 32 + 3 * 256 * 512 + 2 * 256
    total = 4 * block + 2 * 1000 * 256 + 256
    assert found == {
        "name": "tiny-llama", "n_params": total, "n_params_active": total, "weight_bytes": 2 * total,
        "kv_bytes_per_token": 4 * 2 * 2 * 32 * 2, "state_bytes_per_seq": 0, "max_context": 2048, "unknown_fields": [],
    }  # fmt: skip


def test_a_directory_and_standard_input_are_read_alike(run: Run, config: Path) -> None:
    by_file = json.loads(run("import-model", config, "--json").stdout)
    assert json.loads(run("import-model", config.parent, "--json").stdout) == by_file
    piped = run("import-model", "-", "--json", "--name", "tiny-llama", input=config.read_bytes())
    assert json.loads(piped.stdout) == by_file


def test_a_table_says_what_the_layers_are(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(LATENT), "utf-8")
    result = run("import-model", path)
    assert result.exit_code == 0
    assert "1 x latent-dense, 3 x latent-experts" in result.stdout


def test_talk_goes_to_stderr(run: Run, config: Path) -> None:
    config.write_text(json.dumps(LLAMA | {"frobnicate": 1, "torch_dtype": None}), "utf-8")
    result = run("import-model", config, "--json")
    assert "unknown fields, which changed nothing: frobnicate" in result.stderr
    assert "note: the file gives no dtype; bf16 is taken" in result.stderr
    assert json.loads(result.stdout)["unknown_fields"] == ["frobnicate"]


def test_overrides_go_before_the_file(run: Run, config: Path) -> None:
    config.write_text(json.dumps(LLAMA | {"model_type": "lama"}), "utf-8")
    refused = run("import-model", config)
    assert refused.exit_code == 2
    assert "nearest known: llama" in refused.stderr
    assert refused.stdout == ""
    found = run("import-model", config, "--json", "--override", "model_type=llama", "--override", "num_hidden_layers=2")
    assert json.loads(found.stdout)["kv_bytes_per_token"] == 2 * 2 * 2 * 32 * 2


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"model_type": "llama", "hidden_size'])
def test_bad_input_ends_with_2_and_a_sentence(run: Run, config: Path, text: str) -> None:
    config.write_text(text, "utf-8")
    result = run("import-model", config, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_what_is_written_is_a_model_of_every_command(run: Run, tmp_path: Path) -> None:
    path, written = tmp_path / "tiny.json", tmp_path / "tiny.yaml"
    path.write_text(json.dumps(MIXTRAL), "utf-8")
    assert run("import-model", path, "-o", written).exit_code == 0
    assert get_model(str(written)) == get_model(str(path))
    request = ("--on", "h100-sxm:2", "--batch", 1, "--input", 64, "--output", 8, "--json")
    by_yaml, by_json = run("plan", written, *request), run("plan", path, *request)
    assert by_yaml.exit_code == by_json.exit_code == 0
    first, second = json.loads(by_yaml.stdout), json.loads(by_json.stdout)
    assert first["plans"] == second["plans"]
    assert run("show", "models", written, "--json").exit_code == 0


_COMPRESSED = LLAMA | {
    "model_type": "deepseek_v4", "num_key_value_heads": 1, "head_dim": 64, "q_lora_rank": 64, "o_groups": 2, "o_lora_rank": 32,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 128, "hc_mult": 4,
    "index_n_heads": 4, "index_head_dim": 32, "index_topk": 16, "sliding_window": 32, "compress_ratios": [0, 4, 128, 4],
}  # fmt: skip
_NEMOTRON = LLAMA | {
    "model_type": "nemotron_h", "hybrid_override_pattern": "ME*E", "mamba_num_heads": 8, "mamba_head_dim": 64, "n_groups": 4,
    "ssm_state_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 128,
    "moe_shared_expert_intermediate_size": 256, "moe_latent_size": 64,
}  # fmt: skip
_GEMMA4 = {
    "model_type": "gemma4",
    "text_config": LLAMA
    | {
        "model_type": "gemma4_text",
        "head_dim": 32,
        "global_head_dim": 64,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
}


@pytest.mark.parametrize("fields", [LATENT, _COMPRESSED, _NEMOTRON, _GEMMA4], ids=lambda fields: fields["model_type"])
def test_what_is_read_is_planned(run: Run, tmp_path: Path, fields: dict[str, object]) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(fields), "utf-8")
    result = run("plan", path, "--on", "h100-sxm:2", "--batch", 2, "--input", 300, "--output", 8, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["plans"]


def test_a_plan_of_a_file_finds_its_model_again(run: Run, config: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    made = run("plan", config.parent, "--on", "h100-sxm:2", "--batch", 1, "--input", 64, "--output", 8, "--json")
    plan.write_text(made.stdout, "utf-8")
    assert json.loads(made.stdout)["model"] == str(config.parent)
    assert run("explain", plan).exit_code == 0
    served = run("simulate", plan, "--rate", 1, "--requests", 5, "--json")
    assert json.loads(served.stdout)["finished"] == 5


def test_fields_nobody_knows_are_told_by_a_plan_too(run: Run, config: Path) -> None:
    config.write_text(json.dumps(LLAMA | {"frobnicate": 1}), "utf-8")
    result = run("plan", config, "--on", "h100-sxm:1", "--batch", 1, "--input", 64, "--output", 8)
    assert "which changed nothing: frobnicate" in result.stderr


def test_what_ifs_take_files_and_pages_take_names(run: Run, config: Path) -> None:
    asked = ("--on", "h100-sxm:2", "--input", 64, "--output", 8)
    varied = run("whatif", config, *asked, "--vary", "batch=1,2", "--json")
    assert varied.exit_code == 0
    assert run("whatif", "llama-3.2-1b", *asked, "--vary", f"model=gpt2,{config}", "--json").exit_code == 0
    page = run("whatif", config, *asked, "--interactive", "-o", config.parent / "page.html")
    assert page.exit_code == 2
    assert "knows the models of the catalogue by name" in page.stderr


def test_a_question_of_a_page_never_reads_a_file(config: Path) -> None:
    question = Question(model=str(config), chip="h100-sxm", counts=(1,), input_tokens=64, output_tokens=8)
    with pytest.raises(UnknownNameError):
        request_of(question)
