"""Flows over links that share them max-min fairly, event by event."""

import math
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import simpy
from simpy.events import EventPriority

from ...hardware_specs.errors import SpecError

if TYPE_CHECKING:
    import networkx as nx

# after whatever else happens at the same time, so that rates are worked out once for all flows that start or end there
_LAST = EventPriority(2)
# shares this close are the same share: two quotients of the same numbers, summed in another order
_SAME_SHARE = 1.0 + 1e-12


@dataclass(slots=True, eq=False)
class _Link:
    """One direction of a wire, and the flows that go over it in the order they came."""

    bytes_per_s: float
    carried_bytes: float = 0.0
    flows: "dict[_Flow, None]" = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Flow:
    """Bytes on their way: `left_bytes` of them at `since_s`, going at `bytes_per_s` from then on."""

    links: tuple[_Link, ...]
    left_bytes: float
    done: simpy.Event
    since_s: float
    bytes_per_s: float = 0.0
    end_s: float = math.inf

    def move(self, n_bytes: float, now_s: float) -> None:
        """Carry some bytes to the far end."""
        self.left_bytes -= n_bytes
        self.since_s = now_s
        for link in self.links:
            link.carried_bytes += n_bytes

    def move_to(self, now_s: float) -> None:
        """Carry what went since the last look."""
        self.move(min(self.left_bytes, self.bytes_per_s * (now_s - self.since_s)), now_s)


class Network:
    """Directed links, one in each direction of an edge, and the flows over them.

    A flow holds every link of its route at once. The rates are max-min fair: no flow can be faster without one that is
    no faster becoming slower.

    Parameters
    ----------
    env : the clock
    graph : its edges know ``bytes_per_s`` in each direction
    """

    def __init__(self, env: simpy.Environment, graph: "nx.Graph[Any]") -> None:
        self._env = env
        self._graph = graph.copy()
        self._links: dict[tuple[Hashable, Hashable], _Link] = {}
        self._routes: dict[tuple[Hashable, Hashable], tuple[_Link, ...]] = {}
        self._touched: dict[_Link, None] = {}
        self._ends: list[tuple[float, int, _Flow]] = []
        self._order = count()
        self._timer: simpy.Event | None = None
        for u, v, wire in graph.edges(data=True):
            self.add_link(u, v, wire["bytes_per_s"])

    @property
    def env(self) -> simpy.Environment:
        """The clock."""
        return self._env

    def add_link(self, u: Hashable, v: Hashable, bytes_per_s: float) -> None:
        """Lay a new wire between two vertices, old or new; flows under way keep their routes."""
        assert bytes_per_s > 0.0, f"a link of {bytes_per_s} bytes/s from {u} to {v}"
        assert not self.has_link(u, v), f"a second link from {u} to {v}"
        self._graph.add_edge(u, v)
        self._links[u, v], self._links[v, u] = _Link(bytes_per_s), _Link(bytes_per_s)
        self._routes.clear()

    def transfer(self, src: Hashable, dst: Hashable, n_bytes: float) -> simpy.Event:
        """Send bytes the shortest way, on a torus one dimension after the other; fires when the last is through.

        Raises
        ------
        SpecError : no way leads there
        """
        links = self._routes.get((src, dst))
        if links is None:
            links = self._routes[src, dst] = self._links_of(shortest_route(self._graph, src, dst))
        return self._start(links, n_bytes)

    def send(self, route: Sequence[Hashable], n_bytes: float) -> simpy.Event:
        """Send bytes from vertex to vertex along `route`; fires when the last is through.

        Raises
        ------
        SpecError : the route goes where no link is
        """
        return self._start(self._links_of(route), n_bytes)

    def has_link(self, u: Hashable, v: Hashable) -> bool:
        """Whether one link leads from `u` to `v`."""
        return (u, v) in self._links

    def carried_bytes(self, u: Hashable, v: Hashable) -> float:
        """Bytes that have gone from `u` to its neighbour `v` so far."""
        (link,) = self._links_of((u, v))
        for flow in link.flows:
            flow.move_to(self._env.now)
        return link.carried_bytes

    def _links_of(self, route: Sequence[Hashable]) -> tuple[_Link, ...]:
        try:
            return tuple(self._links[hop] for hop in pairwise(route))
        except KeyError as missing:
            raise SpecError(f"no link from {missing.args[0][0]} to {missing.args[0][1]}") from None

    def _start(self, links: tuple[_Link, ...], n_bytes: float) -> simpy.Event:
        done = self._env.event()
        assert 0.0 <= n_bytes < math.inf, f"a transfer of {n_bytes} bytes"
        if not links or n_bytes == 0.0:
            return done.succeed()
        flow = _Flow(links, n_bytes, done, self._env.now)
        for link in links:
            link.flows[flow] = None
        self._touch(links)
        return done

    def _touch(self, links: Iterable[_Link]) -> None:
        """Have the rates worked out again, at the end of this moment, for all flows that these links bear upon."""
        if not self._touched:
            self._wake(self._share, 0.0)
        self._touched.update(dict.fromkeys(links))

    def _wake(self, callback: Any, delay_s: float) -> simpy.Event:
        event = self._env.event()
        event._ok, event._value = True, None  # what simpy.Timeout does, at a priority of our own
        event.callbacks.append(callback)
        self._env.schedule(event, _LAST, delay_s)
        return event

    def _share(self, _: simpy.Event) -> None:
        """Give new rates to the flows around the touched links."""
        now_s = self._env.now
        for flow, rate in _fair_rates(self._touched).items():
            if rate != flow.bytes_per_s:
                flow.move_to(now_s)
                flow.bytes_per_s = rate
                flow.end_s = now_s + flow.left_bytes / rate
                heappush(self._ends, (flow.end_s, next(self._order), flow))
        self._touched = {}
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up at the first end; a timer that was set before no longer counts."""
        while self._ends and self._ends[0][0] != self._ends[0][2].end_s:
            heappop(self._ends)
        self._timer = self._wake(self._end, max(0.0, self._ends[0][0] - self._env.now)) if self._ends else None

    def _end(self, timer: simpy.Event) -> None:
        """Take out the flows that are through."""
        if timer is not self._timer:
            return
        while self._ends and self._ends[0][0] <= self._env.now:
            end_s, _, flow = heappop(self._ends)
            if end_s == flow.end_s:
                self._finish(flow)
        if not self._touched:
            self._set_timer()

    def _finish(self, flow: _Flow) -> None:
        flow.move(flow.left_bytes, self._env.now)
        flow.end_s = math.inf
        for link in flow.links:
            del link.flows[flow]
        self._touch(flow.links)
        flow.done.succeed()


def _around(links: Iterable[_Link]) -> tuple[dict[_Link, None], dict[_Flow, None]]:
    """The links and flows that share a link with these, or with one that does, and so on."""
    flows: dict[_Flow, None] = {}
    found = dict.fromkeys(links)
    todo = list(found)
    while todo:
        for flow in todo.pop().flows:
            if flow in flows:
                continue
            flows[flow] = None
            for link in flow.links:
                if link not in found:
                    found[link] = None
                    todo.append(link)
    return found, flows


def _fair_rates(touched: Iterable[_Link]) -> dict[_Flow, float]:
    """Max-min fair rates of all flows around some links: fill them alike, and stop those of every link that is full."""
    links, flows = _around(touched)
    rates: dict[_Flow, float] = {}
    free = {link: (link.bytes_per_s, len(link.flows)) for link in links if link.flows}
    shares = {link: rate / n for link, (rate, n) in free.items()}
    while len(rates) < len(flows):
        share = min(shares.values())
        full = [link for link, its_share in shares.items() if its_share <= share * _SAME_SHARE]
        for flow in [flow for link in full for flow in link.flows]:
            if flow in rates:
                continue
            rates[flow] = share
            for link in flow.links:
                rate, n = free[link]
                free[link] = rate - share, n - 1
                if n > 1:
                    shares[link] = (rate - share) / (n - 1)
                else:
                    del shares[link]
    return rates


def _turn(here: Any, there: Any) -> tuple[int, bool]:
    """Which coordinate a step on a grid changes, and whether backwards; the same for every step that is on none."""
    if not (isinstance(here, tuple) and isinstance(there, tuple) and len(here) == len(there)):
        return 0, False
    if not all(isinstance(place, int) for place in (*here, *there)):
        return 0, False
    dim = next(d for d, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    step = there[dim] - here[dim]
    return dim, step != 1 and step >= -1  # a step back by more than one goes on around the end


def shortest_route(graph: "nx.Graph[Any]", src: Hashable, dst: Hashable) -> tuple[Hashable, ...]:
    """Vertices of a shortest way: on a grid one dimension after the other, ties forwards, elsewhere in graph order.

    Raises
    ------
    SpecError : no way leads there
    """
    hops = {dst: 0}
    todo = deque([dst] if dst in graph and src in graph else [])
    while todo and src not in hops:
        here = todo.popleft()
        for there in graph.adj[here]:
            if there not in hops:
                hops[there] = hops[here] + 1
                todo.append(there)
    if src not in hops or src not in graph:
        raise SpecError(f"no way from {src} to {dst} over the network")
    route = [src]
    while route[-1] != dst:
        here = route[-1]
        closer = [there for there in graph.adj[here] if hops.get(there, math.inf) == hops[here] - 1]
        route.append(min(closer, key=lambda there: _turn(here, there)))
    return tuple(route)


def serving_graph(ports: Sequence[tuple[int, float]]) -> "nx.Graph[Any]":
    """What a KV cache goes over between replicas: each one's network ports together, and a fabric that never binds.

    Parameters
    ----------
    ports : (index of the replica, bytes/s of all its ports in each direction)
    """
    import networkx as nx

    graph: nx.Graph[Any] = nx.Graph()
    for replica, bytes_per_s in ports:
        graph.add_edge(replica, ("fabric",), bytes_per_s=bytes_per_s)
    return graph
