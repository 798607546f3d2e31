"""One copy of the model: its queue, its cache, and the lanes that serve it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simpy

from .deployment import EngineOptions, ReplicaSpec, Role
from .gaps import GapHistogram
from .kv_pool import KvPool, pages_of
from .lane import Lane, Work
from .pipeline import Pipeline
from .request import Request
from .waiting import WaitingQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a replica tells the world around it.

    Parameters
    ----------
    finished : a request is answered
    hand_over : a prompt is read and its cache is to be fetched by another replica
    fetch : begin to bring a request's cache here; calls back when it has come
    """

    finished: Callable[[Request], None]
    hand_over: Callable[[Request], None]
    fetch: Callable[[Request, Callable[[], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What stays behind of a request until its cache has been fetched."""

    request: Request
    pages: int
    shared_blocks: int


class Replica:
    """A server: requests come in by `submit` and leave by `Outside`.

    Parameters
    ----------
    index : its place among all replicas
    is_short : its pages have run out, and no request was done since
    gaps : where the time between tokens is recorded
    """

    def __init__(
        self,
        env: simpy.Environment,
        index: int,
        spec: ReplicaSpec,
        role: Role,
        options: EngineOptions,
        outside: Outside,
        gaps: GapHistogram,
        rng: np.random.Generator,
    ) -> None:
        self.env = env
        self.index = index
        self.spec = spec
        self.role = role
        self.options = options
        self.gaps = gaps
        self.is_up = True
        self.n_outstanding = 0
        self.busy_s = 0.0
        self.peak_pages = 0
        self._outside = outside
        self._rng = rng
        self._handing_over: dict[int, _Held] = {}
        self._start()

    def _start(self) -> None:
        """Begin with an empty cache."""
        self.is_short = False
        spec, options = self.spec, self.options
        self.pool = KvPool(n_pages=spec.n_pages, page_tokens=spec.page_tokens)
        self.waiting = WaitingQueue(options.scheduler.order)
        self.pipeline = Pipeline(spec.steps.stage_shares)
        self.lanes = [Lane(self, self._rng) for _ in spec.steps.stage_shares]

    @property
    def used_share(self) -> float:
        """Part of the cache that is in use."""
        return self.pool.used_pages / self.pool.n_pages

    @property
    def n_running(self) -> int:
        """Requests that hold a place."""
        return sum(lane.n_requests for lane in self.lanes)

    def matched_tokens(self, request: Request) -> int:
        """Tokens of a prompt whose keys and values are here already."""
        return self._matched(request) * request.block_tokens

    def submit(self, request: Request) -> None:
        """A request comes in."""
        request.replica = self.index
        self.n_outstanding += 1
        self.waiting.push(request)
        if self.waiting.head is request:
            self.wake()

    def wake(self) -> None:
        """Let every lane look whether there is something to do."""
        for lane in self.lanes:
            lane.wake()

    def fail(self) -> list[Request]:
        """Stop at once; everything that was in its hands."""
        read = [held.request for held in self._handing_over.values()]
        gone = [*self.waiting.drain(), *(r for lane in self.lanes for r in lane.requests()), *read]
        for lane in self.lanes:
            lane.stop()
        self.lanes = []
        self._handing_over.clear()
        self.is_up = False
        self.n_outstanding = 0
        return gone

    def recover(self) -> None:
        """Serve again."""
        self.is_up = True
        self._start()

    def _shares(self, request: Request) -> bool:
        """Whether a prompt's blocks can be kept for others: they are known, and whole pages."""
        known = self.options.prefix_caching and bool(request.block_hashes)
        return known and request.block_tokens % self.spec.page_tokens == 0

    def _matched(self, request: Request) -> int:
        """Leading blocks of a prompt that are here; at least one token is left to read."""
        if not self._shares(request) or request.output_done:
            return 0
        most = (request.prompt_tokens - 1) // request.block_tokens
        return self.pool.matched_blocks(request.block_hashes[:most])

    def tokens_to_read(self, request: Request) -> int:
        """Tokens of a waiting request that have to be computed."""
        return request.tokens_to_read - self._matched(request) * request.block_tokens

    def _pages_to_enter(self, request: Request) -> int:
        """Pages of everything a request stores once its prompt is read, or of its whole answer where that is reserved."""
        if self.options.scheduler.reserves_output and self.role != "prefill":
            tokens = request.context_limit
        elif request.source >= 0 or request.is_swapped:
            tokens = request.computed_tokens
        else:
            tokens = request.known_tokens
        return pages_of(tokens, self.spec.page_tokens)

    def has_room(self, request: Request, *, spare_pages: int = 0) -> bool:
        """Whether the cache has the pages a request needs to come in, with `spare_pages` beside the free ones."""
        matched = self._matched(request)
        shared = request.block_hashes[:matched]
        own = self._pages_to_enter(request) - matched * self._block_pages(request)
        return own + self.pool.idle_pages_of(shared) <= self.pool.free_pages + spare_pages

    def _block_pages(self, request: Request) -> int:
        return request.block_tokens // self.spec.page_tokens

    def reserve(self, request: Request) -> None:
        """Take the pages a request needs to come in, and the blocks of its prompt that are here."""
        matched = self._matched(request)
        request.pages = self._pages_to_enter(request) - matched * self._block_pages(request)
        if matched:
            self.pool.share(request.block_hashes[:matched])
            request.shared_blocks = matched
            request.computed_tokens = request.cached_prompt_tokens = matched * request.block_tokens
        self.pool.take(request.pages)
        if request.scheduled_s < 0.0:
            request.scheduled_s = self.env.now

    def publish(self, request: Request) -> None:
        """A prompt is read: whoever begins with the same blocks may share them."""
        if not self._shares(request):
            return
        full = min(len(request.block_hashes), request.prompt_tokens // request.block_tokens)
        fresh = request.block_hashes[request.shared_blocks : full]
        pages = self._block_pages(request)
        self.pool.publish(fresh, pages)
        request.pages -= len(fresh) * pages
        request.shared_blocks = max(full, request.shared_blocks)

    def release(self, request: Request) -> None:
        """Give back all a request holds."""
        self.pool.give_back(request.pages)
        self.pool.unshare(request.block_hashes[: request.shared_blocks])
        request.pages = request.shared_blocks = 0

    def swap_s(self, tokens: int) -> float:
        """Seconds to bring the cache of so many tokens to host memory or back."""
        return tokens * self.spec.kv_bytes_per_token / self.options.host_bytes_per_s

    def finished(self, request: Request) -> None:
        """A request is answered."""
        self.is_short = False
        self.n_outstanding -= 1
        self._outside.finished(request)

    def hand_over(self, request: Request) -> None:
        """A prompt is read; its pages stay until the cache has been fetched."""
        held = _Held(request=request, pages=request.pages, shared_blocks=request.shared_blocks)
        self._handing_over[request.index] = held
        request.pages = request.shared_blocks = 0
        self._outside.hand_over(request)

    def handed_over(self, request: Request) -> None:
        """The cache of a request has been fetched, or is no longer wanted."""
        held = self._handing_over.pop(request.index, None)
        if held is None:
            return
        self.n_outstanding -= 1
        self.pool.give_back(held.pages)
        self.pool.unshare(request.block_hashes[: held.shared_blocks])
        self.wake()

    def abandon(self, request: Request) -> None:
        """Let go of a request whose cache was to go from here or to come here."""
        if request.index in self._handing_over:
            self.handed_over(request)
            return
        self.n_outstanding -= 1
        if self.waiting.remove(request):
            return
        self.release(request)
        for lane in self.lanes:
            lane.forget(request)

    def fetch(self, request: Request, lane: Lane) -> None:
        """Bring a request's cache here."""
        self._outside.fetch(request, lambda: lane.fetched(request))

    def note_pass(self, work: Work) -> None:
        """Count the time the chips worked, and the fullest the cache ever was."""
        self.busy_s += work.pass_s / len(self.lanes)
        self.peak_pages = max(self.peak_pages, self.pool.used_pages)

    def after_pass(self, lane: Lane) -> None:
        """What a pass gave back may let another lane go on."""
        if self.waiting:
            for other in self.lanes:
                if other is not lane:
                    other.wake()
