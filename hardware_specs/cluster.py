"""Chips wired together: slices as graphs, and what a mesh axis gets of the wires.

A slice is a torus of chips, or nodes of chips around a switch with a network between the nodes. A mesh maps the logical
axes x, y, z (and, outside them, pipeline stages and replicas) onto it; bandwidth and hops of every axis are read off the
graph.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from .catalogue import get_chip
from .chip import Chip, Switch, Torus
from .errors import SpecError

if TYPE_CHECKING:
    import networkx as nx

_SHAPE = re.compile(r"[1-9][0-9]{0,9}(?:x[1-9][0-9]{0,9})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """An exact set of chips: torus lengths, or (nodes, chips a node)."""

    chip: Chip = field(hash=False, compare=False, repr=False)
    chip_name: str
    shape: tuple[int, ...]

    @property
    def n_chips(self) -> int:
        """Chips in the slice."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        """As the command line writes it."""
        return f"{self.chip_name}:{'x'.join(map(str, self.shape))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisLinks:
    """What one mesh axis gets of the wires, per chip and direction of travel.

    Parameters
    ----------
    inner, outer : chips along the axis inside the fast domain (torus, node) and domains along it
    inner_bytes_per_s : rate at which a chip sends along the axis inside the domain, all its links of the axis together
    ring_bytes_per_s : the same along the one physical line a single ring would use
    exchange_bytes_per_s : rate at which every chip can send to all along the axis alike, itself included, before the
        bisection is full; infinite behind a switch
    inner_hops : links from one end of the axis to the other
    n_lines : physical lines the axis is made of; a collective that goes over one at a time starts on each anew
    outer_bytes_per_s : rate of one chip's network port
    """

    inner: int
    outer: int
    inner_bytes_per_s: float
    ring_bytes_per_s: float
    exchange_bytes_per_s: float
    inner_hops: int
    n_lines: int
    outer_bytes_per_s: float

    @property
    def size(self) -> int:
        """Chips along the axis."""
        return self.inner * self.outer


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Logical axes x, y, z on a slice, after `pp` stages and `dp` replicas have cut it.

    `stage_bytes_per_s`: rate from a chip of one stage to its neighbour in the next, over the network if `stages_cross`.
    `shared_port`: the axes of one group share each chip's port (switch); on a torus each has links of its own.
    """

    x: AxisLinks
    y: AxisLinks
    z: AxisLinks
    pp: int = 1
    dp: int = 1
    stage_bytes_per_s: float
    stages_cross: bool
    shared_port: bool
    mapping: str

    @property
    def sizes(self) -> tuple[int, int, int]:
        """X, Y, Z."""
        return self.x.size, self.y.size, self.z.size

    @property
    def tp(self) -> int:
        """Chips that hold one copy of one stage."""
        return math.prod(self.sizes)


def _parse_shape(text: str, whole: str) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text):
        raise SpecError(f"{whole!r} is no pool; write e.g. tpu-v4:4x4x4, h100-sxm:8, h100-sxm:2x8 or tpu-v4:..64")
    return tuple(int(part) for part in text.split("x"))


def parse_pool(text: str) -> tuple[Slice, ...]:
    """Read ``CHIP:COUNT``, ``CHIP:XxYxZ``, ``CHIP:NODESxGPUS`` or ``CHIP:..COUNT`` into the slices it allows.

    Raises
    ------
    SpecError : unknown chip, or no slice of that count or shape exists

    Examples
    --------
    >>> [str(s) for s in parse_pool("tpu-v4:64")], [str(s) for s in parse_pool("h100-sxm:16")]
    (['tpu-v4:4x4x4'], ['h100-sxm:2x8'])
    """
    name, colon, shape = text.partition(":")
    chip = get_chip(name)
    shape = shape.strip()
    if not colon:
        raise SpecError(f"{text!r} has no count; write e.g. {chip.name}:8 or {chip.name}:..64")
    if shape.startswith(".."):
        limit = math.prod(_parse_shape(shape[2:], text))
        shapes = tuple(s for n in range(1, limit + 1) for s in _shapes(chip, n)) if limit <= _MAX_CHIPS else ()
        if not shapes:
            raise SpecError(f"{text!r}: a pool has 1 to {_MAX_CHIPS} chips")
    else:
        dims = _parse_shape(shape, text)
        shapes = _shapes(chip, dims[0]) if len(dims) == 1 else (dims,)
        _check_shape(chip, dims, shapes, text)
    return tuple(Slice(chip=chip, chip_name=chip.name, shape=s) for s in shapes)


_MAX_CHIPS = 4096


def _check_shape(chip: Chip, dims: tuple[int, ...], shapes: tuple[tuple[int, ...], ...], text: str) -> None:
    """Refuse counts and shapes that cannot be had, with the nearest that can."""
    n_chips = math.prod(dims)
    if n_chips > _MAX_CHIPS:
        raise SpecError(f"{text!r} asks for {n_chips} chips; a slice has at most {_MAX_CHIPS}")
    legal = _shapes(chip, n_chips)
    link = chip.scale_up
    if shapes and (len(dims) == 1 or (tuple(sorted(dims)) in legal if isinstance(link, Torus) else _fits(link, dims))):
        return
    around = [n for n in range(max(1, n_chips // 2), 2 * n_chips + 1) if _shapes(chip, n)]
    near = sorted(around, key=lambda n: abs(n - n_chips))[:3]
    names = [f"{chip.name}:{'x'.join(map(str, s))}" for n in (n_chips, *near) for s in _shapes(chip, n)]
    raise SpecError(f"{text!r} is no slice of {chip.name}; near it: {', '.join(dict.fromkeys(names)) or 'none'}")


def _fits(link: Switch, dims: tuple[int, ...]) -> bool:
    """Whether nodes of so many chips can be had: any part of a domain."""
    return len(dims) == 2 and dims[1] <= link.domain_chips


@cache
def _shapes(chip: Chip, n_chips: int) -> tuple[tuple[int, ...], ...]:
    """Every slice shape of exactly `n_chips`."""
    link = chip.scale_up
    if not isinstance(link, Torus):
        if n_chips <= link.domain_chips:
            return ((1, n_chips),)
        return ((n_chips // link.domain_chips, link.domain_chips),) if n_chips % link.domain_chips == 0 else ()
    small = {tuple(sorted(_parse_shape(s, s))) for s in link.small_shapes}
    lengths = [n for n in range(link.grain, link.max_axis + 1, link.grain) if n_chips % n == 0]
    big = {tuple(sorted(s)) for s in itertools.product(lengths, repeat=link.n_dims) if math.prod(s) == n_chips}
    fits = n_chips <= link.max_chips
    return tuple(sorted(s for s in small | big if math.prod(s) == n_chips and len(s) == link.n_dims and fits))


@cache
def wraps(link: Torus, shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Which axes of a torus slice close into a ring."""
    whole = [length % link.wrap_multiple == 0 for length in shape]
    if link.wrap_needs_all and not all(whole):
        return (False,) * len(shape)
    return tuple(whole)


@cache
def build_graph(slice_: Slice) -> "nx.Graph[Any]":
    """The slice as a graph: chips, switches, network ports; an edge knows bytes/s in each direction.

    Chips are coordinate tuples; a node's switch is ``("switch", node)`` (in a mesh its chips are wired in pairs instead),
    a chip's network port ``("nic", *chip)``, the fat tree (full bisection) one vertex ``("fabric",)``.
    """
    import networkx as nx

    link = slice_.chip.scale_up
    if isinstance(link, Torus):
        grid: Any = nx.grid_graph  # the stubs know no list of wrap-arounds
        torus = grid(dim=list(reversed(slice_.shape)), periodic=list(reversed(wraps(link, slice_.shape))))
        for _, _, wire in torus.edges(data=True):
            wire["bytes_per_s"] = link.link_bytes_per_s.value
        made: nx.Graph[Any] = torus
        return made
    graph: nx.Graph[Any] = nx.Graph()
    port = slice_.chip.scale_out_bytes_per_s
    for node, i in itertools.product(*(range(n) for n in slice_.shape)):
        graph.add_node((node, i))
        if link.kind == "mesh":
            pair = link.bytes_per_s.value / (link.domain_chips - 1)
            for j in range(i):
                graph.add_edge((node, i), (node, j), bytes_per_s=pair)
        else:
            graph.add_edge((node, i), ("switch", node), bytes_per_s=link.bytes_per_s.value)
        if slice_.shape[0] > 1 and port is not None:
            graph.add_edge((node, i), ("nic", node, i), bytes_per_s=port.value)
            graph.add_edge(("nic", node, i), ("fabric",), bytes_per_s=port.value)
    return graph


def _moved(chip: tuple[int, ...], dim: int, place: int) -> tuple[int, ...]:
    """The chip at another place along one torus axis."""
    return (*chip[:dim], place, *chip[dim + 1 :])


_ALONE = AxisLinks(
    inner=1,
    outer=1,
    inner_bytes_per_s=0.0,
    ring_bytes_per_s=0.0,
    exchange_bytes_per_s=math.inf,
    inner_hops=0,
    n_lines=0,
    outer_bytes_per_s=math.inf,
)


@cache
def _torus_line(slice_: Slice, dim: int) -> tuple[int, int]:
    """Links of the worst-placed chip along one torus axis, and hops from end to end; read off the graph."""
    import networkx as nx

    graph = build_graph(slice_)
    origin = (0,) * len(slice_.shape)
    line = graph.subgraph([_moved(origin, dim, i) for i in range(slice_.shape[dim])])
    return min(degree for _, degree in line.degree), nx.diameter(line)


def _torus_axis(slice_: Slice, dims: tuple[int, ...], cut: dict[int, int]) -> AxisLinks:
    """A mesh axis over whole torus axes; one that stages or replicas have cut is a line without wrap-around."""
    assert isinstance(slice_.chip.scale_up, Torus)
    rate = slice_.chip.scale_up.link_bytes_per_s.value
    n_links, ring, hops, size, n_lines, exchange = 0, 0, 0, 1, 0, math.inf
    for dim in dims:
        length = slice_.shape[dim] // cut.get(dim, 1)
        if length == 1:
            continue
        links, diameter = _torus_line(slice_, dim) if dim not in cut else (1, length - 1)
        n_links, ring, hops = n_links + links, max(ring, links), hops + diameter
        size, n_lines = size * length, n_lines + 1
        # half of what each chip sends crosses the middle, which length / 2 chips share
        exchange = min(exchange, links * rate * 4.0 / length)
    if size == 1:
        return _ALONE
    return AxisLinks(
        inner=size,
        outer=1,
        inner_bytes_per_s=n_links * rate,
        ring_bytes_per_s=ring * rate,
        exchange_bytes_per_s=exchange,
        inner_hops=hops,
        n_lines=n_lines,
        outer_bytes_per_s=math.inf,
    )


def _torus_meshes(slice_: Slice, pp: int, dp: int) -> list[Mesh]:
    link = slice_.chip.scale_up
    assert isinstance(link, Torus)
    meshes = []
    for cut in _torus_cuts(slice_.shape, pp * dp):
        for owners in itertools.product("xyz", repeat=len(slice_.shape)):
            dims = {axis: tuple(d for d, owner in enumerate(owners) if owner == axis) for axis in "xyz"}
            links = {axis: _torus_axis(slice_, dims[axis], cut) for axis in "xyz"}
            mapping = " ".join(
                f"{axis}={'x'.join(str(slice_.shape[d] // cut.get(d, 1)) for d in dims[axis]) or '1'}" for axis in "xyz"
            )
            meshes.append(
                Mesh(
                    x=links["x"], y=links["y"], z=links["z"], pp=pp, dp=dp,
                    stage_bytes_per_s=link.link_bytes_per_s.value, stages_cross=False, shared_port=False, mapping=mapping,
                )
            )  # fmt: skip
    return meshes


def _torus_cuts(shape: tuple[int, ...], n_parts: int) -> list[dict[int, int]]:
    """Ways to cut a torus into `n_parts` equal boxes along one axis."""
    if n_parts == 1:
        return [{}]
    return [{dim: n_parts} for dim, length in enumerate(shape) if length % n_parts == 0]


def _switch_meshes(slice_: Slice, pp: int, dp: int) -> list[Mesh]:
    """Axes laid out from the innermost chip outwards, in every order; stages and replicas outermost.

    A tensor-parallel group lies inside a node or fills whole ones. What would cross nodes without a network is left out.
    """
    if slice_.n_chips % (pp * dp):
        return []
    tp, per_node = slice_.n_chips // (pp * dp), slice_.shape[1]
    stages_cross = pp > 1 and per_node % (pp * tp) != 0
    port = _port_bytes_per_s(slice_)
    if (per_node % tp and tp % per_node) or (port is None and (tp > per_node or stages_cross)):
        return []
    stage_rate = port if stages_cross and port is not None else _inside_bytes_per_s(slice_, [tp] if pp > 1 else [])
    meshes = []
    for x, y in itertools.product(_divisors(tp), repeat=2):
        if tp % (x * y):
            continue
        sizes = {"x": x, "y": y, "z": tp // (x * y)}
        for order in itertools.permutations("xyz"):
            links, stride = {}, 1
            for axis in order:
                links[axis] = _switch_axis(slice_, stride, sizes[axis])
                stride *= sizes[axis]
            if any(link is None for link in links.values()):
                continue
            mapping = " in ".join(f"{axis}={sizes[axis]}" for axis in order if sizes[axis] > 1) or "x=1"
            meshes.append(
                Mesh(
                    x=links["x"] or _ALONE, y=links["y"] or _ALONE, z=links["z"] or _ALONE, pp=pp, dp=dp,
                    stage_bytes_per_s=stage_rate, stages_cross=stages_cross, shared_port=True, mapping=mapping,
                )
            )  # fmt: skip
    return meshes


def _inside_bytes_per_s(slice_: Slice, peers: Sequence[int]) -> float:
    """Rate of chip 0 to others of its node together, read off the graph: its port, or its wires to each of them."""
    graph = build_graph(slice_)
    if ("switch", 0) in graph:
        return float(graph.edges[(0, 0), ("switch", 0)]["bytes_per_s"])
    return float(sum(graph.edges[(0, 0), (0, peer)]["bytes_per_s"] for peer in peers))


def _port_bytes_per_s(slice_: Slice) -> float | None:
    """Rate of a chip's network port, read off the graph; None where there is none."""
    graph = build_graph(slice_)
    return float(graph.edges[(0, 0), ("nic", 0, 0)]["bytes_per_s"]) if ("nic", 0, 0) in graph else None


def _switch_axis(slice_: Slice, stride: int, size: int) -> AxisLinks | None:
    """An axis of `size` chips `stride` apart, split at the node's edge; None where the edge falls inside a chip row."""
    if size == 1:
        return _ALONE
    import networkx as nx

    per_node = slice_.shape[1]
    inner = min(size, max(1, per_node // stride))
    if size % inner or (stride < per_node and per_node % stride):
        return None
    outer = size // inner
    graph, rate = build_graph(slice_), _inside_bytes_per_s(slice_, [stride * i for i in range(1, inner)])
    return AxisLinks(
        inner=inner,
        outer=outer,
        inner_bytes_per_s=rate,
        ring_bytes_per_s=rate,
        exchange_bytes_per_s=math.inf,
        inner_hops=int(nx.shortest_path_length(graph, (0, 0), (0, stride * (inner - 1)))) if inner > 1 else 0,
        n_lines=1 if inner > 1 else 0,
        outer_bytes_per_s=(_port_bytes_per_s(slice_) or math.inf) if outer > 1 else math.inf,
    )


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@cache
def meshes(slice_: Slice, pp: int = 1, dp: int = 1) -> tuple[Mesh, ...]:
    """Every distinct mesh on a slice cut into `pp` stages and `dp` replicas; twins by wiring are listed once."""
    make = _torus_meshes if isinstance(slice_.chip.scale_up, Torus) else _switch_meshes
    distinct: dict[tuple[AxisLinks, AxisLinks, AxisLinks], Mesh] = {}
    for mesh in make(slice_, pp, dp):
        distinct.setdefault((mesh.x, mesh.y, mesh.z), mesh)
    return tuple(distinct.values())


@cache
def splits(slice_: Slice) -> tuple[tuple[int, int], ...]:
    """Every (pp, dp) the slice can be cut into."""
    pairs = itertools.product(_divisors(slice_.n_chips), repeat=2)
    return tuple((pp, dp) for pp, dp in pairs if slice_.n_chips % (pp * dp) == 0 and meshes(slice_, pp, dp))
