"""Requests drawn from an arrival process and lengths."""

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.workload.gaps import Even, Gamma
from shardwise.simulator.workload.lengths import Empirical, Fixed, LogNormal
from shardwise.simulator.workload.synthetic import ClosedLoop, SyntheticTraffic

LENGTHS = LogNormal(input_mean=500.0, output_mean=100.0)
TRAFFIC = SyntheticTraffic(process=Gamma(rate_per_s=4.0), lengths=LENGTHS, n_requests=5000, priority_shares=(0.2, 0.8))
SEED = np.random.SeedSequence(7)


def column(traffic, name, seed=SEED):
    return [getattr(arrival, name) for arrival in traffic.arrivals(seed)]


def test_the_stream_has_the_requests_it_says_in_order():
    found = list(TRAFFIC.arrivals(SEED))
    assert len(found) == TRAFFIC.n_requests
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(found))
    assert {a.block_hashes for a in found} == {()}


def test_one_seed_gives_one_stream_however_often_it_is_asked():
    assert list(TRAFFIC.arrivals(SEED)) == list(TRAFFIC.arrivals(SEED))
    assert column(TRAFFIC, "arrival_s") != column(TRAFFIC, "arrival_s", np.random.SeedSequence(8))


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        pytest.param({"lengths": Fixed(input_tokens=1, output_tokens=1)}, ("arrival_s", "priority"), id="lengths"),
        pytest.param({"process": Even(rate_per_s=1.0)}, ("input_tokens", "output_tokens", "priority"), id="arrivals"),
        pytest.param({"priority_shares": (0.5, 0.5)}, ("arrival_s", "input_tokens", "output_tokens"), id="priorities"),
    ],
)
def test_changing_one_source_leaves_what_the_others_draw(changes, others):
    changed = replace(TRAFFIC, **changes)
    for name in others:
        assert column(changed, name) == column(TRAFFIC, name)


def test_more_requests_begin_with_the_same_ones():
    longer = list(replace(TRAFFIC, n_requests=9000).arrivals(SEED))
    assert longer[: TRAFFIC.n_requests] == list(TRAFFIC.arrivals(SEED))


def test_priorities_come_in_their_shares():
    found = np.array(column(TRAFFIC, "priority"))
    assert set(found.tolist()) == {0, 1}
    # a binomial share of 5000 draws, within 4 deviations
    assert np.mean(found == 0) == pytest.approx(0.2, abs=4.0 * np.sqrt(0.16 / 5000))


def test_drawing_a_hundred_thousand_requests_takes_little_time():
    many = Empirical(tuple((i, i) for i in range(1, 50_001)))
    traffic = replace(TRAFFIC, lengths=many, n_requests=100_000)
    began = time.perf_counter()
    assert sum(1 for _ in traffic.arrivals(SEED)) == 100_000
    # 0.15 s on slow cores; the bound only tells draws in chunks from one draw a request (2 s)
    assert time.perf_counter() - began < 1.5


def test_users_of_a_closed_loop_send_requests_without_a_time_of_their_own():
    loop = ClosedLoop(n_users=3, lengths=LENGTHS, n_requests=10)
    found = list(loop.requests(SEED))
    assert len(found) == 10
    assert {a.arrival_s for a in found} == {0.0}
    assert found == list(replace(loop, n_users=5).requests(SEED))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"n_requests": 0}, id="no requests"),
        pytest.param({"priority_shares": ()}, id="no shares"),
        pytest.param({"priority_shares": (0.5, 0.4)}, id="shares that miss 1"),
        pytest.param({"priority_shares": (1.5, -0.5)}, id="negative share"),
        pytest.param({"priority_shares": (float("nan"), 1.0)}, id="share that is no number"),
    ],
)
def test_what_is_no_traffic_is_refused(changes):
    with pytest.raises(SpecError):
        replace(TRAFFIC, **changes)


@pytest.mark.parametrize("changes", [{"n_users": 0}, {"n_requests": 0}, {"think_s": -1.0}, {"think_s": float("nan")}])
def test_what_is_no_loop_is_refused(changes):
    with pytest.raises(SpecError):
        ClosedLoop(**{"n_users": 1, "lengths": LENGTHS, "n_requests": 1} | changes)
