"""``whatif --interactive`` writes the explorer, and says what it cannot do before it computes anything."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from shardwise.planner.cli import app
from typer.testing import CliRunner

QUESTION = ("gpt2", "--on", "l40s:1", "--input", "128", "--output", "16")
SMALL = ("--vary", "input=64", "--vary", "output=8", "--vary", "weights=int8", "--vary", "kv-dtype=int8")


def run(*arguments: str) -> Result:
    environment = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    return CliRunner(env=environment).invoke(app, ["whatif", *arguments])


def test_the_page_is_written_with_its_command_in_it(tmp_path: Path) -> None:
    page = tmp_path / "explorer.html"
    done = run(*QUESTION, *SMALL, "--interactive", "-o", str(page))
    assert done.exit_code == 0, done.output
    assert "16 sheets" in done.stdout
    assert "computed in" in done.stderr
    assert "--interactive" in page.read_text("utf-8").split('"made_by":')[1][:400]


def test_a_plan_s_file_will_do_and_json_says_where_the_page_is(tmp_path: Path) -> None:
    plan, page = tmp_path / "plan.json", tmp_path / "explorer.html"
    made = CliRunner().invoke(app, ["plan", *QUESTION, "--json"])
    plan.write_text(made.stdout, "utf-8")
    done = run(str(plan), *SMALL, "--interactive", "-o", str(page), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["file"], told["bytes"]) == (str(page), page.stat().st_size)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--interactive",), "name it with -o"),
        (("--interactive", "-o", "explorer.csv"), "name it with -o"),
        (("--interactive", "-o", "no/such/folder/explorer.html"), "cannot write"),
        (("--interactive", "-o", "explorer.html", "--tp", "1"), "leaves --tp to the page"),
        (("--interactive", "-o", "explorer.html", "--vary", "tpot=1ms"), "not tpot"),
        (
            ("--interactive", "-o", "explorer.html", "--vary", "input=1..100"),
            "101 inputs x 3 outputs x 2 weight formats",
        ),
        (("--interactive", "-o", "explorer.html", "--vary", "input"), "does not parse"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_grid(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*QUESTION, *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []
