"""The whole system: traffic comes in, a router spreads it over replicas, caches move, chips fail, replicas come and go."""

import math
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import simpy

from ..workload.arrival import Arrival, Traffic
from ..workload.synthetic import ClosedLoop
from .deployment import Autoscaling, Deployment, Pool
from .gaps import GapHistogram
from .kv_pool import pages_of
from .network import Network, serving_graph
from .recorder import Recorder
from .replica import Outside, Replica
from .request import Request, request_of
from .routers import get_router
from .tasks import Tasks

# Requests between two words on how far a run is.
_TOLD_EVERY = 1000
Process = Generator[simpy.Event, Any, None]


class Cluster:
    """One simulation.

    Parameters
    ----------
    seed : everything random is drawn from it, each source from a child of its own
    warmup_requests : the time between tokens is recorded once so many requests have come
    advance : called with the requests that have left so far, now and then
    """

    def __init__(
        self,
        deployment: Deployment,
        seed: int,
        *,
        warmup_requests: int = 0,
        advance: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.env = simpy.Environment()
        self.deployment = deployment
        self.recorder = Recorder()
        self.gaps = GapHistogram()
        self.replicas: list[Replica] = []
        self.paid_s: list[list[float]] = []
        self._pool_of: list[int] = []
        self._advance = advance
        self._warmup_requests = warmup_requests
        self._traffic_seed, routing, drafts, failures = np.random.SeedSequence(seed).spawn(4)
        self._routing_rng = np.random.default_rng(routing)
        self._drafts_seed = drafts
        self._failures_seed = failures
        self._router = get_router(deployment.router)
        self._turns = [0] * len(deployment.pools)
        self._in_system: dict[int, Request] = {}
        self._homeless: list[Request] = []
        self._tasks = Tasks()
        self._n_in = 0
        self._n_out = 0
        self._all_in = False
        self._done = self.env.event()
        self._on_answer: Callable[[Request], None] | None = None
        self._serving: list[list[Replica]] = [[] for _ in deployment.pools]
        self._draining: set[int] = set()
        for place, pool in enumerate(deployment.pools):
            for _ in range(pool.n_replicas):
                self._add_replica(place, pool)
        self._network = self._make_network()
        self._start_processes()

    def _add_replica(self, place: int, pool: Pool, paid_from_s: float = 0.0) -> None:
        """One more replica of a pool, serving from now on."""
        index = len(self.replicas)
        outside = Outside(finished=self._finished, hand_over=self._hand_over, fetch=self._fetch)
        rng = np.random.default_rng(self._drafts_seed.spawn(1)[0])
        replica = Replica(self.env, index, pool.replica, pool.role, self.deployment.options, outside, self.gaps, rng)
        self.replicas.append(replica)
        self.paid_s.append([paid_from_s, math.inf])
        self._pool_of.append(place)
        self._serving[place].append(replica)
        if self.deployment.failures is not None:
            self.env.process(self._failing(replica, self._failures_seed.spawn(1)[0]))

    def _make_network(self) -> Network | None:
        """The fabric between prefill and decode replicas; None where they are one, or claim no ports."""
        pools = self.deployment.pools
        if pools[0].role == "both" or any(pool.replica.port_bytes_per_s is None for pool in pools):
            return None
        ports = [
            (replica.index, self.deployment.pools[place].replica.port_bytes_per_s or 0.0)
            for replica, place in zip(self.replicas, self._pool_of, strict=True)
        ]
        return Network(self.env, serving_graph(ports))

    def _start_processes(self) -> None:
        for place, pool in enumerate(self.deployment.pools):
            if pool.autoscaling is not None:
                self.env.process(self._scaling(place, pool, pool.autoscaling))

    def run(self, traffic: Traffic | ClosedLoop, *, until_s: float | None = None) -> bool:
        """Serve all of the traffic; False where it was stopped before the end.

        Raises
        ------
        KeyboardInterrupt is caught: what was served so far stands, and the run counts as stopped.
        """
        source = self._closed(traffic) if isinstance(traffic, ClosedLoop) else self._open(traffic)
        self.env.process(source)
        if until_s is not None:
            self.env.process(self._stop_at(until_s))
        try:
            complete = bool(self.env.run(until=self._done))
        except KeyboardInterrupt:
            complete = False
        self._close()
        return complete

    def _stop_at(self, until_s: float) -> Process:
        """End the run early."""
        yield self.env.timeout(until_s)
        if not self._done.triggered:
            self._done.succeed(False)

    def _open(self, traffic: Traffic) -> Process:
        """Requests come when they come."""
        env = self.env
        for arrival in traffic.arrivals(self._traffic_seed):
            if arrival.stage and self._tasks.must_wait(arrival):
                continue
            ready_s = arrival.arrival_s + arrival.delay_s
            if ready_s > env.now:
                yield env.timeout(ready_s - env.now)
            self._enter(arrival, arrival.arrival_s)
        self._end_of_traffic()

    def _closed(self, loop: ClosedLoop) -> Process:
        """Each user sends the next request when the last is answered."""
        requests = loop.requests(self._traffic_seed)

        def answered(_: Request) -> None:
            self.env.process(self._next_of_user(requests, loop.think_s))

        self._on_answer = answered
        for _ in range(loop.n_users):
            self._send_next(requests)
        yield self.env.timeout(0.0)

    def _next_of_user(self, requests: Iterator[Arrival], think_s: float) -> Process:
        if think_s > 0.0:
            yield self.env.timeout(think_s)
        self._send_next(requests)
        yield self.env.timeout(0.0)

    def _send_next(self, requests: Iterator[Arrival]) -> None:
        arrival = next(requests, None)
        if arrival is None:
            self._end_of_traffic()
        else:
            self._enter(arrival, self.env.now)

    def _end_of_traffic(self) -> None:
        self._all_in = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._all_in and not self._in_system and not self._tasks.waiting and not self._done.triggered:
            self._done.succeed(True)

    def _enter(self, arrival: Arrival, arrival_s: float) -> None:
        request = request_of(arrival, self._n_in, arrival_s)
        self._n_in += 1
        if self._n_in == self._warmup_requests:
            self.gaps.clear()
        self._in_system[request.index] = request
        self._tasks.enter(request)
        reason = self._refusal(request)
        if reason is not None:
            self.recorder.reasons[reason] += 1
            self._leave(request, "rejected")
            return
        self._route(request, self._entry_place)
        self._sample()

    def _refusal(self, request: Request) -> str | None:
        """Why a request can never be served here."""
        for pool in self.deployment.pools:
            spec = pool.replica
            if spec.max_context is not None and request.prompt_tokens + request.output_tokens > spec.max_context:
                return f"longer than the model's {spec.max_context} positions"
            if not pool_fits(pool, request):
                return f"longer than the KV cache of {spec.n_pages * spec.page_tokens} tokens"
        return None

    def _route(self, request: Request, place: int) -> None:
        """Send a request to a replica of a pool; where none is up it waits for one."""
        serving = self._serving[place]
        if not serving:
            self._homeless.append(request)
            return
        matched = (
            [replica.matched_tokens(request) for replica in serving] if request.block_hashes else [0] * len(serving)
        )
        chosen = self._router(serving, matched, self._turns[place], self._routing_rng) if len(serving) > 1 else 0
        self._turns[place] += 1
        serving[chosen].submit(request)

    def _hand_over(self, request: Request) -> None:
        """A prompt is read: another replica is to write the answer."""
        request.source = request.replica
        self._route(request, self._decode_place())

    def _fetch(self, request: Request, come: Callable[[], None]) -> None:
        """Bring a request's cache from where its prompt was read."""
        self.env.process(self._fetching(request, come))

    def _fetching(self, request: Request, come: Callable[[], None]) -> Process:
        source, target, life = self.replicas[request.source], self.replicas[request.replica], request.n_restarts
        n_bytes = request.computed_tokens * source.spec.kv_bytes_per_token
        if self._network is not None:
            yield self._network.transfer(source.index, target.index, n_bytes)
        else:
            yield self.env.timeout(0.0)
        if request.n_restarts == life and request.index in self._in_system:
            source.handed_over(request)
            request.source = -1
            come()

    def _finished(self, request: Request) -> None:
        self._leave(request, "finished")
        if request.replica in self._draining and not self.replicas[request.replica].n_outstanding:
            self._stop_paying(request.replica)

    def _leave(self, request: Request, outcome: Any) -> None:
        del self._in_system[request.index]
        self.recorder.leave(request, outcome)
        self._n_out += 1
        self._sample()
        if not self._n_out % _TOLD_EVERY:
            self._advance(self._n_out)
        if self._on_answer is not None and not self._all_in:
            self._on_answer(request)
        for arrival in self._tasks.leave(request):
            self._enter(arrival, self.env.now)
        self._end_if_done()

    def _failing(self, replica: Replica, seed: np.random.SeedSequence) -> Process:
        """A replica dies with the first of its chips, and is repaired."""
        failures = self.deployment.failures
        assert failures is not None
        rng = np.random.default_rng(seed)
        while True:
            yield self.env.timeout(rng.exponential(failures.chip_mtbf_s / replica.spec.n_chips))
            serving = self._serving[self._pool_of[replica.index]]
            if replica not in serving:
                continue
            serving.remove(replica)
            self.recorder.n_failures += 1
            self._rescue(replica, retries=failures.retries)
            yield self.env.timeout(failures.repair_s)
            replica.recover()
            serving.append(replica)
            self._house_the_homeless()

    def _rescue(self, replica: Replica, *, retries: bool) -> None:
        """What was in a dead replica's hands begins anew elsewhere, or is lost."""
        for request in replica.fail():
            self._forget_elsewhere(request, replica)
            if not retries:
                self.recorder.reasons["lost with its replica"] += 1
                self._leave(request, "lost")
                continue
            request.restart()
            self._route(request, self._entry_place)

    def _forget_elsewhere(self, request: Request, dead: Replica) -> None:
        """Where a cache was under way between two replicas, the other lets go of it too."""
        if request in self._homeless:
            self._homeless.remove(request)
            return
        for other in {request.replica, request.source} - {dead.index, -1}:
            self.replicas[other].abandon(request)

    def _house_the_homeless(self) -> None:
        waiting, self._homeless = self._homeless, []
        for request in waiting:
            self._route(request, self._decode_place() if request.source >= 0 else self._entry_place)

    @property
    def _entry_place(self) -> int:
        """The pool that reads prompts."""
        return next(i for i, pool in enumerate(self.deployment.pools) if pool.role != "decode")

    def _decode_place(self) -> int:
        return next(i for i, pool in enumerate(self.deployment.pools) if pool.role == "decode")

    def _scaling(self, place: int, pool: Pool, scaling: Autoscaling) -> Process:
        """Start and stop replicas of a pool by the requests each of them has."""
        starting = 0

        def start() -> Process:
            nonlocal starting
            began_s = self.env.now
            yield self.env.timeout(scaling.startup_s)
            starting -= 1
            self._add_replica(place, pool, began_s)
            self._house_the_homeless()

        while True:
            yield self.env.timeout(scaling.interval_s)
            serving = self._serving[place]
            outstanding = sum(replica.n_outstanding for replica in serving)
            n = len(serving) + starting
            if outstanding > n * scaling.target_outstanding and n < scaling.most:
                starting += 1
                self.env.process(start())
            elif outstanding < n * scaling.target_outstanding / 2 and n > scaling.least and not starting:
                self._drain(place)

    def _drain(self, place: int) -> None:
        """Send the least busy replica of a pool nothing more; it is paid for until it is empty."""
        replica = min(self._serving[place], key=lambda replica: replica.n_outstanding)
        self._serving[place].remove(replica)
        self._draining.add(replica.index)
        if not replica.n_outstanding:
            self._stop_paying(replica.index)

    def _stop_paying(self, index: int) -> None:
        self._draining.discard(index)
        self.paid_s[index][1] = self.env.now

    def _sample(self) -> None:
        series = self.recorder.series
        if series.is_due(self.env.now):
            up = [replica for replica in self.replicas if replica.is_up]
            series.add(
                self.env.now,
                sum(len(replica.waiting) for replica in up),
                sum(replica.n_running for replica in up),
                sum(replica.pool.used_pages for replica in up),
                sum(map(len, self._serving)),
            )

    def _close(self) -> None:
        """Write down what has not left the system."""
        for request in list(self._in_system.values()):
            self.recorder.leave(request, "unfinished")
        self._in_system.clear()


def pool_fits(pool: Pool, request: Request) -> bool:
    """Whether a replica of the pool could hold the request if it had nothing else; a prefill replica holds its prompt."""
    tokens = request.prompt_tokens if pool.role == "prefill" else request.context_limit
    return pages_of(tokens, pool.replica.page_tokens) <= pool.replica.n_pages
