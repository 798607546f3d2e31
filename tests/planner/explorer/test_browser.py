"""The page in a real Chromium: a control is changed and the chosen plan changes, offline and served, on a desk and a phone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from shardwise.planner.api import plan
from shardwise.planner.result import Plan

Visits = Callable[..., Any]

CONTROLS = ("model", "chip", "chips", "input", "output", "batch", "weights", "kv", "ttft", "tpot", "by", "price")


@pytest.fixture(params=["offline", "served"])
def address(request: pytest.FixtureRequest) -> str:
    """The same page from either source."""
    if request.param == "offline":
        return request.getfixturevalue("offline_page").as_uri()
    return request.getfixturevalue("live_address")


def chosen(visit: Any) -> tuple[str, str, str]:
    """What the page says of the plan: headline, prefill, decode."""
    terms = visit.page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#figures-of-merit div')]"
        ".map(d => [d.children[0].textContent, d.children[1].textContent]))"
    )
    return visit.text("#headline"), terms["Prefill"], terms["Decode"]


def told(made: Plan) -> str:
    """The decode phase of a plan as the page writes it."""
    phase = made.decode
    mesh = f"tp{phase.tp}" + "".join(f" {n}{k}" for n, k in (("pp", phase.pp), ("dp", phase.dp)) if k > 1)
    return f"{phase.layout}, {mesh}, batch {phase.batch}"


def best_of(counts: tuple[int, ...], **limits: float) -> Plan:
    """What the planner chooses among exact pools, by cost."""
    asked = {"input_tokens": 2048, "output_tokens": 128}
    found = [plan("llama-3.1-8b", f"h100-sxm:{n}", **asked, **limits, objective="cost", top=1) for n in counts]
    return min((one.best for one in found if one.plans), key=lambda made: made.chip_s_per_request)


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_a_tighter_limit_changes_the_chosen_plan_to_the_planner_s(visit: Visits, address: str, width: str) -> None:
    page = visit(width).open(f"{address}#tpot=20")
    before, tighter = chosen(page), {"tpot_s": 0.006}
    assert before[2] == told(best_of((1, 2, 4), tpot_s=0.02))
    page.set("tpot", "6")
    after = chosen(page)
    assert after != before
    assert after[2] == told(best_of((1, 2, 4), **tighter))
    assert page.complaints == []
    page.keep(f"explorer-{'offline' if address.startswith('file') else 'served'}-{width}")


def test_every_control_changes_the_page_and_nothing_is_asked_of_another_host(visit: Visits, address: str) -> None:
    page = visit().open(address)
    changes = {
        "chips": "2",
        "input": "512",
        "weights": "fp8",
        "ttft": "300",
        "by": "latency",
        "price": "9",
        "chip": "l40s",
    }
    for key, value in changes.items():
        before = page.text("main"), page.text("#subject")
        page.set(key, value)
        assert (page.text("main"), page.text("#subject")) != before, key
    assert page.complaints == []
    own = urlsplit(address)
    for url in page.requests:
        there = urlsplit(url)
        assert there.scheme in ("data", "blob") or (there.scheme, there.netloc) == (own.scheme, own.netloc), url


def test_the_figures_follow_the_plan(visit: Visits, address: str) -> None:
    page = visit().open(f"{address}#chips=2&tpot=")
    star = "document.getElementById('frontier').data.find(t => t.name === 'chosen')"
    before = page.page.evaluate(f"[{star}.x[0], {star}.y[0]]")
    page.set("batch", "1")
    after = page.page.evaluate(f"[{star}.x[0], {star}.y[0]]")
    assert after != before
    told_s = plan(
        "llama-3.1-8b", "h100-sxm:2", input_tokens=2048, output_tokens=128, decode_batch=1, objective="cost"
    ).best
    assert after[0] == pytest.approx(told_s.request_latency_s, rel=1e-4)
    drawn = {
        name: page.page.evaluate(f"document.getElementById('{name}').data.length")
        for name in ("waterfall", "memory", "roofline")
    }
    assert drawn == {"waterfall": 4, "memory": 4, "roofline": 3}
    bars = page.page.evaluate("document.getElementById('waterfall').data.flatMap(t => t.x).reduce((a, b) => a + b, 0)")
    assert bars == pytest.approx(1e3 * told_s.decode.step_s, rel=1e-2)


def test_another_plan_of_the_table_can_be_looked_at(visit: Visits, offline_page: Path) -> None:
    page = visit().open(offline_page.as_uri())
    first = page.text("#headline")
    page.answered(lambda: page.page.locator("#plans button").nth(1).click())
    assert page.text("#headline").startswith("plan 2: ")
    assert page.page.locator("#plans tr[aria-current='true'] button").inner_text() == "2"
    page.answered(lambda: page.page.locator("#plans button").nth(0).click())
    assert page.text("#headline") == first


def test_where_nothing_keeps_the_limits_the_page_says_how_far_the_nearest_is(visit: Visits, address: str) -> None:
    page = visit().open(address).set("tpot", "0.1")
    assert re.search(r"No plan keeps the limits: .* TPOT [\d.]+ ms \(limit 100 us\)", page.text("#headline"))
    assert page.complaints == []


def test_a_question_that_is_refused_is_told_in_the_planner_s_words(visit: Visits, live_address: str) -> None:
    page = visit().open(live_address).set("input", "131072")
    assert page.page.locator("#trouble").is_visible()
    assert "131072 positions" in page.text("#trouble")
    page.set("input", "1024")
    assert not page.page.locator("#trouble").is_visible()


def test_the_address_holds_the_state(visit: Visits, address: str) -> None:
    page = visit().open(address).set("chips", "4").set("tpot", "8")
    held = page.page.url
    assert "chips=4" in held
    assert "tpot=8" in held
    again = visit().open(held)
    assert chosen(again) == chosen(page)
    assert again.page.locator("#chips").input_value() == "4"


def test_an_address_that_says_nonsense_leaves_the_controls_as_they_open(visit: Visits, offline_page: Path) -> None:
    plain = visit().open(offline_page.as_uri())
    page = visit().open(f"{offline_page.as_uri()}#model=%3Cscript%3E&chips=3.5&tpot=-1&by=luck&input=77&price=free")
    assert chosen(page) == chosen(plain)
    assert page.complaints == []


def test_no_button_sends_a_figure_anywhere(visit: Visits, address: str) -> None:
    page = visit().open(address)
    page.page.locator("#frontier").hover()
    buttons = page.page.evaluate(
        "[...document.querySelectorAll('.modebar-btn')].map(b => b.getAttribute('data-title') || '')"
    )
    assert buttons
    assert not any(re.search(r"share|cloud|edit|studio", button, re.IGNORECASE) for button in buttons), buttons
    assert page.page.locator(".modebar-btn--logo").count() == 0


def test_every_control_has_a_name_and_is_reached_with_visible_focus(visit: Visits, offline_page: Path) -> None:
    page = visit().open(offline_page.as_uri())
    unnamed = page.page.evaluate(
        "[...document.querySelectorAll('select, input, button')].filter(e => !(e.labels && e.labels.length)"
        " && !e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.id)"
    )
    assert unnamed == []
    reached = {}
    for _ in range(30):
        page.page.keyboard.press("Tab")
        key, outline = page.page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached[key] = outline
    assert set(CONTROLS) <= set(reached)
    assert {reached[key] for key in CONTROLS} == {"solid"}


def test_a_slider_is_moved_by_the_keyboard(visit: Visits, offline_page: Path) -> None:
    page = visit().open(offline_page.as_uri())
    slider = page.page.locator("#tpot-slider")
    slider.focus()
    page.answered(lambda: page.page.keyboard.press("ArrowLeft"))
    assert float(page.page.locator("#tpot").input_value()) < 20
    page.answered(lambda: page.page.keyboard.press("End"))
    assert page.page.locator("#tpot").input_value() == ""
    assert slider.get_attribute("aria-valuetext") == "no limit"


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_nothing_runs_out_of_the_window(visit: Visits, offline_page: Path, width: str) -> None:
    page = visit(width).open(offline_page.as_uri())
    assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = page.page.evaluate(
        "[...document.querySelectorAll('.plot')].filter(p => p.getBoundingClientRect().right > window.innerWidth).length"
    )
    assert wide == 0


def test_dark_and_light_follow_the_system_and_the_switch(visit: Visits, offline_page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('frontier').layout.font.color"
    light, dark = (visit(color_scheme=name).open(offline_page.as_uri()) for name in ("light", "dark"))
    looks = [(page.page.evaluate(paper), page.page.evaluate(ink)) for page in (light, dark)]
    assert looks[0] != looks[1]
    dark.keep("explorer-offline-dark")
    light.page.locator("#theme").select_option("dark")
    light.until(f"{ink} === {looks[1][1]!r}")
    assert light.page.evaluate(paper) == looks[1][0]


def test_it_prints_on_white_without_what_paper_cannot_do(visit: Visits, offline_page: Path) -> None:
    page = visit(color_scheme="dark").open(offline_page.as_uri())
    page.page.emulate_media(media="print")
    assert not page.page.locator("#tpot-slider").is_visible()
    assert page.page.locator("#tpot").is_visible()
    assert page.page.pdf().startswith(b"%PDF")


def test_the_table_can_be_taken_along(visit: Visits, offline_page: Path) -> None:
    page = visit().open(offline_page.as_uri())
    with page.page.expect_download() as download:
        page.page.locator("#csv").click()
    lines = Path(download.value.path()).read_text("utf-8").splitlines()
    assert lines[0].startswith("chips,prefill,prefill_batch,decode,decode_batch,ttft_s,tpot_s")
    assert len(lines) > 5
    assert all(line.count(",") == lines[0].count(",") for line in lines)


def test_the_command_on_the_page_gives_the_plan_on_the_page(visit: Visits, offline_page: Path) -> None:
    import json
    import shlex

    from shardwise.planner.cli import app
    from typer.testing import CliRunner

    page = visit().open(f"{offline_page.as_uri()}#chips=2&weights=fp8&ttft=500&tpot=9&by=throughput")
    words = shlex.split(page.text("#command"))
    done = CliRunner().invoke(app, [*words[1:], "--json"])
    assert done.exit_code == 0, done.output
    best = json.loads(done.stdout)["plans"][0]
    assert f"batch {best['decode']['batch']}" in chosen(page)[2]
    assert best["decode"]["weights"] == "fp8"
