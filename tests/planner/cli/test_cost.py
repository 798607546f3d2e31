"""The command `cost`, `--price`, and the answer to "how many chips", as a user has them."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from shardwise.planner.cli import app
from typer.testing import CliRunner


def _run(*words: object) -> Result:
    env = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def _estimate(on: str, *words: object) -> Result:
    return _run("estimate", "llama-3-8b", "--on", on, "--input", 512, "--output", 64, "--batch", 16, "--json", *words)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Plans on two kinds of chips."""
    made = []
    for on in ("h100-sxm:1", "l40s:1"):
        path = tmp_path_factory.mktemp("plans") / f"{on.partition(':')[0]}.json"
        path.write_text(_estimate(on).stdout, "utf-8")
        made.append(path)
    return made[0], made[1]


def test_one_plan_says_what_an_hour_a_month_and_a_token_cost(plans: tuple[Path, Path]) -> None:
    done = _run("cost", plans[0], "--price", "2", "--utilization", 0.5, "--carbon", 300, "--pue", 1.3)
    assert (done.exit_code, done.stderr) == (0, "")
    for words in ("$2.00 an hour, $1,460 a month", "0.50 of what it is planned for", "g CO2e", "as you say"):
        assert words in done.stdout
    assert "which is cheapest" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_what_is_printed_is_in_the_json_too(plans: tuple[Path, Path]) -> None:
    done = _run("cost", *plans, "--price", "h100-sxm=2,l40s=0.8", "--up-to", 50, "--power", "300W", "--json")
    document = json.loads(done.stdout)
    first, second = (pool["cost"] for pool in document["pools"])
    assert (first["usd_per_h"], second["usd_per_h"]) == (2.0, 0.8)
    assert (first["power_w"], first["power_is_rated"]) == (300.0, False)
    ends = [x["high_per_s"] for x in document["break_even"]["stretches"]]
    assert ends == sorted(ends)
    assert ends[-1] == 50.0


def test_several_plans_are_compared_and_drawn(plans: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "costs.html"
    done = _run("cost", *plans, "--price", "h100-sxm=2,l40s=0.8", "--plot", page)
    assert done.exit_code == 0
    assert "which is cheapest" in done.stdout
    assert "llama-3-8b on l40s:1x1" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("--price", "barter"), "choose on-demand", id="price"),
        pytest.param(("--utilization", "2"), "must lie in (0, 1]", id="utilization"),
        pytest.param(("--power", "500"), "no quantity in W", id="power without a unit"),
        pytest.param(("--carbon", "-1"), "gCO2e/kWh must lie between", id="carbon"),
        pytest.param(("--pue", "0.5"), "PUE 0.5 must be at least 1", id="pue"),
        pytest.param(("--up-to", "0"), "must be a positive number", id="rate"),
        pytest.param(("--rank", "3"), "no plan of rank 3", id="rank"),
        pytest.param(("--plot", "nowhere/costs.html"), "cannot write", id="plot"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(plans: tuple[Path, Path], words: tuple[str, ...], said: str) -> None:
    done = _run("cost", plans[0], *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_s_price_is_the_one_that_was_said(plans: tuple[Path, Path]) -> None:
    plan = json.loads(_estimate("h100-sxm:1", "--price", "1.5").stdout)["plans"][0]
    assert plan["cost"]["usd_per_h"] == 1.5
    assert plan["decode"]["price"]["kind"] == "own"
    dear = json.loads(plans[0].read_text("utf-8"))["plans"][0]
    assert plan["usd_per_mtok_output"] == pytest.approx(dear["usd_per_mtok_output"] * 1.5 / dear["cost"]["usd_per_h"])
    refused = _estimate("h100-sxm:1", "--price", "cheap")
    assert (refused.exit_code, refused.stdout) == (2, "")


ANSWER = ("--input", 512, "--output", 64, "--ttft", "500ms", "--tpot", "30ms", "--top", 1)


def test_one_command_answers_how_many_why_how_sure_what_it_costs_and_how_to_start() -> None:
    done = _run("plan", "llama-3-8b", "--on", "h100-sxm:..2", "--rate", 5, *ANSWER)
    assert done.exit_code == 0
    for words in (
        "chips          1 h100-sxm; as many at both ends",
        "why not fewer  1 is the fewest that h100-sxm:..2 allows",
        "500 ms is allowed",
        "$3.99 an hour, $2,913 a month",
        "per million input and",
        "the median of 11 prices",
        "  vllm serve meta-llama/Meta-Llama-3-8B",
        "shardwise check",
    ):
        assert words in done.stdout, words


def test_what_a_pool_for_a_rate_says_in_words_it_says_in_json() -> None:
    words = ("plan", "llama-3.1-70b", "--on", "h100-sxm:..4", "--rate", 0.2, *ANSWER, "--weights", "fp8", "--json")
    result = json.loads(_run(*words).stdout)
    size, plan = result["pool_size"], result["plans"][0]
    assert size["n_chips_low"] <= size["n_chips"] == plan["n_chips"]
    assert size["why_not_fewer"]
    assert {tried["n_chips"] for tried in size["tried"] if not tried["binds"]} >= {size["n_chips"]}
    load = plan["under_load"]
    assert load["quick"]["step_scale"] < load["step_scale"] == 1.0 < load["slow"]["step_scale"]
    assert load["quick"]["tpot_p99_s"] < load["tpot_p99_s"] < load["slow"]["tpot_p99_s"]
    # a decode step at the batch the traffic makes is within the limit that the traffic keeps
    assert plan["decode"]["step_s"] <= load["tpot_p50_s"] * 1.05
    assert plan["cost"]["requests_per_s"] == 0.2
    assert load["usd_per_mtok"] == pytest.approx(plan["cost"]["usd_per_request"] / 64 * 1e6)


def test_a_pool_that_is_too_small_says_what_binds() -> None:
    no_memory = _run("plan", "llama-3.1-70b", "--on", "h100-sxm:1", "--rate", 1, *ANSWER)
    assert (no_memory.exit_code, no_memory.stdout) == (1, "")
    assert "per chip on h100-sxm:1" in no_memory.stderr
    late = _run("plan", "llama-3.1-70b", "--on", "h100-sxm:2", "--rate", 0.1, *ANSWER, "--tpot", "5ms")
    assert "TPOT binds" in late.stderr
    assert "they do not keep them at any rate" in late.stderr


def test_light_traffic_gets_the_layouts_of_small_batches() -> None:
    # the cheapest large batch gathers weights, which takes a single prompt 20 times as long
    words = ("plan", "llama-3-8b", "--on", "tpu-v5e:2x2", "--input", 512, "--output", 64, "--top", 1, "--json")
    served = json.loads(_run(*words, "--rate", 1, "--ttft", "1s", "--tpot", "60ms").stdout)["plans"][0]
    batches = ("--prefill-batch", served["prefill"]["batch"], "--decode-batch", served["decode"]["batch"])
    alone = json.loads(_run(*words, *batches).stdout)["plans"][0]
    assert served["prefill"]["step_s"] <= 1.05 * alone["prefill"]["step_s"]
    assert served["decode"]["step_s"] <= 1.05 * alone["decode"]["step_s"]
