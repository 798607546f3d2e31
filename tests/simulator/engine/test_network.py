"""Links are shared max-min fairly, and what goes in comes out."""

from collections.abc import Hashable

import networkx as nx
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.cluster import build_graph, parse_pool
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.engine.network import Network, serving_graph, shortest_route

# a few sums and quotients of doubles
_ROUNDING = 1e-12


def _chain(*bytes_per_s: float) -> Network:
    """Vertices 0, 1, 2, ... in a row."""
    graph = nx.Graph()
    for i, rate in enumerate(bytes_per_s):
        graph.add_edge(i, i + 1, bytes_per_s=rate)
    return Network(simpy.Environment(), graph)


def _ends_s(network: Network, transfers: list[tuple[float, Hashable, Hashable, float]]) -> list[float]:
    """When transfers end that start at given times."""
    ends = [-1.0] * len(transfers)

    def go(i: int, start_s: float, src: Hashable, dst: Hashable, n_bytes: float):
        yield network.env.timeout(start_s)
        yield network.transfer(src, dst, n_bytes)
        ends[i] = network.env.now

    for i, transfer in enumerate(transfers):
        network.env.process(go(i, *transfer))
    network.env.run()
    return ends


def _approx(values: list[float]) -> object:
    return pytest.approx(values, rel=_ROUNDING)


def test_a_flow_alone_has_the_slowest_link_of_its_route() -> None:
    assert _ends_s(_chain(10.0, 4.0, 20.0), [(0.0, 0, 3, 100.0)]) == _approx([25.0])


def test_two_equal_flows_on_one_link_take_twice_as_long() -> None:
    assert _ends_s(_chain(10.0), [(0.0, 0, 1, 100.0)] * 2) == _approx([20.0, 20.0])


def test_the_two_directions_of_a_link_do_not_share() -> None:
    assert _ends_s(_chain(10.0), [(0.0, 0, 1, 100.0), (0.0, 1, 0, 100.0)]) == _approx([10.0, 10.0])


def test_a_flow_that_comes_later_puts_off_the_end_that_was_due() -> None:
    # the first has 50 bytes left at 5 s and then 5 bytes/s until 15 s; the second has 50 left there and 10 bytes/s
    assert _ends_s(_chain(10.0), [(0.0, 0, 1, 100.0), (5.0, 0, 1, 100.0)]) == _approx([15.0, 20.0])


def test_a_flow_that_comes_at_the_moment_of_an_end_does_not_touch_it() -> None:
    assert _ends_s(_chain(10.0), [(0.0, 0, 1, 100.0), (10.0, 0, 1, 100.0)]) == _approx([10.0, 20.0])


def test_the_rates_over_three_links_are_the_max_min_fair_ones() -> None:
    # the middle link, 4 for two flows, stops the long flow at 2; the others have what is left of 10 and of 12, and
    # with those rates each one's bytes take a second
    flows = [(0.0, 0, 3, 2.0), (0.0, 0, 1, 8.0), (0.0, 1, 2, 2.0), (0.0, 2, 3, 10.0)]
    assert _ends_s(_chain(10.0, 4.0, 12.0), flows) == _approx([1.0] * 4)


def test_what_one_bottleneck_leaves_free_is_shared_by_the_rest() -> None:
    # 1 of the 9 goes to the flow that the second link holds back; the other two have 4 each
    flows = [(0.0, 0, 2, 1.0), (0.0, 0, 1, 4.0), (0.0, 0, 1, 4.0)]
    assert _ends_s(_chain(9.0, 1.0), flows) == _approx([1.0] * 3)


def test_flows_that_share_no_link_do_not_see_each_other() -> None:
    assert _ends_s(_chain(10.0, 5.0), [(0.0, 0, 1, 100.0), (3.0, 1, 2, 100.0)]) == _approx([10.0, 23.0])


@pytest.mark.parametrize(("src", "dst", "n_bytes"), [(0, 2, 0.0), (1, 1, 100.0)])
def test_nothing_and_a_transfer_to_oneself_end_at_once(src: int, dst: int, n_bytes: float) -> None:
    assert _ends_s(_chain(10.0, 10.0), [(3.0, src, dst, n_bytes)]) == [3.0]


def test_an_explicit_route_is_taken_even_if_it_is_longer() -> None:
    graph = nx.cycle_graph(4)
    nx.set_edge_attributes(graph, 10.0, "bytes_per_s")
    network = Network(simpy.Environment(), graph)
    network.env.run(network.send((0, 3, 2, 1), 50.0))
    assert network.env.now == pytest.approx(5.0, rel=_ROUNDING)
    carried = [network.carried_bytes(*hop) for hop in [(0, 3), (3, 2), (2, 1), (0, 1), (1, 0)]]
    assert carried == [50.0, 50.0, 50.0, 0.0, 0.0]


def test_bytes_under_way_are_counted_as_far_as_they_have_come() -> None:
    network = _chain(10.0)
    network.transfer(0, 1, 100.0)
    network.env.run(4.0)
    assert network.carried_bytes(0, 1) == pytest.approx(40.0, rel=_ROUNDING)


def test_a_place_that_no_way_leads_to_is_refused() -> None:
    graph = nx.Graph()
    graph.add_edge(0, 1, bytes_per_s=1.0)
    graph.add_node(2)
    network = Network(simpy.Environment(), graph)
    for src, dst in [(0, 2), (0, 7), (7, 0), (7, 7)]:
        with pytest.raises(SpecError, match=f"no way from {src} to {dst}"):
            network.transfer(src, dst, 1.0)
    with pytest.raises(SpecError, match="no link from 1 to 2"):
        network.send((0, 1, 2), 1.0)


@pytest.mark.parametrize(
    ("src", "dst", "route"),
    [
        pytest.param((0, 0, 0), (1, 1, 1), [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)], id="dimension-by-dimension"),
        pytest.param((0, 0, 0), (0, 3, 3), [(0, 0, 0), (0, 3, 0), (0, 3, 3)], id="around-the-end"),
        pytest.param((3, 0, 0), (1, 0, 0), [(3, 0, 0), (0, 0, 0), (1, 0, 0)], id="half-around-goes-forwards"),
    ],
)
def test_a_route_on_a_torus_goes_one_dimension_after_the_other(
    src: tuple[int, ...], dst: tuple[int, ...], route: list[tuple[int, ...]]
) -> None:
    (slice_,) = parse_pool("tpu-v4:4x4x4")
    assert list(shortest_route(build_graph(slice_), src, dst)) == route


def test_chips_of_different_nodes_meet_over_their_network_ports() -> None:
    (slice_,) = parse_pool("h100-sxm:2x8")
    graph = build_graph(slice_)
    inside, across = (shortest_route(graph, (0, 0), chip) for chip in [(0, 5), (1, 5)])
    assert inside == ((0, 0), ("switch", 0), (0, 5))
    assert across == ((0, 0), ("nic", 0, 0), ("fabric",), ("nic", 1, 5), (1, 5))


def test_replicas_share_the_ports_of_the_one_they_send_to() -> None:
    network = Network(simpy.Environment(), serving_graph([(0, 10.0), (1, 10.0), (5, 4.0), (6, 100.0)]))
    # 2 bytes/s each into replica 5; what the second has left of its port goes to replica 6
    ends = _ends_s(network, [(0.0, 0, 5, 20.0), (0.0, 1, 5, 20.0), (0.0, 1, 6, 80.0)])
    assert ends == _approx([10.0] * 3)


def test_a_link_that_is_laid_later_serves_from_then_on() -> None:
    graph = serving_graph([(0, 10.0), (1, 10.0)])
    network = Network(simpy.Environment(), graph)
    network.env.run(network.transfer(0, 1, 10.0))
    network.add_link(2, ("fabric",), 5.0)
    network.env.run(network.transfer(0, 2, 10.0))
    assert network.env.now == pytest.approx(3.0, rel=_ROUNDING)
    assert 2 not in graph


@st.composite
def _transfers(draw: st.DrawFn) -> list[tuple[float, int, int, float]]:
    places = st.integers(0, 4)
    one = st.tuples(st.sampled_from([0.0, 0.5, 1.0, 3.0]), places, places, st.integers(0, 50).map(float))
    return draw(st.lists(one, max_size=15))


@given(_transfers(), st.lists(st.integers(1, 20).map(float), min_size=5, max_size=5))
def test_every_byte_arrives_and_no_link_is_faster_than_it_is(
    transfers: list[tuple[float, int, int, float]], rates: list[float]
) -> None:
    network = Network(simpy.Environment(), serving_graph(list(enumerate(rates))))
    ends = _ends_s(network, transfers)
    for place, rate in enumerate(rates):
        for hop, end in [((place, ("fabric",)), 1), ((("fabric",), place), 2)]:
            due = [t[3] for t in transfers if t[end] == place and t[1] != t[2]]
            assert network.carried_bytes(*hop) == pytest.approx(sum(due), rel=_ROUNDING, abs=1e-9)
            assert sum(due) <= rate * network.env.now * (1 + _ROUNDING)
    for (start_s, src, dst, n_bytes), end_s in zip(transfers, ends, strict=True):
        alone_s = n_bytes / min(rates[src], rates[dst]) if src != dst else 0.0
        assert end_s - start_s >= alone_s * (1 - 1e-9)  # a difference of two times keeps fewer digits


@given(st.lists(st.integers(1, 50).map(float), min_size=1, max_size=10))
def test_one_link_is_full_until_the_last_byte(sizes: list[float]) -> None:
    ends = _ends_s(_chain(8.0), [(0.0, 0, 1, size) for size in sizes])
    assert max(ends) == pytest.approx(sum(sizes) / 8.0, rel=_ROUNDING)


def test_the_same_transfers_end_in_the_same_order() -> None:
    flows = [(0.1 * i, i % 4, (3 * i + 1) % 4, 10.0 + i % 7) for i in range(60)]
    runs = [_ends_s(Network(simpy.Environment(), serving_graph([(i, 3.0 + i) for i in range(4)])), flows) for _ in "ab"]
    assert runs[0] == runs[1]
