"""The loop of one replica, or of one batch in its pipeline: decide, wait, commit."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ..cost.step_time import Chunk
from .decoding import Advanced, make_decoding
from .policies import View
from .request import Request

if TYPE_CHECKING:
    from .replica import Replica

FAILURE = "failure"


@dataclass(slots=True, kw_only=True)
class Work:
    """A pass under way.

    Parameters
    ----------
    readers : requests and how many tokens of each prompt are read
    steps, pages : decode steps (0 for none) and the pages they were given
    sequences, context_tokens : that decode, and what they attend to in the first step
    start_s, pass_s : when it begins, and how long its stages work on it
    """

    readers: list[tuple[Request, int]]
    steps: int
    pages: int
    sequences: int
    context_tokens: int
    start_s: float
    pass_s: float = 0.0


class Lane:
    """A batch of one replica: its sequences that read and write, and the process that serves them.

    A replica has as many lanes as pipeline stages; all share its queue and its cache.
    """

    def __init__(self, replica: "Replica", rng: np.random.Generator) -> None:
        spec, options = replica.spec, replica.options
        self._replica = replica
        self._env = replica.env
        self._pool = replica.pool
        self._scheduler = options.scheduler
        self._max_sequences = max(1, spec.max_sequences // len(spec.steps.stage_shares))
        self.decoding = make_decoding(spec.page_tokens, options, rng)
        self.reading: list[Request] = []
        self.fetching: list[Request] = []
        self._fetched: list[Request] = []
        self._held: list[Request] = []
        self._held_context = 0
        self._newcomers: list[Request] = []
        self._last_step_s = 0.0
        self._host_s = 0.0
        self._work: Work | None = None
        self._may_stop = False
        self._idle: simpy.Event | None = None
        self.process = self._env.process(self.run())

    @property
    def n_requests(self) -> int:
        """Requests that hold a place: reading, writing, on their way, or held until their batch is done."""
        return self.decoding.n + len(self.reading) + len(self.fetching) + len(self._fetched) + len(self._held)

    def requests(self) -> Iterator[Request]:
        """All that is in its hands."""
        return chain(self.reading, self.fetching, self._fetched, self.decoding.members())

    def wake(self) -> None:
        """There may be something to do: an idle lane looks, a long run of decode steps ends at its next step."""
        if self._idle is not None:
            if not self._idle.triggered:
                self._idle.succeed()
        elif self._may_stop and (self._fetched or self._wants_head()):
            self._may_stop = False
            self.process.interrupt()

    def _wants_head(self) -> bool:
        """Whether the head of the queue could come in at the next step, with the pages set aside for later ones."""
        waiting, work = self._replica.waiting, self._work
        if not waiting or work is None:
            return False
        if self._scheduler.preempts_by_order:
            return True
        spare = work.pages - self.decoding.pages_for(self._steps_by_now(work))
        return self._admits(waiting.head, spare_pages=spare)

    def fetched(self, request: Request) -> None:
        """The cache of a request has come over the network; it decodes from the next pass on."""
        if request not in self.fetching:
            return
        self.fetching.remove(request)
        self._fetched.append(request)
        self.wake()

    def forget(self, request: Request) -> None:
        """The cache of a request is not to come after all."""
        if request in self.fetching:
            self.fetching.remove(request)

    def stop(self) -> None:
        """The replica is gone: end the process."""
        if self.process.is_alive and self.process is not self._env.active_process:
            self.process.interrupt(FAILURE)

    def run(self) -> Generator[simpy.Event, Any, None]:
        """Decide what goes into the next pass, wait until it is done, commit what it did."""
        env = self._env
        while True:
            work = self._decide()
            try:
                if work is None:
                    self._idle = env.event()
                    yield self._idle
                    self._idle = None
                    continue
                host_s, work.pass_s = self._take_host_s(), self._seconds(work)
                work.start_s += host_s
                end_s = self._replica.pipeline.book(work.start_s, work.pass_s)
                self._work, self._may_stop = work, work.steps > 1
                try:
                    yield env.timeout(end_s - env.now)
                except simpy.Interrupt as interrupt:
                    if interrupt.cause == FAILURE:
                        return
                    end_s = self._cut_short(work)
                    yield env.timeout(max(end_s - env.now, 0.0))
            except simpy.Interrupt:
                return
            self._work, self._may_stop = None, False
            self._commit(work)

    def _steps_by_now(self, work: Work) -> int:
        """Decode steps of a run that are done once the one under way is."""
        steps = self._replica.spec.steps
        low, high = 0, work.steps
        while high - low > 1:
            middle = (low + high) // 2
            done_s = work.start_s + steps.decode_s(work.sequences, work.context_tokens, middle)
            low, high = (low, middle) if done_s >= self._env.now else (middle, high)
        return high

    def _cut_short(self, work: Work) -> float:
        """End a run of decode steps with the one under way; when that is."""
        work.steps = self._steps_by_now(work)
        work.pass_s = self._replica.spec.steps.decode_s(work.sequences, work.context_tokens, work.steps)
        return work.start_s + work.pass_s

    def _decide(self) -> Work | None:
        for request in self._fetched:
            self._start_decoding(request)
        self._fetched.clear()
        if self._replica.waiting or self.reading:
            readers, steps, pages = self._compose()
        else:
            readers, (steps, pages) = [], self._decode_alone()
        if not readers and not steps and not self._host_s:
            return self._decide() if self._fetched else None
        return Work(
            readers=readers,
            steps=steps,
            pages=pages,
            start_s=self._env.now,
            sequences=self.decoding.n + len(self._held),
            context_tokens=self.decoding.context_tokens + self._held_context,
        )

    def _compose(self) -> tuple[list[tuple[Request, int]], int, int]:
        """Fill the next pass as the scheduler says: readers, decode steps, and the pages set aside for these."""
        turn = self._scheduler.rule(self._view())
        gave_way = turn.decodes and self._make_room()
        if turn.prompt_tokens:
            self._push_out_for_urgent()
        pages = self._take_pages(1) if turn.decodes else 0
        readers = [] if gave_way else self._readers(turn.prompt_tokens, turn.max_prompts, turn.splits_prompts)
        if readers:
            return readers, int(turn.decodes and self.decoding.n > 0), pages
        self._pool.give_back(pages)
        steps, pages = self._decode_alone()
        return [], steps, pages

    def _decode_alone(self) -> tuple[int, int]:
        """Decode steps with nothing to read beside them, and their pages."""
        self._make_room()
        steps = self._most_steps() if self.decoding.n else 0
        return steps, self._take_pages(steps)

    def _take_pages(self, steps: int) -> int:
        """Pages for decode steps, set aside before anybody else can have them."""
        pages = self.decoding.pages_for(steps) if steps and self.decoding.n else 0
        self._pool.take(pages)
        return pages

    def _view(self) -> View:
        return View(
            n_waiting=len(self._replica.waiting),
            n_reading=self.n_requests - self.decoding.n,
            n_decoding=self.decoding.n,
            max_sequences=self._max_sequences,
            token_budget=self._replica.spec.token_budget,
            step_tokens=self.decoding.new_tokens,
        )

    def _make_room(self) -> bool:
        """See that every sequence can write its next token; whether one had to give way for that."""
        gave_way = False
        while self.decoding.n and self.decoding.pages_for(1) > self._pool.free_pages:
            self._preempt(self._last_in_order())
            self._replica.is_short = gave_way = True
        return gave_way

    def _last_in_order(self) -> Request:
        """The request that is served after all others."""
        order = self._scheduler.order
        return max(chain(self.reading, self.decoding.members()), key=lambda r: (order(r), r.index))

    def _preempt(self, request: Request) -> None:
        """Take a request's pages and put it back into the queue."""
        if request in self.reading:
            self.reading.remove(request)
            request.computed_tokens = 0
        else:
            self.decoding.leave(request)
            if request in self._newcomers:
                self._newcomers.remove(request)
            else:
                request.last_token_s = self._last_step_s
            if self._replica.options.preemption == "swap":
                request.is_swapped = True
                self._host_s += self._replica.swap_s(request.computed_tokens)
            else:
                request.computed_tokens = 0
        self._replica.release(request)
        request.n_preemptions += 1
        self._replica.waiting.push(request)

    def _readers(self, budget: int, max_prompts: int, splits: bool) -> list[tuple[Request, int]]:
        """The parts of prompts that go into a pass of `budget` prompt tokens."""
        readers: list[tuple[Request, int]] = []
        for request in self.reading:
            if budget <= 0:
                return readers
            tokens = min(budget, request.tokens_to_read)
            readers.append((request, tokens))
            budget -= tokens
        waiting = self._replica.waiting
        while budget > 0 and max_prompts > 0 and waiting and self._may_enter():
            whole = self._replica.tokens_to_read(waiting.head)
            if not splits and readers and whole > budget:
                break
            request = waiting.pop()
            max_prompts -= 1
            tokens = self._enter(request)
            if tokens:
                tokens = min(tokens, budget) if splits else tokens
                readers.append((request, tokens))
                budget -= tokens
        return readers

    def _may_enter(self) -> bool:
        """Whether the head of the queue can be served now.

        Once the pages have run out nobody comes in until a request is done: whoever gave way would come back to give way again.
        """
        self._put_late_behind()
        head = self._replica.waiting.head
        if self._replica.is_short and self._replica.n_running and not self._is_urgent(head):
            return False
        return self._admits(head)

    def _push_out_for_urgent(self) -> None:
        """Make a place for the head of the queue where others have to give way to it."""
        waiting = self._replica.waiting
        while waiting and not self._admits(waiting.head) and self._is_urgent(waiting.head):
            self._preempt(self._last_in_order())

    def _is_urgent(self, head: Request) -> bool:
        """Whether somebody here has to give way to the one that waits."""
        if not self._scheduler.preempts_by_order or not (self.reading or self.decoding.n):
            return False
        return head.priority < self._last_in_order().priority

    def _put_late_behind(self) -> None:
        """Requests that can no longer be in time wait behind those that can."""
        limit_s, waiting = self._replica.options.ttft_limit_s, self._replica.waiting
        if not self._scheduler.drops_late_behind or limit_s is None:
            return
        while not waiting.head_is_behind and self._env.now > waiting.head.arrival_s + limit_s:
            waiting.push(waiting.pop(), behind=True)

    def _admits(self, request: Request, *, spare_pages: int = 0) -> bool:
        """Whether there is a place, and room in the cache once `spare_pages` more are free."""
        return self.n_requests < self._max_sequences and self._replica.has_room(request, spare_pages=spare_pages)

    def _enter(self, request: Request) -> int:
        """Take a request in; prompt tokens it has to read here."""
        replica = self._replica
        if request.source >= 0:
            replica.reserve(request)
            self.fetching.append(request)
            replica.fetch(request, self)
            return 0
        if request.is_swapped:
            replica.reserve(request)
            request.is_swapped = False
            self._host_s += replica.swap_s(request.computed_tokens)
            self._fetched.append(request)
            return 0
        replica.reserve(request)
        self.reading.append(request)
        return request.tokens_to_read

    def _most_steps(self) -> int:
        """Decode steps until something changes: a request ends, the pages run out; one in a pipeline or where one joins."""
        if len(self._replica.lanes) > 1 or self._fetched:
            return 1
        most = min(self.decoding.steps_to_finish(), self._replica.options.most_steps)
        free = self._pool.free_pages
        if self.decoding.pages_for(most) <= free:
            return most
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.decoding.pages_for(middle) <= free else (low, middle)
        return low

    def _take_host_s(self) -> float:
        """Seconds that caches take to host memory and back before the next pass."""
        host_s, self._host_s = self._host_s, 0.0
        return host_s

    def _seconds(self, work: Work) -> float:
        """Time of a pass."""
        steps, draft = self._replica.spec.steps, self._replica.options.speculation
        sequences = work.sequences if work.steps else 0
        if draft is None and not work.readers:
            return steps.decode_s(sequences, work.context_tokens, work.steps) if sequences else 0.0
        chunks = [Chunk(tokens, request.computed_tokens) for request, tokens in work.readers]
        if draft is None or not sequences:
            return steps.pass_s(chunks, sequences, work.context_tokens) if chunks else 0.0
        past = work.context_tokens // sequences - 1
        checked = [Chunk(draft.draft_tokens + 1, past)] * sequences
        drafting = draft.draft_tokens * draft.draft_cost * steps.decode_s(sequences, work.context_tokens)
        return drafting + steps.pass_s([*chunks, *checked])

    def _commit(self, work: Work) -> None:
        now = self._env.now
        self._replica.note_pass(work)
        done: list[Request] = []
        if work.steps:
            self._pool.give_back(work.pages)
            advanced = self.decoding.advance(work.steps)
            self._pool.take(advanced.pages)
            self._note_gaps(work, advanced, now)
            done = advanced.done
            self._held_context += work.steps * len(self._held)
        for request, tokens in work.readers:
            request.computed_tokens += tokens
            if not request.tokens_to_read:
                self.reading.remove(request)
                self._first_token(request, now, done)
        for request in done:
            self._finish(request, now)
        if self._held and not self.decoding.n:
            self._release_held()
        self._replica.after_pass(self)

    def _note_gaps(self, work: Work, advanced: Advanced, now: float) -> None:
        """Record the time between tokens, of the first step for each sequence since its own last token."""
        steps, gaps = self._replica.spec.steps, self._replica.gaps
        n = work.sequences - len(self._held)
        first_s = now
        if work.steps > 1:
            first_s = work.start_s + steps.decode_s(work.sequences, work.context_tokens)
            shortest = steps.decode_s(work.sequences, work.context_tokens + work.sequences)
            last = work.context_tokens + (work.steps - 1) * work.sequences
            gaps.add_range(shortest, steps.decode_s(work.sequences, last), (work.steps - 1) * n, now - first_s, n)
        gaps.add(first_s - self._last_step_s, n - len(self._newcomers))
        for request in self._newcomers:
            gaps.add(first_s - request.last_token_s, 1)
        # tokens that came along with another of the same step
        gaps.add(0.0, advanced.output_tokens - work.steps * n)
        self._newcomers.clear()
        self._last_step_s = now

    def _first_token(self, request: Request, now: float, done: list[Request]) -> None:
        """A prompt is read: its pass has written one token."""
        if request.first_token_s < 0.0:
            request.first_token_s = now
        else:
            self._replica.gaps.add(now - request.last_token_s, 1)
        request.last_token_s = now
        request.output_done += 1
        self._replica.publish(request)
        if request.output_done >= request.output_tokens:
            done.append(request)
        elif self._replica.role == "prefill":
            self._replica.hand_over(request)
        else:
            self._start_decoding(request)

    def _start_decoding(self, request: Request) -> None:
        self.decoding.join(request)
        self._newcomers.append(request)

    def _finish(self, request: Request, now: float) -> None:
        request.finish_s = now
        if self._scheduler.holds_batch:
            self._held.append(request)
            self._held_context += request.known_tokens
        else:
            self._replica.release(request)
        self._replica.finished(request)

    def _release_held(self) -> None:
        """The batch is done: give back what its members held."""
        for request in self._held:
            self._replica.release(request)
        self._held.clear()
        self._held_context = 0
