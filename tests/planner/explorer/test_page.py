"""The page is one file that loads nothing, holds an answer to everything it offers, and is the same each time."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.explorer import Offer, Start, live_page, make_offer, write_explorer
from shardwise.planner.explorer.question import whole_catalogue

START = Start(model="gpt2", chip="l40s", input_tokens=128, output_tokens=16)


def small_offer(**changes: Any) -> Offer:
    fields: dict[str, Any] = {"models": ["gpt2"], "chips": ["l40s"], "counts": [1, 2], "input_tokens": [128, 960]}
    return make_offer(**(fields | {"output_tokens": [16, 128]} | changes))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    write_explorer(small_offer(), START, path, made_by="shardwise whatif </script> --interactive")
    return path.read_text("utf-8")


def data_of(html: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="page">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def unpacked(held: dict[str, str]) -> Any:
    """A sheet of the grid, as the page reads it."""
    return json.loads(gzip.decompress(base64.b64decode(held["packed"])))


def test_every_question_of_the_offer_has_a_sheet_or_says_why_not(html: str) -> None:
    data = data_of(html)
    keys = {question.key for question in small_offer().questions()}
    assert set(data["sheets"]) == keys
    assert len(keys) == 4
    # gpt2 has 1024 positions
    assert "positions" in data["sheets"]["gpt2|l40s|960|128|own|own"]["error"]
    assert unpacked(data["sheets"]["gpt2|l40s|960|16|own|own"])["plans"]


def test_the_page_loads_nothing_and_may_send_nothing(html: str) -> None:
    scripts = re.findall(r"<script[^>]*>.*?</script>", html, re.DOTALL)
    outside = html.replace(max(scripts, key=len), "")  # plotly.js itself names addresses, and fetches none here
    assert not re.search(r"<script[^>]*\ssrc=", html)
    assert not re.search(r"<(img|iframe|object|embed)\b|@import|url\(", outside)
    assert re.findall(r"<link[^>]*>", outside) == ['<link rel="icon" href="data:,">']
    assert "http:" not in outside
    assert "https:" not in outside
    assert "connect-src 'none'" in outside
    assert "showSendToCloud: false" in outside


def test_text_of_the_user_cannot_end_the_script(html: str) -> None:
    assert data_of(html)["made_by"] == "shardwise whatif </script> --interactive"


def test_the_same_question_gives_the_same_page_but_for_the_seconds_it_took(html: str, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    write_explorer(small_offer(), START, again, made_by="shardwise whatif </script> --interactive")

    def timeless(text: str) -> Any:
        sheets = data_of(text)["sheets"]
        read = {key: held.get("error") or unpacked(held) | {"wall_s": 0.0} for key, held in sheets.items()}
        return read, re.sub(r'"sheets":.*?</script>', "", text, flags=re.DOTALL)

    assert timeless(again.read_text("utf-8")) == timeless(html)


def test_progress_is_told_for_every_sheet(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_explorer(
        small_offer(), START, tmp_path / "page.html", progress=lambda done, total: told.append((done, total))
    )
    assert told == [(i, 4) for i in range(5)]


def test_an_offer_without_any_answer_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="positions"):
        write_explorer(small_offer(input_tokens=[2000]), START, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_the_live_page_is_the_same_page_without_a_grid(html: str) -> None:
    live = live_page(small_offer(), START)
    assert "sheets" not in data_of(live)
    assert "connect-src 'self'" in live

    def code(text: str) -> list[str]:
        return [s for s in re.findall(r"<script>.*?</script>", text, re.DOTALL)]

    assert code(live) == code(html)


def test_the_whole_catalogue_offers_every_model_and_every_chip_that_comes_so_small() -> None:
    from shardwise.hardware_specs.catalogue import load_chips
    from shardwise.models.catalogue import load_models

    offer = whole_catalogue(8)
    assert [model.name for model in offer.models] == list(load_models())
    assert {chip.name for chip in offer.chips} <= set(load_chips())
    assert {chip.name: chip.counts for chip in offer.chips}["h100-sxm"] == (1, 2, 4, 8)
    assert offer.is_open


def test_a_chip_that_comes_in_none_of_the_counts_is_refused() -> None:
    with pytest.raises(SpecError, match="has no slice of 3001 chips"):
        make_offer(models=["gpt2"], chips=["l40s"], counts=[3001], input_tokens=[1], output_tokens=[1])
