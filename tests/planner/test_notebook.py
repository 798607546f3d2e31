"""Results as notebooks show them: whole tables, text escaped."""

from html.parser import HTMLParser

import pytest
import shardwise
from shardwise.hardware_specs.html import html_table
from shardwise.planner.break_even import break_even


class Tables(HTMLParser):
    """Reads tables back, and fails on a tag that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def result() -> shardwise.PlanResult:
    return shardwise.estimate("llama-3-8b", "h100-sxm:1", input_tokens=128, output_tokens=16, batch=4)


def test_a_result_shows_both_phases_of_each_plan(result: shardwise.PlanResult) -> None:
    rows = Tables(result._repr_html_()).rows
    assert [row[1] for row in rows] == ["phase", "prefill", "decode"]
    assert rows[2][rows[0].index("batch")] == "4"


def test_a_result_without_plans_says_why() -> None:
    none = shardwise.plan("palm-540b", "h100-sxm:1", input_tokens=128, output_tokens=16)
    assert none.nearest_miss in Tables(none._repr_html_()).rows[1][0]


def test_plans_phases_and_costs_show_themselves(result: shardwise.PlanResult) -> None:
    plan = result.best
    shown = Tables(plan._repr_html_()).rows
    assert ["usd_per_h", "3.99"] in shown
    steps = Tables(plan.decode._repr_html_()).rows
    assert {row[0] for row in steps[1:]} == {step.step for step in plan.decode.breakdown}
    pools = Tables(break_even([result, result])._repr_html_()).rows
    assert len(pools) == 5  # two heads, two pools, one stretch


def test_a_simulated_run_and_a_plan_for_a_rate_show_their_times(result: shardwise.PlanResult) -> None:
    report = shardwise.simulate(result, rate_per_s=2.0, n_requests=40)
    rows = Tables(report._repr_html_()).rows
    assert [row[0] for row in rows] == ["", "TTFT", "TPOT", "ITL", "E2E"]
    rated = shardwise.plan("llama-3-8b", "h100-sxm:1", input_tokens=128, output_tokens=16, rate_per_s=2.0, top=1)
    shown = rated._repr_html_()
    assert "why not fewer: 1 is the fewest that h100-sxm:1 allows" in shown
    assert "most req/s" in Tables(shown).rows[3]
    assert "most req/s" in Tables(rated.best._repr_html_()).rows[3]


def test_answers_to_a_what_if_show_a_row_a_point() -> None:
    asked = {"vary": ["batch=4,8", "weights=bf16,int8"], "input_tokens": 128, "output_tokens": 16}
    rows = Tables(shardwise.what_if("llama-3-8b", "h100-sxm:1", **asked)._repr_html_()).rows
    assert rows[0][:3] == ["batch", "weights", "n_chips"]
    assert [row[:2] for row in rows[1:]] == [["4", "bf16"], ["4", "int8"], ["8", "bf16"], ["8", "int8"]]


def test_what_looks_like_a_tag_is_text() -> None:
    assert "<script>" not in html_table(["<script>"], [["<script>"]], "<script>")
