"""A what-if's page in a real Chromium: drawn, sorted, filtered, downloaded, dark, on a phone; nothing asked of anybody."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shardwise.planner.figures import write_charts
from shardwise.planner.whatif.ask import what_if
from shardwise.planner.whatif.page import whatif_page

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 points, some of which do not fit."""
    vary = ["weights=fp16,int8", "batch=1..50", "hbm=x1,x0.0056,x0.001"]
    answer = what_if("gpt2", "l40s:1", vary=vary, input_tokens=100, output_tokens=20)
    assert 0 < answer.n_fitting < answer.n_points == 300
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_charts(whatif_page(answer, "shardwise whatif ..."), path)
    return path


@pytest.fixture(params=sorted(WIDTHS))
def page(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page at one width; at the end nothing was asked of anybody and nothing went wrong."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    opened, asked, complaints = context.new_page(), [], []
    opened.on("request", lambda one: asked.append(one.url))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
    opened.goto(report.as_uri())
    opened.wait_for_selector("#figure-tradeoff .main-svg")
    yield opened
    outside = [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    context.close()
    assert (outside, complaints) == ([], [])


def test_the_page_is_drawn_and_offers_to_send_nothing(page: Any) -> None:
    assert page.locator(".main-svg").count() >= 2
    buttons = page.eval_on_selector_all(".modebar-btn", "all => all.map(b => b.dataset.title || '')")
    assert buttons
    assert not [title for title in buttons if "share" in title.lower() or "cloud" in title.lower()]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_rows_are_sorted_by_a_column_both_ways(page: Any) -> None:
    column = page.locator("th button", has_text="request_latency_s").first
    place = page.evaluate("[...document.querySelectorAll('th')].findIndex(t => t.textContent === 'request_latency_s')")

    def shown() -> list[float]:
        cells = page.eval_on_selector_all("tbody tr", f"rows => rows.map(r => r.children[{place}].textContent)")
        return [float(cell) for cell in cells if cell]

    column.click()
    rising = shown()
    assert rising == sorted(rising)
    column.click()
    assert shown() == sorted(shown(), reverse=True)
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_long_tables_are_shown_in_parts_and_can_be_filtered(page: Any) -> None:
    assert page.locator("tbody tr").count() == 200
    page.locator("#more").click()
    assert page.locator("tbody tr").count() == 300
    page.locator("#filter").fill("x0.001")
    assert page.locator("#count").inner_text() == "100 of 100 rows"
    assert page.locator("tbody tr.out").count() == 100


def test_the_table_is_downloaded_as_it_is_filtered(page: Any, tmp_path: Path) -> None:
    page.locator("#filter").fill("int8")
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / "rows.csv"
    download.value.save_as(path)
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert len(rows) == 150
    assert {row["weights"] for row in rows} == {"int8"}
    assert any(row["reason"].startswith("needs") for row in rows)


def test_light_and_dark_change_the_figures_too(page: Any) -> None:
    def paper() -> str:
        return str(page.evaluate("document.querySelector('#figure-response')._fullLayout.paper_bgcolor"))

    before = paper()
    page.locator("#theme").click()
    assert paper() != before
    page.locator("#theme").click()
    assert paper() == before


def test_panels_lie_under_each_other_on_a_phone(page: Any) -> None:
    domains = page.evaluate(
        "['xaxis', 'xaxis2'].map(a => document.querySelector('#figure-response')._fullLayout[a].domain)"
    )
    is_phone = page.evaluate("window.innerWidth") < 600
    assert (domains[0] == domains[1]) == is_phone
