"""Collectives as flows: the sends that a library makes, round by round over the links of a slice.

What a round sends is known before, so a collective is lists of rounds; the network says how long each one takes.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

import simpy

from ...hardware_specs.chip import Torus
from ...hardware_specs.cluster import Mesh, Slice, build_graph
from ...hardware_specs.errors import SpecError
from .network import Network

FlowKind = Literal["all_gather", "reduce_scatter", "all_reduce", "all_to_all"]

_Chip = tuple[int, ...]
_Part = Literal["gather", "scatter", "exchange"]
_Process = Generator[simpy.Event, Any, None]

# Pieces that one level of a hierarchical collective hands to the next. What is left of the slower level's wait for the
# faster one is one piece.
_N_PIECES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Send:
    """Bytes from one chip to another, by an explicit route or the shortest."""

    route: tuple[_Chip, ...]
    n_bytes: float


_Round = list[_Send]


def collective_s(
    kind: FlowKind, axes: Sequence[str], full_bytes: float, slice_: Slice, mesh: Mesh, *, axes_at_once: bool
) -> float:
    """Time of one collective over mesh axes on wires that nothing else uses; bytes only, no launch and no hops.

    Parameters
    ----------
    full_bytes : the gathered output, the input of a reduction, twice that for an all_reduce; what one chip has for all
    axes_at_once : a collective over several torus axes uses all of them at a time, else one after the other
    """
    env = simpy.Environment()
    network = Network(env, build_graph(slice_))
    env.run(start_collective(network, kind, axes, full_bytes, slice_, mesh, axes_at_once=axes_at_once))
    return float(env.now)


def start_collective(
    network: Network,
    kind: FlowKind,
    axes: Sequence[str],
    full_bytes: float,
    slice_: Slice,
    mesh: Mesh,
    *,
    axes_at_once: bool,
) -> simpy.Event:
    """Begin a collective in the group of the slice's first chip; fires at its end. `network` has the slice's graph.

    Raises
    ------
    SpecError : the mesh is not one of the slice
    """
    if isinstance(slice_.chip.scale_up, Torus):
        box = _torus_box(slice_, mesh)
        return _on_torus(network, kind, box.group(axes), full_bytes, axes_at_once=axes_at_once)
    return _behind_switches(network, kind, _nodes(slice_, mesh, axes), full_bytes)


# -- torus: rings and lines


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """The part of a torus that one stage of one replica fills, from chip 0 on.

    Parameters
    ----------
    lengths, wraps : chips along each dimension, and whether they close into a ring
    owners : mesh axis of each dimension
    """

    lengths: tuple[int, ...]
    wraps: tuple[bool, ...]
    owners: tuple[str, ...]

    def group(self, axes: Sequence[str]) -> "_Box":
        """The chips of chip 0's group over some axes."""
        lengths = tuple(n if owner in axes else 1 for n, owner in zip(self.lengths, self.owners, strict=True))
        return _Box(lengths=lengths, wraps=self.wraps, owners=self.owners)

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions in which it is longer than one chip; lines before rings, which then carry the most of a gather."""
        longer = [dim for dim, length in enumerate(self.lengths) if length > 1]
        return tuple(sorted(longer, key=lambda dim: self.wraps[dim]))

    def lines(self, dim: int) -> list[list[_Chip]]:
        """Every row of chips along one dimension."""
        starts = product(*(range(1 if d == dim else n) for d, n in enumerate(self.lengths)))
        return [[(*at[:dim], place, *at[dim + 1 :]) for place in range(self.lengths[dim])] for at in starts]


def _torus_box(slice_: Slice, mesh: Mesh) -> _Box:
    """Which dimensions the axes of a mesh own; those of equal length and wiring are as good as each other."""
    n_parts, n_dims = mesh.pp * mesh.dp, len(slice_.shape)
    cuts = [tuple(n_parts if d == cut else 1 for d in range(n_dims)) for cut in range(n_dims)]
    for cut, owners in product(cuts if n_parts > 1 else [(1,) * n_dims], product("xyz", repeat=n_dims)):
        lengths = tuple(n // parts for n, parts in zip(slice_.shape, cut, strict=True))
        if _mapping(lengths, owners) == mesh.mapping and math.prod(lengths) * n_parts == slice_.n_chips:
            return _Box(lengths=lengths, wraps=_wraps(slice_, lengths), owners=owners)
    raise SpecError(f"{mesh.mapping!r} is no mesh of {slice_}; take one of hardware_specs.cluster.meshes")


def _mapping(lengths: Sequence[int], owners: Sequence[str]) -> str:
    """A mesh in words, as `Mesh.mapping` writes it."""
    owned = {axis: [str(n) for n, owner in zip(lengths, owners, strict=True) if owner == axis] for axis in "xyz"}
    return " ".join(f"{axis}={'x'.join(numbers) or '1'}" for axis, numbers in owned.items())


def _wraps(slice_: Slice, lengths: Sequence[int]) -> tuple[bool, ...]:
    """Whether a wire leads from the last chip of each dimension back to the first."""
    graph, first = build_graph(slice_), (0,) * len(lengths)
    lasts = [(*first[:dim], n - 1, *first[dim + 1 :]) for dim, n in enumerate(lengths)]
    return tuple(n > 2 and graph.has_edge(last, first) for n, last in zip(lengths, lasts, strict=True))


def _on_torus(network: Network, kind: FlowKind, box: _Box, full_bytes: float, *, axes_at_once: bool) -> simpy.Event:
    """All the data along one dimension after the other, or equal parts of it in rotated orders side by side."""
    dims = box.dims
    turns = range(len(dims)) if axes_at_once else range(1)
    orders = [dims[turn:] + dims[:turn] for turn in turns]
    parts = [_along(network, box, _steps(kind, order, box.lengths, full_bytes / len(orders))) for order in orders]
    return network.env.all_of([network.env.process(part) for part in parts])


def _steps(
    kind: FlowKind, order: Sequence[int], lengths: Sequence[int], full_bytes: float
) -> list[tuple[int, _Part, float]]:
    """What happens along which dimension, with the bytes that one line gathers, scatters or exchanges per chip."""
    if kind == "all_to_all":
        return [(dim, "exchange", full_bytes) for dim in order]
    if kind == "all_reduce":
        halves: tuple[FlowKind, FlowKind] = ("reduce_scatter", "all_gather")
        return [step for half in halves for step in _steps(half, order, lengths, full_bytes / 2)]
    part: _Part = "gather" if kind == "all_gather" else "scatter"
    later = [math.prod(lengths[dim] for dim in order[i + 1 :]) for i in range(len(order))]
    steps = [(dim, part, full_bytes / n) for dim, n in zip(order, later, strict=True)]
    return steps if part == "gather" else steps[::-1]


def _along(network: Network, box: _Box, steps: Iterable[tuple[int, _Part, float]]) -> _Process:
    for dim, part, n_bytes in steps:
        lines = [_line_rounds(part, line, n_bytes, wraps=box.wraps[dim]) for line in box.lines(dim)]
        yield network.env.all_of([network.env.process(_in_rounds(network, rounds)) for rounds in lines])


def _line_rounds(part: _Part, line: Sequence[_Chip], full_bytes: float, *, wraps: bool) -> list[_Round]:
    if part == "exchange":
        return [_line_exchange(line, full_bytes, wraps=wraps)]
    rounds = _ring_gather(line, full_bytes) if wraps else _line_gather(line, full_bytes)
    return rounds if part == "gather" else _backwards(rounds)


def _backwards(rounds: Sequence[_Round]) -> list[_Round]:
    """A gather run backwards is a scatter: what was copied from a chip is added up at it."""
    return [[_Send(route=send.route[::-1], n_bytes=send.n_bytes) for send in sends] for sends in reversed(rounds)]


def _ring_gather(ring: Sequence[_Chip], full_bytes: float) -> list[_Round]:
    """Half of every shard goes around each way."""
    k = len(ring)
    step = [
        _Send(route=(ring[i], ring[(i + way) % k]), n_bytes=full_bytes / (2 * k)) for i in range(k) for way in (1, -1)
    ]
    return [step] * (k - 1)


def _line_gather(line: Sequence[_Chip], full_bytes: float) -> list[_Round]:
    """Every shard goes both ways to the ends; in round r a chip hands on what began r chips behind it."""
    k = len(line)
    return [
        [_Send(route=(line[i], line[i + 1]), n_bytes=full_bytes / k) for i in range(r, k - 1)]
        + [_Send(route=(line[i], line[i - 1]), n_bytes=full_bytes / k) for i in range(1, k - r)]
        for r in range(k - 1)
    ]


def _line_exchange(line: Sequence[_Chip], full_bytes: float, *, wraps: bool) -> _Round:
    """Everyone to everyone the shorter way; half of it each way where both are as long."""
    k = len(line)
    sends = []
    for i, j in permutations(range(k), 2):
        ways = [(j - i) % k, (j - i) % k - k] if wraps else [j - i]
        short = [way for way in ways if abs(way) == min(map(abs, ways))]
        for way in short:
            hops = range(0, way + (1 if way > 0 else -1), 1 if way > 0 else -1)
            sends.append(_Send(route=tuple(line[(i + hop) % k] for hop in hops), n_bytes=full_bytes / k / len(short)))
    return sends


# -- nodes around switches, a network between them


def _nodes(slice_: Slice, mesh: Mesh, axes: Sequence[str]) -> list[list[_Chip]]:
    """The chips of chip 0's group, node by node; the mapping names the innermost axis first."""
    chips, stride = [0], 1
    for axis, size in (part.split("=") for part in mesh.mapping.split(" in ")):
        if axis in axes:
            chips = [chip + stride * place for place in range(int(size)) for chip in chips]
        stride *= int(size)
    if stride * mesh.pp * mesh.dp != slice_.n_chips:
        raise SpecError(f"{mesh.mapping!r} is no mesh of {slice_}; take one of hardware_specs.cluster.meshes")
    nodes: dict[int, list[_Chip]] = {}
    for chip in sorted(chips):
        node, place = divmod(chip, slice_.shape[1])
        nodes.setdefault(node, []).append((node, place))
    return list(nodes.values())


def _behind_switches(
    network: Network, kind: FlowKind, nodes: Sequence[Sequence[_Chip]], full_bytes: float
) -> simpy.Event:
    """Direct exchange; or node and network as two levels, one behind the other in pieces."""
    chips = [chip for node in nodes for chip in node]
    if kind == "all_to_all":
        return network.env.process(_in_rounds(network, [_direct(chips, full_bytes)]))
    inner, outer = len(nodes[0]), len(nodes)
    n_pieces = _N_PIECES if inner > 1 and outer > 1 else 1
    n_bytes = full_bytes / n_pieces / (2 if kind == "all_reduce" else 1)
    inside = _level(network, nodes, n_bytes)
    across = _level(network, list(zip(*nodes, strict=True)), n_bytes / inner)
    stages: Mapping[FlowKind, list[list[_Round]]] = {
        "all_gather": [across, inside],
        "reduce_scatter": [_backwards(inside), _backwards(across)],
        "all_reduce": [_backwards(inside), _backwards(across), across, inside],
    }
    return _pipeline(network, stages[kind], n_pieces)


def _level(network: Network, groups: Sequence[Sequence[_Chip]], full_bytes: float) -> list[_Round]:
    """A gather in every group: a ring, or all at once where a wire joins each pair."""
    k = len(groups[0])
    if k > 1 and network.has_link(groups[0][0], groups[0][1]):
        return [[send for group in groups for send in _direct(group, full_bytes)]]
    step = [_Send(route=(group[i], group[(i + 1) % k]), n_bytes=full_bytes / k) for group in groups for i in range(k)]
    return [step] * (k - 1)


def _direct(group: Sequence[_Chip], full_bytes: float) -> _Round:
    return [_Send(route=pair, n_bytes=full_bytes / len(group)) for pair in permutations(group, 2)]


def _pipeline(network: Network, stages: Sequence[Sequence[_Round]], n_pieces: int) -> simpy.Event:
    """Every piece goes through all stages, and every stage takes one piece at a time."""
    ready = [network.env.event().succeed() for _ in range(n_pieces)]
    for rounds in stages:
        passed = [network.env.event() for _ in range(n_pieces)]
        network.env.process(_stage(network, rounds, ready, passed))
        ready = passed
    return ready[-1]


def _stage(
    network: Network, rounds: Sequence[_Round], ready: Sequence[simpy.Event], passed: Sequence[simpy.Event]
) -> _Process:
    for before, after in zip(ready, passed, strict=True):
        yield before
        yield from _in_rounds(network, rounds)
        after.succeed()


# -- on the network


def _in_rounds(network: Network, rounds: Iterable[_Round]) -> _Process:
    """Rounds one after the other; each begins when all of the last has come."""
    for sends in rounds:
        yield network.env.all_of([_sent(network, send) for send in sends])


def _sent(network: Network, send: _Send) -> simpy.Event:
    """A way through a switch or the fabric is found by the network; one along a torus is given."""
    if len(send.route) == 2:
        return network.transfer(*send.route, send.n_bytes)
    return network.send(send.route, send.n_bytes)
