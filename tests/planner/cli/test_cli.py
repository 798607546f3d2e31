"""The terminal: results on stdout, talk on stderr, exit 0 done, 1 no plan, 2 bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from shardwise.planner.cli import app
from shardwise.planner.result import PlanResult
from typer.testing import CliRunner

COMMANDS = ("plan", "estimate", "explain", "cost", "show", "score", "reproduce", "calibrate")
PLAN = {"--on": "h100-sxm:1", "--input": "128", "--output": "16"}
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a plain, wide terminal would."""
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def plan_arguments(model: str = "llama-3-8b", command: str = "plan", **options: str) -> list[str]:
    """A plan on one chip with options changed or added."""
    asked = PLAN | {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    return [command, model, *(text for pair in asked.items() for text in pair)]


def test_a_plan_is_a_table_on_stdout_and_the_counts_on_stderr(run: Run) -> None:
    done = run(*plan_arguments(batch="8"))
    assert done.exit_code == 0
    assert "llama-3-8b on h100-sxm:1, 128 tokens in, 16 out; best by latency" in done.stdout
    assert "candidates priced" in done.stderr
    assert "candidates priced" not in done.stdout


def test_an_estimate_says_where_the_time_goes(run: Run) -> None:
    done = run(*plan_arguments(command="estimate", batch="8"))
    assert (done.exit_code, done.stderr) == (0, "")
    for words in ("one pass of prefill", "one decode step", "memory a chip", "bound by"):
        assert words in done.stdout


def test_tables_are_80_columns_wide(run: Run) -> None:
    wide = run(*plan_arguments("palm-540b", on="tpu-v4:4x4x4", batch="512", weights="int8"))
    assert wide.exit_code == 0
    assert max(map(len, wide.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", ["plan", "estimate"])
def test_json_is_a_result_and_nothing_else(run: Run, command: str) -> None:
    done = run(*plan_arguments(command=command, batch="8"), "--json")
    assert done.exit_code == 0
    assert PlanResult.model_validate_json(done.stdout).best.decode.batch == 8


def test_what_is_written_can_be_explained(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(run(*plan_arguments(), "--json").stdout, "utf-8")
    told = run("explain", path)
    assert told.exit_code == 0
    assert "bound by" in told.stdout
    assert "refused" in told.stdout
    second = json.loads(run("explain", path, "--rank", "2", "--json").stdout)
    assert "rank 2" in second["headline"]
    assert len(second["runners_up"]) == 4


def test_a_plot_is_written_beside_the_plan(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "frontier.html"
    done = run(*plan_arguments(), "--plot", path)
    assert done.exit_code == 0
    assert f"wrote {path}" in done.stderr
    assert path.stat().st_size > 1_000_000  # plotly.js is inside
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["chips", "models", "layouts", "clusters"])
def test_show_lists_a_catalogue_as_text_and_as_json(run: Run, what: str) -> None:
    text, rows = run("show", what), run("show", what, "--json")
    assert text.exit_code == rows.exit_code == 0
    assert len(json.loads(rows.stdout)) > 3
    assert len(text.stdout.splitlines()) > len(json.loads(rows.stdout))


@pytest.mark.parametrize(
    ("what", "name", "words"),
    [
        pytest.param("chips", "H100-SXM", '"name": "h100-sxm"', id="chip"),
        pytest.param("models", "Llama 3 8B", '"n_params": 8030261248', id="model"),
        pytest.param("models", "DeepSeek V3", '"n_params_active": 37552282624', id="mixture of experts"),
        pytest.param("models", "gpt-oss-20b", '"kv_bytes_per_token_beyond_windows": 24576.0', id="windows"),
        pytest.param("models", "rwkv-4-7b", '"state_bytes_per_sequence": 2621440.0', id="recurrent model"),
        pytest.param("layouts", "ws-2d", '"stored": "E_xF_zy"', id="layout"),
        pytest.param("clusters", "tpu-v4:4x4x4", '"chips": 64', id="cluster"),
    ],
)
def test_show_knows_one_entry_in_full(run: Run, what: str, name: str, words: str) -> None:
    assert words in run("show", what, name, "--json").stdout
    assert run("show", what, name).exit_code == 0


def test_help_of_everything_exits_0(run: Run) -> None:
    root = run("--help")
    assert root.exit_code == 0
    for command in COMMANDS:
        assert command in root.stdout
        told = run(command, "--help")
        assert (told.exit_code, told.stderr) == (0, "")
        assert "Usage" in told.stdout


def test_version_is_one_word(run: Run) -> None:
    done = run("--version")
    assert done.exit_code == 0
    assert len(done.stdout.split()) == 1


BAD_NAMES = [
    pytest.param({"model": "lama-3-8b"}, "did you mean llama-3-8b", id="model"),
    pytest.param({"model": ""}, "no model ''; known: ", id="no model"),
    pytest.param({"model": "longformer-base"}, "generates nothing: 16 output tokens asked", id="output of an encoder"),
    pytest.param({"model": "GPT (h=100,L=2)"}, "not a multiple of 128", id="shape"),
    pytest.param({"on": "h1000:8"}, "did you mean", id="chip"),
    pytest.param({"on": "h100-sxm"}, "has no count; write e.g. h100-sxm:8", id="chip without a count"),
    pytest.param({"on": "h100-sxm:"}, "is no pool", id="chip with an empty count"),
    pytest.param({"on": ""}, "no chip ''", id="no pool"),
    pytest.param({"on": "h100-sxm:12"}, "near it: h100-sxm:1x8", id="count without a slice"),
    pytest.param({"on": "tpu-v4:3x3x3"}, "near it: tpu-v4:2x4x4", id="shape without a slice"),
    pytest.param({"decode_on": "h1000:8"}, "did you mean", id="decode chip"),
    pytest.param({"weights": "fp7"}, "did you mean fp8", id="weights"),
    pytest.param({"kv_dtype": "bf16,wrong"}, "no dtype 'wrong'; known: bf16", id="second cache format"),
    pytest.param({"prefill": "ws-3d"}, "did you mean ws-2d", id="layout"),
    pytest.param(
        {"decode": "ws-1d/rows"},
        "no attention or expert sharding 'rows'; known: batch, context, exchange, expert, heads, tensor",
        id="attention",
    ),
    pytest.param({"engine": "flesh"}, "did you mean flash", id="engine"),
    pytest.param({"objective": "speed"}, "choose latency, cost or throughput", id="objective"),
]
BAD_NUMBERS = [
    pytest.param({"mesh": "2x2"}, "three sizes, e.g. 4x4x4", id="mesh of two"),
    pytest.param({"mesh": "0x1x1"}, "three sizes", id="mesh of nothing"),
    pytest.param({"mesh": "²x1x1"}, "three sizes", id="mesh of a raised 2"),
    pytest.param({"on": "h100-sxm:8", "mesh": "3x3x3"}, "its meshes are 2x2x2", id="mesh that does not divide"),
    pytest.param({"on": "h100-sxm:8", "tp": "3"}, "no mesh of the slice", id="tp that does not divide"),
    pytest.param({"tp": "0"}, "tp=0 must be at least 1", id="tp 0"),
    pytest.param({"pp": "-1"}, "pp=-1 must be at least 1", id="pp -1"),
    pytest.param({"dp": "99999999999999999999"}, "into equal parts", id="huge dp"),
    pytest.param({"on": "h100-sxm:40", "pp": "40"}, "more pipeline stages than layers", id="more stages than layers"),
    pytest.param({"on": "h100-sxm:0"}, "is no pool", id="no chips"),
    pytest.param({"on": "h100-sxm:-8"}, "is no pool", id="negative chips"),
    pytest.param({"on": "h100-sxm:9999999999"}, "at most 4096", id="huge slice"),
    pytest.param({"on": "h100-sxm:..5000"}, "1 to 4096 chips", id="huge pool"),
    pytest.param({"on": "h100-sxm:1e3"}, "is no pool", id="count in floats"),
    pytest.param({"input": "9000"}, "llama-3-8b has 8192 positions; shorten", id="context beyond the model"),
    pytest.param({"input": "-1"}, "input_tokens=-1", id="negative input"),
    pytest.param({"input": "0"}, "at least one input token", id="nothing to read"),
    pytest.param({"output": "0"}, "at least one output token", id="nothing to write"),
    pytest.param({"prefill_batch": "8", "decode_batch": "4"}, "above decode batch 4", id="prompts that wait"),
    pytest.param({"input": "99999999999999999999999"}, "must lie between 0 and", id="huge input"),
    pytest.param({"batch": "0"}, "batch 0 must lie between 1 and", id="batch 0"),
    pytest.param({"batch": "-4"}, "batch -4", id="negative batch"),
    pytest.param({"batch": "65537"}, "batch 65537", id="huge batch"),
    pytest.param({"prefill_batch": "0"}, "prefill batch 0", id="prefill batch 0"),
    pytest.param({"decode_batch": "0"}, "decode batch 0", id="decode batch 0"),
    pytest.param({"page_size": "0"}, "page size 0 must lie", id="page size 0"),
    pytest.param({"page_size": "x"}, "whole numbers of tokens", id="page size in letters"),
    pytest.param({"page_size": "²"}, "whole numbers of tokens", id="page size of a raised 2"),
    pytest.param({"ttft": "500"}, "'500' is no quantity in s; write e.g. '500 ms'", id="ttft without a unit"),
    pytest.param({"ttft": "-1ms"}, "finite and not negative", id="negative ttft"),
    pytest.param({"ttft": "0ms"}, "ttft=0.0 must be a positive time", id="ttft 0"),
    pytest.param({"ttft": "nan s"}, "no quantity in s", id="ttft nan"),
    pytest.param({"ttft": "1e999s"}, "finite and not negative", id="infinite ttft"),
    pytest.param({"tpot": "5 GB"}, "no quantity in s", id="tpot in bytes"),
    pytest.param({"memory_share": "nan"}, "memory share nan must lie in (0, 1]", id="memory share nan"),
    pytest.param({"memory_share": "0"}, "memory share 0.0", id="memory share 0"),
    pytest.param({"memory_share": "1.5"}, "memory share 1.5", id="memory share above 1"),
    pytest.param({"top": "0"}, "top=0 must be at least 1", id="no plans"),
    pytest.param({"prefill": "ws-1d", "decode": "ws-2d", "on": "tpu-v4:2x2x1"}, "different forms", id="two copies"),
]


@pytest.mark.parametrize(("options", "words"), BAD_NAMES + BAD_NUMBERS)
def test_bad_input_is_one_sentence_and_exit_2(run: Run, tmp_path: Path, options: dict[str, str], words: str) -> None:
    plot = tmp_path / "page.html"
    refused(run(*plan_arguments(**options), "--plot", plot), words)
    assert list(tmp_path.iterdir()) == []


def refused(done: Result, words: str) -> None:
    """Exit 2, one sentence on stderr, nothing on stdout."""
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(plan_arguments(input="nan"), id="nan tokens"),
        pytest.param(plan_arguments(output="1.5"), id="half a token"),
        pytest.param(plan_arguments(batch="1e400"), id="infinite batch"),
        pytest.param(plan_arguments(memory_share="much"), id="a word for a number"),
        pytest.param(["plan", "llama-3-8b"], id="no pool"),
        pytest.param(["plan"], id="no model"),
        pytest.param(["show"], id="no catalogue"),
        pytest.param(["explain"], id="no file"),
        pytest.param(["plan", "llama-3-8b", "--frobnicate"], id="unknown option"),
        pytest.param(["frobnicate"], id="unknown command"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_exit_2(run: Run, arguments: list[str]) -> None:
    """The parser of the command line says which option, and how it is used."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "is no plan: the file: Invalid JSON", id="empty"),
        pytest.param(b'{"model": "x",', "is no plan: the file: Invalid JSON", id="broken"),
        pytest.param(b"[]", "is no plan: the file", id="a list"),
        pytest.param(b"{}", "is no plan: version: Field required", id="an object"),
        pytest.param(b"\xff\xfe", "cannot read", id="not utf-8"),
        pytest.param(None, "cannot read", id="missing"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(run: Run, tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    refused(run("explain", path), words)


@pytest.mark.parametrize("where", ["missing/page.html", "."])
def test_a_plot_that_cannot_be_written_is_refused_before_any_work(run: Run, tmp_path: Path, where: str) -> None:
    refused(run(*plan_arguments(), "--plot", tmp_path / where), "cannot write")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["show", "chip"], "did you mean chips", id="catalogue"),
        pytest.param(["show", "chips", "h1000"], "did you mean", id="chip"),
        pytest.param(["show", "models", "lama-3-8b"], "did you mean llama-3-8b", id="model"),
        pytest.param(["show", "layouts", "ws-3d"], "did you mean ws-2d", id="layout"),
        pytest.param(["show", "clusters", "h1000"], "did you mean", id="cluster"),
    ],
)
def test_show_of_what_does_not_exist_is_refused(run: Run, arguments: list[str], words: str) -> None:
    refused(run(*arguments), words)


@pytest.mark.parametrize(
    ("arguments", "reason", "miss"),
    [
        pytest.param(
            plan_arguments("palm-540b"),
            "out of memory",
            "the smallest candidate needs 1006.6 GiB per chip",
            id="memory",
        ),
        pytest.param(plan_arguments(ttft="1us"), "TTFT over the limit", "(limit 1 us)", id="ttft"),
        pytest.param(plan_arguments(tpot="1us"), "TPOT over the limit", "(limit 1 us)", id="tpot"),
        pytest.param(
            plan_arguments("palm-540b", command="estimate"), "out of memory", "smallest candidate", id="estimate"
        ),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_no_feasible_plan_is_exit_1_with_the_counts_and_the_nearest_miss(
    run: Run, tmp_path: Path, arguments: list[str], reason: str, miss: str, as_json: bool
) -> None:
    plot = ["--plot", tmp_path / "page.html"] if arguments[0] == "plan" else []
    done = run(*arguments, *plot, *(["--json"] if as_json else []))
    assert done.exit_code == 1
    assert reason in done.stderr
    assert "no feasible plan: " in done.stderr
    assert miss in done.stderr
    assert list(tmp_path.iterdir()) == []
    if as_json:
        told = json.loads(done.stdout)
        assert told["plans"] == []
        assert told["rejected"][reason] > 0
        assert miss in told["nearest_miss"]
    else:
        assert done.stdout == ""
