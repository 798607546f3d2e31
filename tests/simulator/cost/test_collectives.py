"""Collectives on wires: the closed forms, and which wire binds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.cluster import Mesh, meshes, parse_pool
from shardwise.models.forms import AXES
from shardwise.models.reshard import CollectiveKind
from shardwise.simulator.cost.collectives import collective_latency_s, collective_time_s
from shardwise.simulator.cost.constants import Constants
from shardwise.simulator.cost.machine import AxisArrays, Machine, make_machine, take
from shardwise.tests.strategies import faster_wires, machine_of, machines

_KINDS: tuple[CollectiveKind, ...] = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all")
_kinds = st.sampled_from(_KINDS)
_axes = st.sampled_from([("x",), ("y",), ("z",), ("x", "y"), ("y", "z"), ("x", "y", "z")])
# no fraction of a byte: below 1e-300 halving and doubling lose digits
_bytes = st.one_of(st.just(0.0), st.floats(1.0, 1e12))
_CONSTANTS = Constants(collective_launch_s=5e-6, hop_s=1e-6)
GB = 1e9


def _time_s(
    kind: CollectiveKind,
    axes: tuple[str, ...],
    full_bytes: float,
    machine: Machine,
    *,
    efficiency: float = 1.0,
    network_efficiency: float = 1.0,
    axes_at_once: bool = True,
) -> float:
    return float(
        collective_time_s(
            kind,
            axes,
            full_bytes,
            machine,
            efficiency=efficiency,
            network_efficiency=network_efficiency,
            axes_at_once=axes_at_once,
        )
    )


def _latency_s(kind: CollectiveKind, axes: tuple[str, ...], machine: Machine, *, axes_at_once: bool = True) -> float:
    return float(collective_latency_s(kind, axes, machine, _CONSTANTS, axes_at_once=axes_at_once))


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
@pytest.mark.parametrize(("axes", "gb_per_s"), [(("x",), 90), (("y", "z"), 180), (AXES, 270)])
def test_gathers_and_scatters_on_a_torus_take_the_papers_time(
    kind: CollectiveKind, axes: tuple[str, ...], gb_per_s: float
) -> None:
    # Pope2022 appendix A.1: D / BW x (K - 1) / K with the links of the axes used
    k = 4 ** len(axes)
    expected = 1 * GB * (k - 1) / k / (gb_per_s * GB)
    # a product and a quotient in another order: two roundings of 2**-53
    assert _time_s(kind, axes, 1 * GB, machine_of("tpu-v4:4x4x4", (4, 4, 4))) == pytest.approx(
        expected, rel=1e-15, abs=0
    )


def test_one_ring_has_the_links_of_one_axis_alone() -> None:
    machine = machine_of("tpu-v4:4x4x4", (4, 4, 4))
    together, ring = (_time_s("all_gather", AXES, 1 * GB, machine, axes_at_once=flag) for flag in (True, False))
    # 270 GB/s against 90
    assert ring == pytest.approx(3 * together, rel=1e-15)


def test_axes_behind_one_port_share_it() -> None:
    machine = machine_of("h100-sxm:8", (2, 4, 1))
    expected = 1 * GB * (7 / 8) / (450 * GB)
    for flag in (True, False):
        assert _time_s("all_gather", ("x", "y"), 1 * GB, machine, axes_at_once=flag) == pytest.approx(
            expected, rel=1e-15
        )


def test_an_exchange_is_bound_by_the_bisection_of_its_ring() -> None:
    short, long = machine_of("tpu-v4:4x4x16", (4, 4, 16)), machine_of("tpu-v4:4x4x16", (16, 4, 4))
    # half of what each chip of one side has crosses 2 links of 45 GB/s: 2 chips in the short ring, 8 in the long
    assert _time_s("all_to_all", ("x",), 1 * GB, short) == pytest.approx(1 * GB * (2 / 2) / (90 * GB), rel=1e-15)
    assert _time_s("all_to_all", ("x",), 1 * GB, long) == pytest.approx(1 * GB * (8 / 2) / (90 * GB), rel=1e-15)


def test_a_gather_over_two_full_nodes_is_bound_by_the_switch_and_over_many_by_the_port() -> None:
    # a port carries 1/8 of what its node fetches from the others: over 2 nodes 1/16 of the tensor at 50 GB/s is quicker
    # than 7/8 of it at 450 GB/s, over 16 nodes 15/128 is slower
    two, many = machine_of("h100-sxm:2x8", (16, 1, 1)), machine_of("h100-sxm:16x8", (128, 1, 1))
    assert _time_s("all_gather", ("x",), 1 * GB, two) == pytest.approx(1 * GB * (7 / 8) / (450 * GB), rel=1e-15)
    assert _time_s("all_gather", ("x",), 1 * GB, many) == pytest.approx(1 * GB * (15 / 128) / (50 * GB), rel=1e-15)


def test_an_axis_with_one_chip_a_node_is_bound_by_the_port() -> None:
    slice_ = parse_pool("h100-sxm:2x8")[0]
    mesh = next(m for m in meshes(slice_) if (m.x.inner, m.x.outer) == (1, 2))
    machine = make_machine(slice_.chip, [mesh])
    for kind in ("all_gather", "reduce_scatter", "all_to_all"):
        assert _time_s(kind, ("x",), 1 * GB, machine) == pytest.approx(1 * GB / 2 / (50 * GB), rel=1e-15)


def test_an_exchange_between_nodes_sends_to_every_chip_through_the_port() -> None:
    # 8 of 16 partners are on the other node
    machine = machine_of("h100-sxm:2x8", (16, 1, 1))
    assert _time_s("all_to_all", ("x",), 1 * GB, machine) == pytest.approx(1 * GB * (1 / 2) / (50 * GB), rel=1e-15)


@given(
    machine=machines(), kind=_kinds, axes=_axes, full_bytes=_bytes, more=st.floats(1.0, 100.0), at_once=st.booleans()
)
def test_more_bytes_never_take_less_and_faster_wires_never_more(
    machine: Machine, kind: CollectiveKind, axes: tuple[str, ...], full_bytes: float, more: float, at_once: bool
) -> None:
    t = _time_s(kind, axes, full_bytes, machine, axes_at_once=at_once)
    assert _time_s(kind, axes, full_bytes * more, machine, axes_at_once=at_once) >= t
    # a rate of 0 (no links) is read as 1 B/s before it is scaled: nothing is sent there
    assert _time_s(kind, axes, full_bytes, faster_wires(machine, more), axes_at_once=at_once) <= t
    assert (
        _time_s(kind, axes, full_bytes, machine, efficiency=0.5, network_efficiency=0.5, axes_at_once=at_once) == 2 * t
    )


@given(machine=machines(), kind=_kinds, axes=_axes, full_bytes=_bytes, unit=st.sampled_from([2.0**-10, 2.0**10]))
def test_time_does_not_depend_on_the_unit_of_information(
    machine: Machine, kind: CollectiveKind, axes: tuple[str, ...], full_bytes: float, unit: float
) -> None:
    # the dimension, proved without quantities: bytes cancel. Powers of two change no digit.
    assert _time_s(kind, axes, full_bytes * unit, faster_wires(machine, unit)) == _time_s(
        kind, axes, full_bytes, machine
    )


@given(machine=machines(), kind=_kinds, axes=_axes, full_bytes=_bytes, at_once=st.booleans())
def test_axes_of_size_one_cost_nothing(
    machine: Machine, kind: CollectiveKind, axes: tuple[str, ...], full_bytes: float, at_once: bool
) -> None:
    alone = tuple(axis for axis in axes if machine.mesh[axis] == 1)
    others = tuple(axis for axis in axes if machine.mesh[axis] > 1)
    if alone:
        assert _time_s(kind, alone, full_bytes, machine, axes_at_once=at_once) == 0
        assert _latency_s(kind, alone, machine, axes_at_once=at_once) == 0
    if others:
        assert _time_s(kind, axes, full_bytes, machine, axes_at_once=at_once) == _time_s(
            kind, others, full_bytes, machine, axes_at_once=at_once
        )
        assert _latency_s(kind, axes, machine, axes_at_once=at_once) == _latency_s(
            kind, others, machine, axes_at_once=at_once
        )


def test_latency_is_a_launch_and_hops_from_end_to_end() -> None:
    # launch 5 us, hop 1 us; a ring of 4 has 2 hops from end to end. Sums of a few floats: a few roundings of 2**-53
    machine = machine_of("tpu-v4:4x4x4", (4, 4, 4))
    assert _latency_s("all_gather", ("x",), machine) == pytest.approx(7e-6, rel=1e-15, abs=0)
    assert _latency_s("all_gather", ("y", "z"), machine) == pytest.approx(9e-6, rel=1e-15, abs=0)
    assert _latency_s("all_reduce", ("x",), machine) == pytest.approx(9e-6, rel=1e-15, abs=0)


def test_a_collective_by_one_line_at_a_time_is_launched_on_each() -> None:
    axes = ("y", "z")
    torus, node = machine_of("tpu-v4:4x4x4", (4, 4, 4)), machine_of("h100-sxm:8", (2, 2, 2))
    assert _latency_s("all_gather", axes, torus, axes_at_once=False) == pytest.approx(14e-6, rel=1e-15, abs=0)
    # a mesh axis over two torus axes is two lines
    folded = machine_of("tpu-v4:4x4x4", (4, 16, 1))
    assert _latency_s("all_gather", ("y",), folded, axes_at_once=False) == pytest.approx(14e-6, rel=1e-15, abs=0)
    assert _latency_s("all_gather", axes, node, axes_at_once=False) == _latency_s("all_gather", axes, node)


def _all_meshes(pool: str) -> tuple[Machine, list[Mesh]]:
    slice_ = parse_pool(pool)[0]
    found = list(meshes(slice_))
    return make_machine(slice_.chip, found), found


@pytest.mark.parametrize("pool", ["tpu-v4:4x4x8", "h100-sxm:2x8"])
@pytest.mark.parametrize("kind", _KINDS)
def test_meshes_priced_together_cost_what_each_costs_alone(pool: str, kind: CollectiveKind) -> None:
    together, found = _all_meshes(pool)
    for axes in (("x",), ("y", "z"), AXES):
        times = np.broadcast_to(
            collective_time_s(kind, axes, 1e9, together, efficiency=0.8, network_efficiency=0.7, axes_at_once=True),
            len(found),
        )
        latencies = np.broadcast_to(
            collective_latency_s(kind, axes, together, _CONSTANTS, axes_at_once=True), len(found)
        )
        for i, mesh in enumerate(found):
            alone = make_machine(together.chip, [mesh])
            assert times[i] == _time_s(kind, axes, 1e9, alone, efficiency=0.8, network_efficiency=0.7)
            assert latencies[i] == _latency_s(kind, axes, alone)


def test_some_meshes_can_be_taken_and_repeated() -> None:
    machine, found = _all_meshes("tpu-v4:4x4x4")
    taken = take(machine, np.array([2, 0, 2]))
    for place, i in enumerate((2, 0, 2)):
        for axis in AXES:
            assert np.broadcast_to(taken.mesh[axis], 3)[place] == getattr(found[i], axis).size
    one = make_machine(machine.chip, found[:1])
    assert all(
        isinstance(links, AxisArrays) and np.ndim(links.inner) == 0
        for links in take(one, np.array([0, 0])).axes.values()
    )
    assert math.prod(float(one.mesh[axis]) for axis in AXES) == 64
