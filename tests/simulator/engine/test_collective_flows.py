"""Collectives simulated send by send take the time of the closed form, and carry the bytes that theory says."""

from typing import Any

import pytest
import simpy
from shardwise.hardware_specs.cluster import Mesh, Slice, build_graph, meshes, parse_pool
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.cost.collectives import collective_time_s
from shardwise.simulator.cost.machine import make_machine
from shardwise.simulator.engine.collective_flows import FlowKind, collective_s, start_collective
from shardwise.simulator.engine.network import Network

GB = 1e9
_GATHERS: tuple[FlowKind, ...] = ("all_gather", "reduce_scatter", "all_reduce")
_ALL: tuple[FlowKind, ...] = (*_GATHERS, "all_to_all")
# sums over some hundred rounds
_ROUNDING = 1e-9
# two levels hand over in 64 pieces, and the first or the last of them has nothing beside it: 1/64
_PIECES = 0.02


def _wiring(pool: str, mapping: str, pp: int = 1, dp: int = 1) -> tuple[Slice, Mesh]:
    (slice_,) = parse_pool(pool)
    (mesh,) = (mesh for mesh in meshes(slice_, pp, dp) if mesh.mapping == mapping)
    return slice_, mesh


_TABLE: list[tuple[str, str, str, tuple[FlowKind, ...], tuple[bool, ...]]] = [
    ("tpu-v4:4x4x4", "x=4 y=4 z=4", "x", _ALL, (True, False)),
    ("tpu-v4:4x4x4", "x=4 y=4 z=4", "yz", ("all_to_all",), (True,)),
    ("tpu-v4:4x4x4", "x=4 y=4 z=4", "xyz", ("all_to_all",), (True,)),
    ("tpu-v4:4x4x4", "x=4 y=4 z=4", "yz", _GATHERS, (True, False)),
    ("tpu-v4:4x4x4", "x=4 y=4 z=4", "xyz", _GATHERS, (True, False)),
    ("tpu-v4:4x4x4", "x=4x4 y=4 z=1", "x", _GATHERS, (True, False)),
    ("tpu-v4:4x4x4", "x=4x4x4 y=1 z=1", "x", _ALL, (True,)),
    ("tpu-v4:4x4x8", "x=4x4 y=8 z=1", "y", _ALL, (True, False)),
    ("tpu-v4:4x4x8", "x=4x8 y=4 z=1", "x", _GATHERS, (False,)),
    ("tpu-v4:2x2x4", "x=2x2 y=4 z=1", "y", _ALL, (True, False)),
    ("tpu-v4:2x2x4", "x=2x2 y=4 z=1", "x", _GATHERS, (True, False)),
    ("tpu-v4:2x2x2", "x=2x2 y=2 z=1", "y", _ALL, (True, False)),
    ("tpu-v5e:8x16", "x=8 y=16 z=1", "y", _ALL, (True, False)),
    ("h100-sxm:8", "y=2 in z=4", "z", _ALL, (True,)),
    ("h100-sxm:8", "y=2 in z=4", "yz", _ALL, (True, False)),
    ("h100-sxm:4x8", "z=32", "z", _ALL, (True,)),
    ("h100-sxm:4x8", "y=2 in z=16", "z", _ALL, (True,)),
    ("h100-sxm:4x8", "z=16 in y=2", "y", _ALL, (True,)),
    ("h100-sxm:4x8", "z=16 in y=2", "yz", _ALL, (True,)),
    ("a100-80gb-sxm:2x8", "z=16", "z", _ALL, (True,)),
    ("mi300x:8", "z=8", "z", _ALL, (True,)),
    ("mi300x:2x8", "z=16", "z", _ALL, (True,)),
]


@pytest.mark.parametrize(
    ("pool", "mapping", "axes", "kind", "at_once"),
    [
        pytest.param(pool, mapping, axes, kind, flag, id=f"{pool} {mapping}: {kind} {axes}{' at once' * flag}")
        for pool, mapping, axes, kinds, flags in _TABLE
        for kind in kinds
        for flag in flags
    ],
)
def test_flows_on_idle_wires_take_the_time_of_the_closed_form(
    pool: str, mapping: str, axes: str, kind: FlowKind, at_once: bool
) -> None:
    slice_, mesh = _wiring(pool, mapping)
    machine = make_machine(slice_.chip, [mesh])
    expected = collective_time_s(
        kind, tuple(axes), GB, machine, efficiency=1.0, network_efficiency=1.0, axes_at_once=at_once
    )
    found = collective_s(kind, axes, GB, slice_, mesh, axes_at_once=at_once)
    one_level = not mesh.shared_port or slice_.shape[0] == 1
    rel = _ROUNDING if one_level and kind != "all_to_all" else _PIECES
    assert found == pytest.approx(float(expected), rel=rel)


@pytest.mark.parametrize(
    ("pool", "length", "n_links"),
    [
        pytest.param("tpu-v4:4x4x4", 4, 2, id="ring-of-4"),
        pytest.param("tpu-v4:4x4x8", 8, 2, id="ring-of-8"),
        pytest.param("tpu-v4:2x2x4", 4, 1, id="line-of-4"),
    ],
)
def test_an_exchange_along_one_line_takes_the_time_of_its_bisection(pool: str, length: int, n_links: int) -> None:
    # each of length / 2 chips has half its bytes for the other half, over the links that cross the middle
    slice_, mesh = _box_of_one_axis(pool, length)
    expected = length / 2 * GB / 2 / (n_links * 45 * GB)
    found = collective_s("all_to_all", "x", GB, slice_, mesh, axes_at_once=True)
    assert found == pytest.approx(expected, rel=_ROUNDING)


def _box_of_one_axis(pool: str, length: int) -> tuple[Slice, Mesh]:
    (slice_,) = parse_pool(pool)
    return slice_, next(mesh for mesh in meshes(slice_) if mesh.x.size == length and mesh.x.n_lines == 1)


def test_an_exchange_goes_over_every_axis_with_all_its_bytes() -> None:
    slice_, mesh = _wiring("tpu-v4:4x4x4", "x=4 y=4 z=4")
    one, three = (collective_s("all_to_all", axes, GB, slice_, mesh, axes_at_once=False) for axes in ("x", "xyz"))
    assert three == pytest.approx(3 * one, rel=_ROUNDING)


def test_a_stage_cut_out_of_a_ring_is_a_line() -> None:
    slice_, mesh = next(
        (slice_, mesh)
        for slice_ in parse_pool("tpu-v4:4x4x8")
        for mesh in meshes(slice_, 2, 1)
        if mesh.mapping == "x=2x4x8 y=1 z=1"
    )
    machine = make_machine(slice_.chip, [mesh])
    found = collective_s("all_gather", "x", GB, slice_, mesh, axes_at_once=False)
    # the line of two goes first, with the least bytes: 1/32 x 1/2 over 45 GB/s, then two rings over 90
    expected = GB / 32 / 2 / (45 * GB) + GB * (31 / 32) / (90 * GB)
    assert machine.axes["x"].inner == 64
    assert found == pytest.approx(expected, rel=_ROUNDING)


def test_a_group_of_one_chip_has_nothing_to_do() -> None:
    for pool, mapping in [("tpu-v4:4x4x4", "x=4x4x4 y=1 z=1"), ("h100-sxm:8", "z=8")]:
        slice_, mesh = _wiring(pool, mapping)
        for kind in _ALL:
            assert [collective_s(kind, "y", GB, slice_, mesh, axes_at_once=flag) for flag in (True, False)] == [0, 0]


def test_a_mesh_of_another_slice_is_refused() -> None:
    for pool, other, mapping in [
        ("tpu-v4:4x4x4", "tpu-v4:4x4x8", "x=4x8 y=4 z=1"),
        ("h100-sxm:8", "h100-sxm:4x8", "z=32"),
    ]:
        (slice_,) = parse_pool(pool)
        with pytest.raises(SpecError, match="is no mesh of"):
            collective_s("all_gather", "x", GB, slice_, _wiring(other, mapping)[1], axes_at_once=True)


def _carried(pool: str, mapping: str, kind: FlowKind, axes: str) -> tuple[dict[tuple[Any, Any], float], Any]:
    """GB on every link after one collective of 1 GB, and the graph."""
    slice_, mesh = _wiring(pool, mapping)
    graph = build_graph(slice_)
    network = Network(simpy.Environment(), graph)
    network.env.run(start_collective(network, kind, axes, GB, slice_, mesh, axes_at_once=True))
    hops = [hop for u, v in graph.edges for hop in ((u, v), (v, u))]
    return {hop: network.carried_bytes(*hop) / GB for hop in hops}, graph


@pytest.mark.parametrize("kind", _GATHERS)
def test_on_a_torus_every_link_of_the_axes_carries_the_same(kind: FlowKind) -> None:
    # 15/16 of the bytes over the four links of two axes; nothing over the third, nor in the other groups
    carried, _ = _carried("tpu-v4:4x4x4", "x=4 y=4 z=4", kind, "xz")
    used = [gb for (u, v), gb in carried.items() if u[1] == v[1] == 0]
    assert used == pytest.approx([15 / 16 / 4] * (16 * 4), rel=_ROUNDING)
    assert sum(carried.values()) == pytest.approx(sum(used), rel=_ROUNDING)


@pytest.mark.parametrize("kind", _ALL)
def test_behind_switches_every_port_carries_what_its_chip_sends(kind: FlowKind) -> None:
    carried, graph = _carried("h100-sxm:4x8", "z=32", kind, "z")
    # an exchange reaches the other nodes directly; a gather crosses with the shard of one chip of the node
    inside, across = (7 / 32, 24 / 32) if kind == "all_to_all" else (7 / 8, 3 / 32)
    for chip in [(node, i) for node in range(4) for i in range(8)]:
        for port, expected in [(("switch", chip[0]), inside), (("nic", *chip), across)]:
            assert [carried[chip, port], carried[port, chip]] == pytest.approx([expected] * 2, rel=_ROUNDING)
    for middle in [v for v in graph if v[0] in ("switch", "nic", "fabric")]:
        came, went = (sum(gb for hop, gb in carried.items() if hop[end] == middle) for end in (1, 0))
        assert came == pytest.approx(went, rel=_ROUNDING)


def test_a_cache_on_its_way_halves_the_port_of_a_collective_and_has_the_other_half() -> None:
    slice_, mesh = _wiring("h100-sxm:4x8", "z=8 in y=4")
    alone_s = collective_s("all_gather", "y", GB, slice_, mesh, axes_at_once=True)
    network = Network(simpy.Environment(), build_graph(slice_))
    moved = network.transfer((0, 0), (1, 0), 10 * GB)
    network.env.run(start_collective(network, "all_gather", "y", GB, slice_, mesh, axes_at_once=True))
    # the ring waits for its slowest member in every round
    assert network.env.now == pytest.approx(2 * alone_s, rel=_ROUNDING)
    network.env.run(moved)
    # 50 GB/s for both together
    assert network.env.now == pytest.approx(alone_s + 10 * GB / (50 * GB), rel=_ROUNDING)


def test_a_cache_that_leaves_by_a_port_of_its_own_slows_nobody() -> None:
    slice_, mesh = _wiring("h100-sxm:4x8", "z=8 in y=4")
    alone_s = collective_s("all_gather", "y", GB, slice_, mesh, axes_at_once=True)
    network = Network(simpy.Environment(), build_graph(slice_))
    network.transfer((0, 1), (1, 1), 10 * GB)
    network.env.run(start_collective(network, "all_gather", "y", GB, slice_, mesh, axes_at_once=True))
    assert network.env.now == pytest.approx(alone_s, rel=_ROUNDING)
