"""The sequences of a replica that decode together, kept as sums so that many steps cost as much as one."""

import heapq
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from .deployment import EngineOptions, Speculation
from .kv_pool import pages_of
from .request import Request


class Decoding(Protocol):
    """Sequences that write a token at every step."""

    @property
    def n(self) -> int:
        """How many there are."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens all of them attend to in the next step, the new ones included."""
        ...

    @property
    def new_tokens(self) -> int:
        """Tokens the model computes for them in one step."""
        ...

    def join(self, request: Request) -> None:
        """A request whose prompt is read begins to decode."""
        ...

    def leave(self, request: Request) -> None:
        """A request stops in the middle; its progress is written into it."""
        ...

    def steps_to_finish(self) -> int:
        """Steps until the next request is done."""
        ...

    def pages_for(self, steps: int) -> int:
        """Pages they need on top of what they have for so many steps."""
        ...

    def advance(self, steps: int) -> "Advanced":
        """Do steps, not beyond the next finish."""
        ...

    def members(self) -> Iterable[Request]:
        """All of them, in the order they joined."""
        ...


class Advanced(NamedTuple):
    """What some steps did: the requests that are done, with their progress written, and pages and tokens taken by all."""

    done: list[Request]
    pages: int
    output_tokens: int


class PlainDecoding:
    """One token a sequence and step.

    A sequence that holds s tokens at step t needs a page at every step t' with s + t' - t a multiple of the page, so it is
    enough to count the sequences by (s - t) modulo the page.

    Parameters
    ----------
    grows : pages are taken as they are needed; else a request has all it will need when it joins
    """

    __slots__ = ("_by_phase", "_due", "_grows", "_joined", "_page", "_step", "context_tokens", "n")

    def __init__(self, page_tokens: int, *, grows: bool = True) -> None:
        self.n = 0
        self.context_tokens = 0
        self._page = page_tokens
        self._grows = grows
        self._step = 0
        self._by_phase = [0] * page_tokens
        self._due: list[tuple[int, int, Request]] = []
        self._joined: dict[int, tuple[int, Request]] = {}

    @property
    def new_tokens(self) -> int:
        """Tokens the model computes for them in one step."""
        return self.n

    def join(self, request: Request) -> None:
        """A request whose prompt is read begins to decode."""
        self.n += 1
        self.context_tokens += request.known_tokens
        self._by_phase[(request.computed_tokens - self._step) % self._page] += 1
        left = request.output_tokens - request.output_done
        heapq.heappush(self._due, (self._step + left, request.index, request))
        self._joined[request.index] = (self._step, request)

    def leave(self, request: Request) -> None:
        """A request stops in the middle; its progress is written into it."""
        self._settle(request)
        self._due = [entry for entry in self._due if entry[2] is not request]
        heapq.heapify(self._due)

    def _settle(self, request: Request) -> None:
        """Write a request's progress into it and take it out of the sums."""
        done = self._step - self._joined.pop(request.index)[0]
        request.output_done += done
        request.computed_tokens += done
        request.pages += self._grown(request, done)
        self.n -= 1
        self.context_tokens -= request.known_tokens
        self._by_phase[(request.computed_tokens - self._step) % self._page] -= 1

    def _grown(self, request: Request, done: int) -> int:
        """Pages a request took in its last `done` steps."""
        if not self._grows:
            return 0
        return pages_of(request.computed_tokens, self._page) - pages_of(request.computed_tokens - done, self._page)

    def steps_to_finish(self) -> int:
        """Steps until the next request is done."""
        return self._due[0][0] - self._step

    def pages_for(self, steps: int) -> int:
        """Pages they need on top of what they have for so many steps."""
        if not self._grows:
            return 0
        page, counts = self._page, self._by_phase
        if steps == 1:
            return counts[-self._step % page]
        rounds, rest = divmod(steps, page)
        return rounds * self.n + sum(counts[-t % page] for t in range(self._step, self._step + rest))

    def advance(self, steps: int) -> Advanced:
        """Do steps, not beyond the next finish."""
        pages, tokens = self.pages_for(steps), steps * self.n
        self._step += steps
        self.context_tokens += tokens
        done = []
        while self._due and self._due[0][0] == self._step:
            request = heapq.heappop(self._due)[2]
            self._settle(request)
            done.append(request)
        return Advanced(done, pages, tokens)

    def members(self) -> Iterable[Request]:
        """All of them, in the order they joined."""
        return (request for _, request in self._joined.values())


class SpeculativeDecoding:
    """A draft of several tokens is checked in one step.

    Each token is accepted with one probability; after the first miss the rest is dropped, and the step adds one of its own.

    References
    ----------
    [Leviathan2023]
    """

    __slots__ = ("_acceptance", "_draft_tokens", "_grows", "_page", "_requests", "_rng", "context_tokens", "n")

    def __init__(
        self, page_tokens: int, speculation: Speculation, rng: np.random.Generator, *, grows: bool = True
    ) -> None:
        self.n = 0
        self.context_tokens = 0
        self._page = page_tokens
        self._grows = grows
        self._draft_tokens = speculation.draft_tokens
        self._acceptance = speculation.acceptance
        self._rng = rng
        self._requests: dict[int, Request] = {}

    @property
    def new_tokens(self) -> int:
        """The drafts and one token more, all of which a step checks."""
        return self.n * (self._draft_tokens + 1)

    def join(self, request: Request) -> None:
        """A request whose prompt is read begins to decode."""
        self.n += 1
        self.context_tokens += request.known_tokens
        self._requests[request.index] = request

    def leave(self, request: Request) -> None:
        """A request stops in the middle."""
        self.n -= 1
        self.context_tokens -= request.known_tokens
        del self._requests[request.index]

    def steps_to_finish(self) -> int:
        """One: what is accepted is drawn step by step."""
        return 1

    def pages_for(self, steps: int) -> int:
        """Pages for drafts that are all accepted, as the engine must have room for them."""
        if not self._grows:
            return 0
        longest = steps * (self._draft_tokens + 1)
        return sum(
            pages_of(min(r.computed_tokens + longest, r.context_limit), self._page)
            - pages_of(r.computed_tokens, self._page)
            for r in self._requests.values()
        )

    def advance(self, steps: int) -> Advanced:
        """Draw what each sequence accepts in one step."""
        # the first miss is at the k-th draft with probability (1 - a) a^(k-1); k - 1 drafts and one token count
        accepted = self._rng.geometric(1.0 - self._acceptance, self.n) if self._acceptance < 1.0 else None
        done, pages, tokens = [], 0, 0
        for i, request in enumerate(list(self._requests.values())):
            most = self._draft_tokens + 1
            n = min(
                most if accepted is None else min(int(accepted[i]), most), request.output_tokens - request.output_done
            )
            before = pages_of(request.computed_tokens, self._page)
            request.output_done += n
            request.computed_tokens += n
            grown = pages_of(request.computed_tokens, self._page) - before if self._grows else 0
            request.pages += grown
            pages, tokens = pages + grown, tokens + n
            self.context_tokens += n
            if request.output_done == request.output_tokens:
                self.leave(request)
                done.append(request)
        return Advanced(done, pages, tokens)

    def members(self) -> Iterable[Request]:
        """All of them, in the order they joined."""
        return self._requests.values()


def make_decoding(page_tokens: int, options: EngineOptions, rng: np.random.Generator) -> Decoding:
    """The sequences of a lane as its engine decodes them."""
    grows = not options.scheduler.reserves_output
    if options.speculation is None:
        return PlainDecoding(page_tokens, grows=grows)
    return SpeculativeDecoding(page_tokens, options.speculation, rng, grows=grows)
