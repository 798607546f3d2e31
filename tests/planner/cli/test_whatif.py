"""``whatif`` and ``figures`` at the terminal: files by their suffix, JSON, and sentences for what is wrong."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from shardwise.planner.cli import app
from typer.testing import CliRunner

Run = Callable[..., Result]
ASKED = ("whatif", "gpt2", "--on", "l40s:1", "--input", "64", "--output", "8")
VARIED = (*ASKED, "--vary", "weights=fp16,int8", "--vary", "batch=1..4")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a plain, wide terminal would."""
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def test_points_are_a_table_on_stdout_and_the_counts_on_stderr(run: Run) -> None:
    done = run(*VARIED)
    assert done.exit_code == 0
    assert "gpt2 on l40s; each point the best by latency" in done.stdout
    assert "8 points, 8 fit" in done.stderr
    assert "points, 8 fit" not in done.stdout


def test_json_has_a_row_a_point(run: Run) -> None:
    document = json.loads(run(*VARIED, "--json").stdout)
    assert document["axes"] == {"weights": ["fp16", "int8"], "batch": ["1", "2", "3", "4"]}
    assert (document["n_points"], document["n_fitting"], len(document["rows"])) == (8, 8, 8)
    assert document["rows"][4]["weights"] == "int8"
    assert document["rows"][4]["tpot_s"] > 0
    assert document["digest"]


def test_a_page_holds_the_picture_the_table_and_the_command(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    done = run(*VARIED, "-o", path)
    assert done.exit_code == 0
    assert f"wrote {path}" in done.stderr
    html = path.read_text("utf-8")
    data = json.loads(html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    assert set(data["figures"]) == {"response", "tradeoff"}
    assert data["table"]["names"][:2] == ["weights", "batch"]
    assert len(data["table"]["columns"][0]) == 8
    command = "shardwise whatif gpt2 --vary weights=fp16,int8 --vary batch=1..4 --on l40s:1 --input 64 --output 8"
    assert f"{command} --out {path}" in html
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_on_the_page_makes_the_page_again(run: Run, tmp_path: Path) -> None:
    import html
    import re
    import shlex

    path = tmp_path / "report.html"
    run(*VARIED, "--vary", "link=x1,x2", "-o", path)
    first = path.read_bytes()
    found = re.search(r'<pre id="command">(.*?)</pre>', first.decode(), re.DOTALL)
    assert found is not None
    path.unlink()
    assert run(*shlex.split(html.unescape(found[1]))[1:]).exit_code == 0
    assert path.read_bytes() == first


def test_csv_is_written_with_blanks_for_what_is_not_there(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    done = run(*ASKED, "--vary", "batch=1,65536", "-o", path)
    assert done.exit_code == 0
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [row["batch"] for row in rows] == ["1", "65536"]
    assert (rows[1]["fits"], rows[1]["tpot_s"]) == ("False", "")
    assert "GiB may be used" in rows[1]["reason"]


def test_a_plan_file_is_a_base_too(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    made = run("estimate", "gpt2", "--on", "l40s:1", "--input", "64", "--output", "8", "--batch", "4", "--json")
    path.write_text(made.stdout, "utf-8")
    rows = json.loads(run("whatif", path, "--vary", "price=1,2", "--json").stdout)["rows"]
    assert [row["decode_batch"] for row in rows] == [4, 4]
    assert rows[1]["usd_per_mtok_output"] == pytest.approx(2.0 * rows[0]["usd_per_mtok_output"])


def test_where_nothing_fits_the_exit_code_is_one(run: Run) -> None:
    done = run("whatif", "llama-3.1-70b", "--on", "l40s:1", "--input", "8", "--output", "8", "--vary", "batch=1,2")
    assert done.exit_code == 1
    assert "nothing fits" in done.stderr
    assert "needs" in done.stdout


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ((), "say what to vary"),
        (("--vary", "chips"), "does not parse: write KEY=VALUE"),
        (("--vary", "frobs=1"), "no key to --vary 'frobs'"),
        (("--vary", "batch=1..1000", "--vary", "rate=1..1000+1"), "1,000 batch x 1,000 rate = 1,000,000 points"),
        (("--vary", "batch=1,2", "-o", "x.docx"), "write one of .html, .csv"),
        (("--vary", "batch=1,2", "-o", "/nonexistent/x.html"), "cannot write /nonexistent/x.html"),
        (("--vary", "batch=1,2", "--objective", "beauty"), "choose latency, cost or throughput"),
        (("--vary", "batch=1,2", "--simulate"), "--simulate varies the rate alone"),
        (("--vary", "rate=1,2", "--simulate"), "--simulate needs a plan"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(run: Run, extra: tuple[str, ...], says: str) -> None:
    done = run(*ASKED, *extra)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("worked before it looked")

    monkeypatch.setattr("shardwise.planner.whatif.ask.what_if", never)
    done = run(*VARIED, "-o", tmp_path / "none" / "x.html")
    assert done.exit_code == 2
    assert "must be a folder" in done.stderr


def test_the_keys_are_listed(run: Run) -> None:
    done = run("whatif", "gpt2", "--keys")
    assert done.exit_code == 0
    for key in ("chips", "hbm-bandwidth", "price", "context"):
        assert key in done.stdout


def test_rates_are_simulated_with_intervals(run: Run, tmp_path: Path) -> None:
    plan, page = tmp_path / "plan.json", tmp_path / "rates.html"
    made = run("estimate", "gpt2", "--on", "l40s:1", "--input", "64", "--output", "8", "--json")
    plan.write_text(made.stdout, "utf-8")
    asked = ("whatif", plan, "--vary", "rate=5,20", "--simulate", "--seeds", "2", "--requests", "30", "--ttft", "50ms")
    document = json.loads(run(*asked, "--json", "-o", page).stdout)
    assert [row["rate"] for row in document["rows"]] == [5.0, 20.0]
    for row in document["rows"]:
        assert row["goodput_per_s_low"] <= row["goodput_per_s"] <= row["goodput_per_s_high"]
    data = page.read_text("utf-8").partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    assert set(json.loads(data)["figures"]) == {"goodput", "slo-ttft", "slo-tpot"}
    assert "TTFT p99" in run(*asked).stdout


def test_figures_of_the_paper_are_a_page_and_a_list(run: Run, tmp_path: Path) -> None:
    page, points = tmp_path / "f.html", tmp_path / "f.csv"
    asked = ("figures", "gpt2", "--on", "h100-sxm:2", "--figure", "3,B.1", "--weights", "bf16")
    done = run(*asked, "-o", page)
    assert done.exit_code == 0
    assert page.stat().st_size > 1_000_000
    assert "the shortest prefill" in done.stdout
    run(*asked, "-o", points)
    rows = list(csv.DictReader(points.read_text("utf-8").splitlines()))
    assert {row["figure"] for row in rows} == {"3", "B.1"}
    assert len(json.loads(run(*asked, "--json").stdout)["figures"]) == len(rows)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (("--on", "l40s:1", "--figure", "3"), "sends nothing"),
        (("--on", "l40s:1", "--figure", "2"), "no figure of the paper '2'"),
        (
            (
                "--on",
                "l40s:..4",
            ),
            "name one count of chips",
        ),
        (("--on", "l40s:1", "--weights", "bf99"), "no dtype 'bf99'"),
    ],
)
def test_figures_that_cannot_be_drawn_say_why(run: Run, extra: tuple[str, ...], says: str) -> None:
    done = run("figures", "gpt2", *extra)
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_plan_and_a_simulated_run_are_drawn(run: Run, tmp_path: Path) -> None:
    plan, steps, time = tmp_path / "plan.json", tmp_path / "steps.html", tmp_path / "time.html"
    made = run("estimate", "gpt2", "--on", "l40s:2", "--input", "64", "--output", "8", "--tp", "2", "--json")
    plan.write_text(made.stdout, "utf-8")
    assert run("explain", plan, "--plot", steps).exit_code == 0
    assert run("simulate", plan, "--rate", "5", "--requests", "20", "--plot", time).exit_code == 0
    for path, names in (
        (steps, {"waterfall-decode", "waterfall-prefill", "roofline", "memory", "tornado"}),
        (time, {"timeline"}),
    ):
        data = (
            path.read_text("utf-8").partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
        )
        assert set(json.loads(data)["figures"]) == names
