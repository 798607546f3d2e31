"""Clusters: what is wired to what, and what a mesh axis gets of it."""

import math

import networkx as nx
import pytest
from shardwise.hardware_specs.catalogue import get_chip, load_chips
from shardwise.hardware_specs.cluster import Mesh, Slice, build_graph, meshes, parse_pool, splits
from shardwise.hardware_specs.errors import SpecError

GB_PER_S = 1e9


def _slice(text: str) -> Slice:
    (slice_,) = parse_pool(text)
    return slice_


def _mesh(text: str, sizes: tuple[int, int, int], *, pp: int = 1, dp: int = 1) -> Mesh:
    return next(mesh for mesh in meshes(_slice(text), pp, dp) if mesh.sizes == sizes)


def _wraps(text: str) -> tuple[bool, ...]:
    """Which axes of a torus slice have an edge from their last chip back to their first."""
    slice_ = _slice(text)
    graph = build_graph(slice_)
    first = (0,) * len(slice_.shape)
    ends = [tuple(n - 1 if i == dim else 0 for i in range(len(slice_.shape))) for dim, n in enumerate(slice_.shape)]
    return tuple(n > 2 and graph.has_edge(first, end) for n, end in zip(slice_.shape, ends, strict=True))


@pytest.mark.parametrize(
    ("pool", "wraps"),
    [
        # TPU v4: every axis a multiple of 4, or none wraps
        ("tpu-v4:4x4x4", (True, True, True)),
        ("tpu-v4:4x4x8", (True, True, True)),
        ("tpu-v4:2x2x4", (False, False, False)),
        ("tpu-v4:2x4x4", (False, False, False)),
        ("tpu-v4:2x2x1", (False, False, False)),
        # TPU v5e: only along an axis of 16
        ("tpu-v5e:16x16", (True, True)),
        ("tpu-v5e:8x16", (False, True)),
        ("tpu-v5e:8x8", (False, False)),
        ("tpu-v5e:4x4", (False, False)),
    ],
)
def test_a_torus_wraps_around_only_where_the_slice_does(pool: str, wraps: tuple[bool, ...]) -> None:
    assert _wraps(pool) == wraps


@pytest.mark.parametrize(
    "pool", ["tpu-v4:4x4x4", "tpu-v4:4x4x8", "tpu-v4:2x2x4", "tpu-v5e:8x8", "tpu-v5e:16x16", "tpu-v4:1x1x1"]
)
def test_a_torus_is_a_grid_of_chips_with_links_of_one_rate(pool: str) -> None:
    slice_ = _slice(pool)
    graph = build_graph(slice_)
    lines = [(n if wraps else n - 1) * slice_.n_chips // n for n, wraps in zip(slice_.shape, _wraps(pool), strict=True)]
    assert graph.number_of_nodes() == slice_.n_chips
    assert graph.number_of_edges() == sum(lines)
    assert nx.is_connected(graph)
    assert {rate for _, _, rate in graph.edges.data("bytes_per_s")} <= {45 * GB_PER_S}


def test_a_whole_wrapped_slice_injects_at_six_links_a_chip() -> None:
    # Pope2022 section 4: 270 GB/s of interconnect on TPU v4
    mesh = _mesh("tpu-v4:4x4x4", (4, 4, 4))
    axes = (mesh.x, mesh.y, mesh.z)
    assert sum(axis.inner_bytes_per_s for axis in axes) == 270 * GB_PER_S
    assert [axis.ring_bytes_per_s for axis in axes] == [90 * GB_PER_S] * 3
    assert [(axis.inner, axis.outer, axis.inner_hops) for axis in axes] == [(4, 1, 2)] * 3
    assert not mesh.shared_port


def test_two_torus_axes_as_one_mesh_axis_have_the_links_and_hops_of_both() -> None:
    axis = _mesh("tpu-v4:4x4x4", (4, 16, 1)).y
    assert (axis.size, axis.inner_bytes_per_s, axis.ring_bytes_per_s, axis.inner_hops) == (16, 180e9, 90e9, 4)


def test_a_line_without_wrap_around_has_half_the_links_and_more_hops() -> None:
    ring, line = _mesh("tpu-v5e:16x16", (16, 16, 1)).x, _mesh("tpu-v5e:8x16", (8, 16, 1))
    assert (ring.inner_bytes_per_s, ring.inner_hops) == (90e9, 8)
    assert (line.x.inner_bytes_per_s, line.x.inner_hops) == (45e9, 7)
    assert (line.y.inner_bytes_per_s, line.y.inner_hops) == (90e9, 8)


def _bisection_bytes_per_s(slice_: Slice, dim: int) -> float:
    """Rate across the middle of a torus axis of one line of chips, one way; read off the graph."""
    half = slice_.shape[dim] // 2
    on_line = [chip for chip in build_graph(slice_) if all(c == 0 for i, c in enumerate(chip) if i != dim)]
    line = build_graph(slice_).subgraph(on_line)
    return sum(rate for a, b, rate in line.edges.data("bytes_per_s") if (a[dim] < half) != (b[dim] < half))


@pytest.mark.parametrize("pool", ["tpu-v4:4x4x4", "tpu-v4:4x4x8", "tpu-v4:2x2x4", "tpu-v5e:8x16", "tpu-v5e:16x16"])
def test_an_exchange_along_an_axis_fills_its_bisection(pool: str) -> None:
    slice_ = _slice(pool)
    for dim, length in enumerate(slice_.shape):
        axis = next(
            axis
            for mesh in meshes(slice_)
            for axis in (mesh.x,)
            if mesh.mapping.startswith(f"x={length} ") and axis.size == length
        )
        # length / 2 chips send half of their bytes to the other side
        crossing = axis.exchange_bytes_per_s * (length / 2) / 2
        found = {_bisection_bytes_per_s(slice_, d) for d, n in enumerate(slice_.shape) if n == length}
        assert crossing in found, dim


def test_a_torus_axis_cut_by_stages_or_replicas_is_a_line() -> None:
    whole, cut = _mesh("tpu-v4:4x4x8", (8, 4, 4)).x, _mesh("tpu-v4:4x4x8", (4, 4, 4), pp=2)
    assert (whole.inner_bytes_per_s, whole.inner_hops) == (90e9, 4)
    lines = [axis for axis in (cut.x, cut.y, cut.z) if axis.inner_bytes_per_s == 45e9]
    assert [(axis.size, axis.inner_hops) for axis in lines] == [(4, 3)]
    assert cut.stage_bytes_per_s == 45e9


def test_a_node_is_a_star_around_its_switch_and_nodes_meet_through_ports() -> None:
    graph = build_graph(_slice("h100-sxm:2x8"))
    assert graph.degree[("switch", 0)] == graph.degree[("switch", 1)] == 8
    assert graph.degree[("fabric",)] == 16
    assert nx.shortest_path_length(graph, (0, 0), (0, 7)) == 2
    assert nx.shortest_path(graph, (0, 0), (1, 0)) == [(0, 0), ("nic", 0, 0), ("fabric",), ("nic", 1, 0), (1, 0)]
    assert graph.edges[(0, 0), ("switch", 0)]["bytes_per_s"] == 450e9
    assert graph.edges[(0, 0), ("nic", 0, 0)]["bytes_per_s"] == 50e9
    one_node = build_graph(_slice("h100-sxm:8"))
    assert not any(node[0] in ("nic", "fabric") for node in one_node)


def test_an_axis_over_nodes_is_split_at_the_switch() -> None:
    axis = _mesh("h100-sxm:2x8", (16, 1, 1)).x
    assert (axis.inner, axis.outer, axis.inner_hops) == (8, 2, 2)
    assert (axis.inner_bytes_per_s, axis.outer_bytes_per_s) == (450e9, 50e9)
    spans = {
        (mesh.x.inner, mesh.x.outer, mesh.y.inner, mesh.y.outer)
        for mesh in meshes(_slice("h100-sxm:2x8"))
        if mesh.sizes == (2, 8, 1)
    }
    # x innermost, then y over both nodes; or y fills a node and x goes over nodes alone
    assert spans == {(2, 1, 4, 2), (1, 2, 8, 1)}


def test_an_axis_within_a_node_meets_no_port() -> None:
    for mesh in meshes(_slice("h100-sxm:8")):
        for axis in (mesh.x, mesh.y, mesh.z):
            assert axis.outer == 1
            assert axis.outer_bytes_per_s == math.inf


def test_stages_are_outermost_and_hand_over_through_the_port_once_they_fill_nodes() -> None:
    assert _mesh("h100-sxm:2x8", (8, 1, 1), pp=2).stage_bytes_per_s == 50e9
    assert _mesh("h100-sxm:8", (4, 1, 1), pp=2).stage_bytes_per_s == 450e9


def test_a_chip_without_a_network_cannot_span_nodes() -> None:
    alone = get_chip("h100-sxm").model_copy(update={"name": "lone-h100", "scale_out_bytes_per_s": None})
    slice_ = Slice(chip=alone, chip_name=alone.name, shape=(2, 8))
    assert meshes(slice_) == meshes(slice_, pp=2) == ()
    assert all(mesh.tp <= 8 and not mesh.stages_cross for mesh in meshes(slice_, dp=2))
    assert len(meshes(slice_, dp=2)) > 0


_POOLS = [
    "tpu-v4:1",
    "tpu-v4:2x2x1",
    "tpu-v4:4x4x4",
    "tpu-v4:4x4x8",
    "tpu-v5e:8x8",
    "h100-sxm:8",
    "h100-sxm:3",
    "h100-sxm:2x8",
]


@pytest.mark.parametrize("pool", _POOLS)
def test_a_mesh_with_its_stages_and_replicas_takes_every_chip_once(pool: str) -> None:
    slice_ = _slice(pool)
    for pp, dp in splits(slice_):
        for mesh in meshes(slice_, pp, dp):
            assert mesh.tp * pp * dp == slice_.n_chips
            assert math.prod(mesh.sizes) == mesh.tp
            assert (mesh.pp, mesh.dp) == (pp, dp)


@pytest.mark.parametrize("pool", _POOLS)
def test_meshes_alike_in_wiring_are_listed_once(pool: str) -> None:
    found = [(mesh.x, mesh.y, mesh.z) for mesh in meshes(_slice(pool))]
    assert found
    assert len(set(found)) == len(found)


def test_a_torus_has_every_grouping_of_its_axes() -> None:
    sizes = {mesh.sizes for mesh in meshes(_slice("tpu-v4:4x4x4"))}
    assert sizes == {
        (4, 4, 4), (64, 1, 1), (1, 64, 1), (1, 1, 64),
        (16, 4, 1), (16, 1, 4), (4, 16, 1), (4, 1, 16), (1, 16, 4), (1, 4, 16),
    }  # fmt: skip


def test_counts_and_shapes_name_slices() -> None:
    assert [str(s) for s in parse_pool("tpu-v4:64")] == ["tpu-v4:4x4x4"]
    assert [str(s) for s in parse_pool("tpu-v4:128")] == ["tpu-v4:4x4x8"]
    assert [str(s) for s in parse_pool("tpu-v4:256")] == ["tpu-v4:4x4x16", "tpu-v4:4x8x8"]
    assert [str(s) for s in parse_pool("v4: 8x4x4")] == ["tpu-v4:8x4x4"]
    assert [str(s) for s in parse_pool("H100:16")] == ["h100-sxm:2x8"]
    assert [str(s) for s in parse_pool("h100-sxm:6")] == ["h100-sxm:1x6"]
    assert [s.n_chips for s in parse_pool("tpu-v5e:..16")] == [1, 4, 8, 16]
    assert [s.n_chips for s in parse_pool("h100-sxm:..16")] == [1, 2, 3, 4, 5, 6, 7, 8, 16]


@pytest.mark.parametrize("chip", sorted(load_chips()))
def test_every_chip_of_the_catalogue_has_a_slice_of_one(chip: str) -> None:
    (slice_,) = parse_pool(f"{chip}:1")
    assert [mesh.sizes for mesh in meshes(slice_)] == [(1, 1, 1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("h100-sxm:0", "is no pool", id="zero"),
        pytest.param("h100-sxm:00", "is no pool", id="zero-in-two-digits"),
        pytest.param("h100-sxm:\N{ARABIC-INDIC DIGIT ZERO}", "is no pool", id="zero-in-arabic"),
        pytest.param("tpu-v4:4x0x4", "is no pool", id="an-axis-of-zero"),
        pytest.param("tpu-v4:-4", "is no pool", id="negative"),
        pytest.param("tpu-v4:nan", "is no pool", id="nan"),
        pytest.param("tpu-v4:inf", "is no pool", id="infinite"),
        pytest.param("tpu-v4:1e3", "is no pool", id="exponent"),
        pytest.param("tpu-v4:2.5", "is no pool", id="fraction"),
        pytest.param("tpu-v4:", "is no pool", id="nothing"),
        pytest.param("tpu-v4:4xx4", "is no pool", id="a-length-left-out"),
        pytest.param("tpu-v4:..", "is no pool", id="no-limit"),
        pytest.param("tpu-v4", "has no count", id="no-colon"),
        pytest.param("tpu-v9:4", "no chip 'tpu-v9'", id="unknown-chip"),
        pytest.param(":8", "no chip ''", id="no-chip"),
        pytest.param("tpu-v4:12", "is no slice of tpu-v4; near it: tpu-v4:", id="no-slice-of-twelve"),
        pytest.param("tpu-v4:4x4", "is no slice of tpu-v4; near it: tpu-v4:", id="two-axes-of-three"),
        pytest.param("tpu-v4:3x4x4", "is no slice of tpu-v4", id="an-axis-of-three"),
        pytest.param("h100-sxm:12", "is no slice of h100-sxm; near it: h100-sxm:", id="a-node-and-a-half"),
        pytest.param("h100-sxm:4x16", "near it: h100-sxm:8x8", id="overfull-nodes"),
        pytest.param("h100-sxm:100000", "at most 4096", id="too-many"),
        pytest.param("tpu-v5e:512", "is no slice of tpu-v5e", id="more-than-a-pod"),
        pytest.param("tpu-v4:..99999999", "1 to 4096 chips", id="a-limit-too-high"),
        pytest.param("h100-sxm:" + "9" * 5000, "is no pool", id="five-thousand-digits"),
        pytest.param("h100-sxm:.." + "9" * 5000, "is no pool", id="a-limit-of-five-thousand-digits"),
    ],
)
def test_what_is_no_pool_is_refused_with_a_way_out(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse_pool(text)


def test_chips_wired_in_pairs_have_their_wires_to_the_group_alone() -> None:
    # MI300X: 448 GB/s to seven others, 64 GB/s to each (AMD Instinct MI300X platform data sheet)
    assert _mesh("mi300x:8", (8, 1, 1)).x.inner_bytes_per_s == pytest.approx(448e9)
    assert _mesh("mi300x:8", (4, 1, 1), dp=2).x.inner_bytes_per_s == pytest.approx(3 * 64e9)
    pair = _mesh("mi300x:8", (2, 1, 1), pp=4)
    assert (pair.x.inner_bytes_per_s, pair.x.inner_hops) == (pytest.approx(64e9), 1)
    assert pair.stage_bytes_per_s == pytest.approx(64e9)
