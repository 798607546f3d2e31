"""Prices: carried over with their source, never mixed, never guessed."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shardwise.hardware_specs import prices
from shardwise.hardware_specs.catalogue import get_chip, load_chips
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.hardware_specs.prices import Payment, chip_price, load_prices, parse_payment, read_prices

HEAD = 'sources: {list: "a price list of 2026"}\nprices:\n'


def _row(usd_per_h: str = "2.5 USD/h", chip: str = "h100-sxm", kind: str = "on_demand", source: str = "list") -> str:
    return f"  - {{chip: {chip}, usd_per_h: {usd_per_h}, kind: {kind}, provider: someone, source: {source}}}\n"


def test_every_price_names_a_chip_of_the_catalogue_a_provider_and_a_source() -> None:
    assert load_prices()
    for price in load_prices():
        assert price.chip in load_chips()
        assert price.provider
        assert len(price.source) > 20


def test_every_price_is_of_one_chip_not_of_a_node() -> None:
    # the dearest single chip rented on demand costs 12.29 USD/h; a node of 8 costs more than 20
    assert all(0.1 < price.usd_per_h < 13 for price in load_prices())


def test_a_price_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_prices()[0].usd_per_h = 0.0


@pytest.mark.parametrize(
    ("name", "usd_per_h"),
    [
        pytest.param("h100-sxm", 3.99, id="the sixth of eleven"),
        pytest.param("b200", 6.89, id="the second of three"),
        pytest.param("h100-nvl", 6.98, id="the cheaper of two"),
        pytest.param("TPU v5p", 4.2, id="the only one"),
    ],
)
def test_the_price_of_a_chip_is_its_lower_median_row(name: str, usd_per_h: float) -> None:
    price = chip_price(name, Payment())
    assert price is not None
    assert (price.kind, price.usd_per_h) == ("on_demand", usd_per_h)
    offers = [row for row in load_prices() if (row.chip, row.kind) == (get_chip(name).name, "on_demand")]
    assert any(row.usd_per_h == usd_per_h and row.source in price.source for row in offers)
    assert price.n_offers == len(offers)
    ends = min(row.usd_per_h for row in offers), max(row.usd_per_h for row in offers)
    assert (price.low_usd_per_h, price.high_usd_per_h) == ends


@given(st.lists(st.integers(min_value=1, max_value=999), min_size=1, max_size=9))
def test_at_least_half_of_the_rows_are_no_dearer_and_half_no_cheaper(cents: list[int]) -> None:
    rows = read_prices(HEAD + "".join(_row(f"{cent / 100} USD/h") for cent in cents), "rows.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prices, "load_prices", lambda: rows)
        price = chip_price("h100-sxm", Payment())
    assert price is not None
    assert 2 * sum(row.usd_per_h <= price.usd_per_h for row in rows) >= len(rows)
    assert 2 * sum(row.usd_per_h >= price.usd_per_h for row in rows) >= len(rows)


def _usd_per_h(chip: str, text: str | float | None) -> float | None:
    price = chip_price(chip, parse_payment(text))
    return None if price is None else price.usd_per_h


def test_kinds_are_kept_apart() -> None:
    assert _usd_per_h("tpu-v6e", "spot") == 0.5442
    assert _usd_per_h("tpu-v6e", "on-demand") == 2.97
    assert (_usd_per_h("mi300x", "ownership"), _usd_per_h("mi300x", "reserved")) == (1.12, 1.55)


def test_a_chip_without_a_price_has_none_and_nothing_is_guessed() -> None:
    assert _usd_per_h("mi300x", None) is None


@pytest.mark.parametrize(
    ("text", "own"),
    [
        pytest.param("2.5", 2.5, id="a number"),
        pytest.param(2.5, 2.5, id="no text"),
        pytest.param("2.5 USD/h", 2.5, id="with its unit"),
        pytest.param("H100=2.5, l40s=0.8", 2.5, id="by chip"),
    ],
)
def test_a_user_s_own_price_stands_before_the_catalogue(text: str | float, own: float) -> None:
    price = chip_price("h100-sxm", parse_payment(text))
    assert price is not None
    assert (price.usd_per_h, price.kind, price.n_offers) == (own, "own", 1)


def test_chips_that_own_prices_leave_out_are_paid_on_demand() -> None:
    assert _usd_per_h("h100-sxm", "l40s=0.8") == _usd_per_h("h100-sxm", None)


@pytest.mark.parametrize(
    ("chip", "text", "reason"),
    [
        pytest.param("mi300x", "on-demand", "known: reserved, ownership", id="a kind nobody offers"),
        pytest.param("h100-nvl", "spot", "no price of h100-nvl is known as spot; known: on-demand", id="no spot"),
        pytest.param("h100-sxm", "barter", "choose on-demand, spot, reserved, ownership", id="no kind"),
        pytest.param("h100-sxm", "0", "must be a positive number", id="for nothing"),
        pytest.param("h100-sxm", -1.0, "must be a positive number", id="paid to take it"),
        pytest.param("h100-sxm", "nan", "must be a positive number", id="no number"),
        pytest.param("h100-sxm", "2.5 EUR/h", "no quantity in USD/h", id="another currency"),
        pytest.param("h100-sxm", "h1000=0.8", "no chip 'h1000'", id="an unknown chip"),
    ],
)
def test_a_price_that_is_none_is_refused_with_the_way_out(chip: str, text: str | float, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        chip_price(chip, parse_payment(text))


def test_the_price_of_an_unknown_chip_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="no chip 'h1000'"):
        chip_price("h1000", Payment())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(_row("2.5"), "USD/h", id="a bare number"),
        pytest.param(_row("2.5 EUR/h"), "no quantity in USD/h", id="another currency"),
        pytest.param(_row("0 USD/h"), "greater than 0", id="for nothing"),
        pytest.param(_row(chip="h1000"), "no chip 'h1000'", id="an unknown chip"),
        pytest.param(_row(chip="H100"), "catalogue name", id="an alias"),
        pytest.param(_row(kind="barter"), "kind", id="an unknown kind"),
        pytest.param(_row(source="hearsay"), "'hearsay' is not in sources", id="no source"),
        pytest.param("  - [\n", "while parsing", id="no YAML at all"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(row: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as refusal:
        read_prices(HEAD + row, "prices.yaml")
    assert str(refusal.value).startswith("prices.yaml: ")


KINDS = {
    "price_on_demand": "on_demand",
    "price_assumed_rental": "on_demand",
    "price_spot": "spot",
    "price_rental_3yr": "reserved_3y",
    "price_tco_hyperscaler_ownership": "ownership",
    "price_tco_neocloud_ownership": "ownership",
}


def test_every_published_price_was_carried_over(shared_dir: Path) -> None:
    ours = {(price.chip, price.kind, price.usd_per_h) for price in load_prices()}
    missing = []
    with (shared_dir / "measured" / "prices.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = (get_chip(row["hardware"]).name, KINDS[row["metric"]], float(row["value"]))
            # quality D: contradicts the others; the one PCIe price is filed under a chip that names no form factor
            if row["quality"] == "D" or "(PCIe)" in row["notes"]:
                continue
            if key not in ours:
                missing.append(row["id"])
    assert not missing
    assert ("a100-80gb-pcie", "on_demand", 3.673) in ours
