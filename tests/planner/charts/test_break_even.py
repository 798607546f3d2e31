"""The chart of costs shows what the table says."""

from shardwise.planner.break_even import compare_offers
from shardwise.planner.charts.break_even import break_even_chart
from shardwise.planner.result import WorkloadShape
from shardwise.simulator.cost.money import Offer

SMALL = Offer(name="small", capacity_per_s=3.0, usd_per_h=4.0)
LARGE = Offer(name="large", capacity_per_s=30.0, usd_per_h=10.0)


def test_every_pool_has_a_curve_and_every_crossing_a_line() -> None:
    found = compare_offers([SMALL, LARGE], WorkloadShape(input_tokens=100, output_tokens=20), most_per_s=90.0)
    month, token = break_even_chart(found).panels
    assert [curve.name for curve in month.curves if curve.style == "steps"] == ["small", "large"]
    guides = [curve for curve in month.curves if curve.style == "guide"]
    assert [curve.x[0] for curve in guides] == [6.0]
    for pool, curve in zip(found.pools, token.curves, strict=True):
        assert curve.x == pool.rate_per_s
        assert curve.y == pool.usd_per_mtok


def test_the_cheapest_curve_is_the_pool_of_the_stretch() -> None:
    found = compare_offers([SMALL, LARGE], WorkloadShape(input_tokens=100, output_tokens=20), most_per_s=90.0)
    small, large = (pool.usd_per_month for pool in found.pools)
    for rate, ours, theirs in zip(found.pools[0].rate_per_s, small, large, strict=True):
        cheapest = next(x.name for x in found.stretches if x.low_per_s < rate <= x.high_per_s)
        assert cheapest == ("small" if ours <= theirs else "large")
