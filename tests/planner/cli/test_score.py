"""The score command: groups as asked, processes that change nothing, a page, and everything in JSON."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from shardwise.planner.cli import app
from typer.testing import CliRunner

ROW = {
    "source": "s",
    "model": "llama-3-8b",
    "hardware": "a100-80gb-sxm",
    "framework": "vLLM",
    "n_chips": "1",
    "tp": "1",
    "pp": "1",
    "input_len": "128",
    "output_len": "16",
    "metric": "ttft",
    "unit": "ms",
    "value": "30",
}
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a plain, wide terminal would."""
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    rows = [ROW | {"batch": str(batch), "value": str(10 + 5 * batch)} for batch in range(1, 21)]
    rows += [ROW | {"batch": "1", "metric": "tpot", "value": "10"}, ROW | {"metric": "busbw"}]
    path = tmp_path / "cases.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*ROW, "batch"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_several_processes_write_the_same_file_and_the_same_summary(run: Run, cases: Path, tmp_path: Path) -> None:
    made = {}
    for jobs in (1, 2):
        out = tmp_path / f"{jobs}.csv"
        done = run("score", cases, "-o", out, "--jobs", jobs, "--json")
        assert done.exit_code == 0, done.output
        made[jobs] = (out.read_bytes(), json.loads(done.stdout))
    assert made[1] == made[2]


def test_json_has_every_figure_by_source_and_metric_and_finer(run: Run, cases: Path) -> None:
    summary = json.loads(run("score", cases, "--jobs", "1", "--json").stdout)
    figures = {"rows", "predicted", "median_abs_error", "mean_abs_error", "bias", "inside", "width", "rank"}
    assert figures < set(summary)
    assert {frozenset(group) - figures for group in summary["by_source_and_metric"]} == {
        frozenset({"source", "metric"})
    }
    assert summary["by"] == ["source", "model", "hardware", "metric"]
    assert set(summary["groups"][0]) == figures | set(summary["by"])
    # batches only read more prompts: their order is never in doubt
    assert next(g["rank"] for g in summary["groups"] if g["metric"] == "ttft") == pytest.approx(1.0)
    assert set(summary["decisions"]) == {"tasks", "decisions", "same_tp", "same_point", "missed", "reached", "groups"}


def test_groups_go_by_the_columns_that_are_asked_for(run: Run, cases: Path) -> None:
    done = run("score", cases, "--jobs", "1", "--by", "metric,tp")
    assert done.exit_code == 0
    assert "by metric, tp; the largest errors first" in done.stdout
    assert "by source, metric" not in done.stdout
    assert "ttft, 1" in done.stdout
    summary = json.loads(run("score", cases, "--jobs", "1", "--by", "tp", "--json").stdout)
    assert [(group["tp"], group["rows"]) for group in summary["groups"]] == [("1", 22)]


@pytest.mark.parametrize(("options", "word"), [(("--by", "colour"), "colour"), (("--jobs", "0"), "jobs=0")])
def test_a_column_that_is_not_there_and_no_jobs_are_the_user_s_mistakes(
    run: Run, cases: Path, options: tuple[str, str], word: str
) -> None:
    done = run("score", cases, *options)
    assert done.exit_code == 2
    assert word in done.stderr


def test_the_page_is_written_and_a_place_that_cannot_be_is_refused_before_any_work(
    run: Run, cases: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = run("score", cases, "--jobs", "1", "--plot", page)
    assert done.exit_code == 0
    assert f"wrote {page}" in done.stderr.replace("\n", "")
    assert "Predicted against measured" in page.read_text("utf-8")
    assert run("score", cases, "--plot", tmp_path / "no" / "page.html").exit_code == 2


def test_choices_are_printed_where_there_are_any(run: Run, tmp_path: Path) -> None:
    rows = [
        ROW | {"metric": "tpot", "concurrency": str(users), "value": value}
        for users, value in ((1, "10"), (8, "12"), (32, "20"))
    ]
    path = tmp_path / "loads.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*ROW, "concurrency"])
        writer.writeheader()
        writer.writerows(rows)
    done = run("score", path, "--jobs", "1")
    assert done.exit_code == 0
    assert "choices of the highest throughput a chip under a TPOT limit" in done.stdout
    assert json.loads(run("score", path, "--jobs", "1", "--json").stdout)["decisions"]["groups"][0]["tasks"] == 1
