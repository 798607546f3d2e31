"""The commands `export` and `check`, as a user has them."""

import json
import subprocess

import pytest
from shardwise.planner.cli import app
from typer.testing import CliRunner


def _run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    made = _run("estimate", "llama-3-8b", "--on", "h100-sxm:1", "--batch", 32, "--input", 512, "--output", 64, "--json")
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(made.stdout)
    return path


def test_a_script_goes_to_stdout_and_what_is_otherwise_to_stderr(plan_file):
    done = _run("export", plan_file, "--to", "vllm")
    assert done.exit_code == 0
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0
    assert "note: one contiguous cache" in done.stderr


def test_an_output_file_is_written_whole(plan_file, tmp_path):
    path = tmp_path / "service.yaml"
    done = _run("export", plan_file, "--to", "kserve", "-o", path)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "kind: LLMInferenceService" in path.read_text()


def test_json_has_text_notes_and_version(plan_file):
    made = json.loads(_run("export", plan_file, "--load", "guidellm", "--rate", 2, "--json").stdout)
    assert (made["engine"], made["version"]) == ("guidellm", "0.8")
    assert "kind=poisson,rate=2" in made["text"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one of --to"),
        (("--to", "vllm", "--load", "guidellm"), "one of --to"),
        (("--to", "jetstream"), "JetStream is archived"),
        (("--to", "vlm"), "did you mean vllm"),
        (("--load", "wrk"), "no load generator 'wrk'"),
        (("--to", "vllm", "-o", "/nowhere/launch.sh"), "cannot write /nowhere/launch.sh"),
        (("--to", "vllm", "--rank", 9), "no plan of rank 9"),
        (("--to", "vllm", "--engine-version", "0.1"), "older than every flag table"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(plan_file, words, said):
    done = _run("export", plan_file, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_simulated_run_is_checked_against_its_own_plan(plan_file, tmp_path):
    vllm, report = tmp_path / "run.json", tmp_path / "run.yaml"
    words = (
        "simulate",
        plan_file,
        "--concurrency",
        16,
        "--requests",
        200,
        "--vllm-json",
        vllm,
        "--benchmark-report",
        report,
    )
    assert _run(*words).exit_code == 0
    for path in (vllm, report):
        done = _run("check", path, "--plan", plan_file)
        assert done.exit_code == 0, done.output
        assert "every judged figure lies inside" in done.stdout
        assert "first token - sent" in done.stdout
    slow = json.loads(vllm.read_text())
    slow |= {name: 3.0 * value for name, value in slow.items() if name.endswith("_ms")}
    vllm.write_text(json.dumps(slow))
    done = _run("check", vllm, "--plan", plan_file, "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["inside"] is False
    assert document["advice"]
    assert {"ratio", "inside", "definition", "low", "high"} <= set(document["figures"][0])


def test_results_of_an_unknown_tool_end_with_2(plan_file, tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"p99": 3}')
    done = _run("check", path, "--plan", plan_file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "results of no tool that is known" in done.stderr


@pytest.mark.parametrize(
    ("option", "name"), [("--vllm-json", "run.yaml"), ("--benchmark-report", "run.txt"), ("--vllm-json", "no/run.json")]
)
def test_results_that_cannot_be_written_are_refused_before_the_run(plan_file, tmp_path, option, name):
    done = _run("simulate", plan_file, "--rate", 1, option, tmp_path / name)
    assert (done.exit_code, done.stdout) == (2, "")
