"""Dollars, joules and grams against figures worked out by hand, and against each other."""

from itertools import pairwise

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.cost.money import (
    Offer,
    cheapest_offers,
    co2e_g,
    copies_for,
    month_usd,
    pool_usd_per_h,
    spent_usd,
    split_usd,
    usd_per_mtok,
)


def test_eight_chips_at_two_dollars_that_write_a_thousand_tokens_a_second() -> None:
    # 16 USD/h over 3.6 million tokens an hour
    assert usd_per_mtok(spent_usd(16.0, 1.0), 1000.0) == pytest.approx(16.0 / 3.6)
    assert month_usd(16.0) == 11680.0  # 16 x 8760 / 12


def test_a_request_split_over_its_tokens_adds_up_to_the_request() -> None:
    reading, writing = split_usd(0.03, 0.2)
    assert reading + writing == pytest.approx(0.03)
    assert reading == pytest.approx(0.006)


def test_carbon_is_that_of_the_published_formula() -> None:
    # Patterson2021's form: 1 h x 8 processors x 330 W x PUE 1.1 / 1000 = 2.904 kWh, at 0.429 kg/kWh
    assert co2e_g(8 * 330.0 * 3600.0, 429.0, 1.1) == pytest.approx(2.904 * 429.0)


def test_formulas_have_the_dimensions_of_what_they_are() -> None:
    units = pint.UnitRegistry(None)
    for line in ("second = [time] = s", "joule = [energy] = J", "gram = [mass] = g", "usd = [money]"):
        units.define(line)
    energy, intensity = 5.0 * units.joule, 400.0 * units.gram / units.joule
    assert co2e_g(energy, intensity, 1.2).check("[mass]")
    assert spent_usd(2.0 * units.usd / units.s, 3.0 * units.s).check("[money]")
    assert usd_per_mtok(2.0 * units.usd / units.s, 10.0 / units.s).check("[money]")


@given(st.floats(0.1, 1e3), st.integers(1, 50), st.floats(0.0, 1.0, exclude_min=True, exclude_max=True))
def test_copies_are_the_fewest_that_carry_the_rate(capacity: float, whole: int, part: float) -> None:
    assert copies_for(whole * capacity, capacity) == whole
    rate = (whole + part) * capacity
    copies = float(copies_for(rate, capacity))
    assert copies * capacity >= rate * (1 - 1e-12)
    assert (copies - 1) * capacity < rate


offers = st.builds(
    Offer,
    name=st.sampled_from("abc"),
    capacity_per_s=st.floats(0.5, 20.0),
    usd_per_h=st.floats(0.5, 100.0),
)


@given(st.lists(offers, min_size=1, max_size=4), st.floats(1.0, 100.0))
def test_the_cheapest_stretches_cover_every_rate_and_nothing_beats_them(pools: list[Offer], most: float) -> None:
    found = cheapest_offers(pools, most)
    assert found[0].low_per_s == 0.0
    assert found[-1].high_per_s == most
    assert all(a.high_per_s == b.low_per_s and a.offer != b.offer for a, b in pairwise(found))
    for x in found:
        # strictly inside: on an edge two capacities may round apart
        rates = x.low_per_s + (x.high_per_s - x.low_per_s) * np.linspace(0.01, 0.99, 50)
        others = np.min([pool_usd_per_h(pool, rates) for pool in pools], axis=0)
        assert (pool_usd_per_h(x.offer, rates) <= others * (1 + 1e-9)).all()


def test_a_small_pool_is_cheaper_until_it_is_needed_too_often() -> None:
    small = Offer(name="small", capacity_per_s=3.0, usd_per_h=4.0)
    large = Offer(name="large", capacity_per_s=30.0, usd_per_h=10.0)
    found = cheapest_offers([small, large], 100.0)
    # two small ones carry 6 requests/s for 8 USD/h, three would cost 12
    assert [(x.offer.name, x.high_per_s) for x in found] == [("small", 6.0), ("large", 100.0)]


@pytest.mark.parametrize(
    ("capacity", "price", "most", "words"),
    [
        pytest.param(0.0, 1.0, 1.0, "capacity_per_s=0.0 must be a positive number", id="carries nothing"),
        pytest.param(1.0, float("nan"), 1.0, "usd_per_h=nan", id="no price"),
        pytest.param(1.0, 1.0, -1.0, "a rate of -1.0", id="no rate"),
        pytest.param(1e-9, 1.0, 1e3, "times what a carries", id="too many copies"),
    ],
)
def test_offers_and_rates_that_are_none_are_refused(capacity: float, price: float, most: float, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        cheapest_offers([Offer(name="a", capacity_per_s=capacity, usd_per_h=price)], most)


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(SpecError, match="at least one offer"):
        cheapest_offers([], 1.0)
