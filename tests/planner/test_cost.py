"""A plan's cost: parts add up, and follow the terms they depend on."""

from functools import cache

import pytest
import shardwise
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.errors import SpecError
from shardwise.hardware_specs.prices import parse_payment
from shardwise.planner.break_even import break_even
from shardwise.planner.cost import CostTerms, offer_of, plan_cost, with_cost
from shardwise.planner.result import PlanResult

ASKED = {"input_tokens": 512, "output_tokens": 64, "batch": 16}


@cache
def estimated(on: str = "h100-sxm:1", price: str | None = None, decode_on: str | None = None) -> PlanResult:
    return shardwise.estimate("llama-3-8b", on, price=price, decode_on=decode_on, **ASKED)


def test_the_cost_of_a_request_is_that_of_its_tokens() -> None:
    result = estimated()
    cost = result.best.cost
    assert cost is not None
    tokens = result.workload
    parts = (cost.usd_per_mtok_input * tokens.input_tokens + cost.usd_per_mtok_output * tokens.output_tokens) / 1e6
    assert parts == pytest.approx(cost.usd_per_request)
    assert cost.usd_per_mtok * (tokens.input_tokens + tokens.output_tokens) / 1e6 == pytest.approx(cost.usd_per_request)
    assert result.best.usd_per_mtok_output * tokens.output_tokens / 1e6 == pytest.approx(cost.usd_per_request)
    joules = cost.energy_j_per_input_token * tokens.input_tokens + cost.energy_j_per_output_token * tokens.output_tokens
    assert joules == pytest.approx(cost.energy_j_per_request)


def test_phases_of_a_shared_slice_cost_what_the_plan_says_of_input_and_output() -> None:
    plan = estimated().best
    assert plan.cost is not None
    # the cache's reshard between the phases is in the plan and in neither phase; here there is none
    assert plan.prefill.usd_per_mtok == pytest.approx(plan.cost.usd_per_mtok_input)
    assert plan.decode.usd_per_mtok == pytest.approx(plan.cost.usd_per_mtok_output)


def test_an_hour_costs_its_chips_and_half_the_load_doubles_a_token() -> None:
    result = estimated("h100-sxm:4", price="2.5")
    full = result.best.cost
    assert full is not None
    assert (full.usd_per_h, full.usd_per_month) == (10.0, 7300.0)
    half = plan_cost(result.best, result.workload, CostTerms(utilization=0.5))
    assert half.usd_per_h == full.usd_per_h
    assert half.usd_per_mtok_output == pytest.approx(2 * full.usd_per_mtok_output)
    assert half.energy_j_per_output_token == pytest.approx(2 * full.energy_j_per_output_token)


def test_phases_with_chips_of_their_own_are_split_by_their_price() -> None:
    result = estimated("h100-sxm:1", "h100-sxm=3,l40s=1", "l40s:1")
    cost = result.best.cost
    assert cost is not None
    assert (cost.usd_per_h, cost.input_share) == (4.0, 0.75)
    rated = get_chip("h100-sxm").tdp_w.value + get_chip("l40s").tdp_w.value
    assert cost.power_w == rated


def test_carbon_is_asked_for_and_power_may_be_said() -> None:
    result = estimated()
    assert result.best.cost.co2e_g_per_request is None
    cost = plan_cost(result.best, result.workload, CostTerms(power_w=360.0, grid_g_per_kwh=100.0, pue=1.5))
    assert cost.energy_j_per_request == pytest.approx(360.0 / cost.requests_per_s)
    assert cost.co2e_g_per_request == pytest.approx(cost.energy_j_per_request / 3.6e6 * 1.5 * 100.0)
    assert not cost.power_is_rated


def test_what_is_unknown_stays_unknown() -> None:
    # no maker publishes the power of a TPU v5e, nobody sells a TPU v7x by the hour in the catalogue
    assert estimated("tpu-v5e:4").best.cost.energy_j_per_request is None
    plan = estimated("tpu-v7x:2x2x1").best
    assert (plan.cost.usd_per_h, plan.usd_per_mtok_output, plan.prefill.price) == (None, None, None)
    with pytest.raises(SpecError, match="no price of tpu-v7x"):
        offer_of(estimated("tpu-v7x:2x2x1"))


def test_a_plan_is_paid_for_otherwise_without_being_made_again() -> None:
    result = estimated()
    again = with_cost(result.best, result.workload, parse_payment("spot"))
    assert again.decode.price.kind == "spot"
    assert again == estimated(price="spot").best


def test_a_kind_of_price_nobody_asks_is_refused_before_anything_is_searched() -> None:
    with pytest.raises(SpecError, match="no price of l40s is known as spot"):
        estimated("l40s:1", price="spot")


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        pytest.param({"utilization": 0.0}, "utilization 0.0", id="idle"),
        pytest.param({"utilization": 1.1}, "utilization 1.1", id="more than full"),
        pytest.param({"power_w": -1.0}, "power of -1 W", id="power"),
        pytest.param({"grid_g_per_kwh": float("nan")}, "gCO2e/kWh", id="grid"),
        pytest.param({"pue": 0.9}, "PUE 0.9", id="pue"),
    ],
)
def test_terms_that_nothing_can_have_are_refused(terms: dict[str, float], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        CostTerms(**terms)


def test_pools_are_laid_beside_each_other_where_they_cross() -> None:
    found = break_even([estimated(price="2"), estimated("l40s:1", price="0.8")], most_per_s=200.0)
    assert {x.name for x in found.stretches} == {"llama-3-8b on h100-sxm:1x1", "llama-3-8b on l40s:1x1"}
    for pool in found.pools:
        rates, copies = pool.rate_per_s, pool.copies
        assert all(n * pool.capacity_per_s >= rate * (1 - 1e-9) for rate, n in zip(rates, copies, strict=True))
        assert pool.usd_per_month[-1] == pytest.approx(copies[-1] * pool.usd_per_h * 730.0)
        assert min(pool.usd_per_mtok) >= pool.usd_per_mtok_full * (1 - 1e-9)


def test_plans_for_other_requests_are_not_compared() -> None:
    other = shardwise.estimate("llama-3-8b", "h100-sxm:1", input_tokens=256, output_tokens=64, batch=16)
    with pytest.raises(SpecError, match="256 in and 64 out, 512 in and 64 out tokens"):
        break_even([estimated(), other])
    with pytest.raises(SpecError, match="at least one plan"):
        break_even([])


def test_equal_pools_are_told_apart_by_number() -> None:
    names = [pool.name for pool in break_even([estimated(), estimated()]).pools]
    assert names == ["llama-3-8b on h100-sxm:1x1 (1)", "llama-3-8b on h100-sxm:1x1 (2)"]
