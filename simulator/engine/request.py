"""A request inside the system: what a policy may see of it, and its progress."""

from dataclasses import dataclass
from typing import Literal, Protocol

from ..workload.arrival import Arrival

Outcome = Literal["finished", "rejected", "lost", "unfinished"]


class Visible(Protocol):
    """What a policy may know of a request. The true output length is not among it."""

    @property
    def arrival_s(self) -> float:
        """When it came."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt."""
        ...

    @property
    def priority(self) -> int:
        """Smaller is more urgent."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One request; changed by the replica that holds it alone.

    Parameters
    ----------
    index : place in the order of arrival
    computed_tokens : tokens whose keys and values are in the cache
    output_done : output tokens written so far
    pages : pages of the cache that are its own
    shared_blocks : leading blocks of its prompt that it shares with others in the prefix cache
    last_token_s : when its latest output token was there
    is_swapped : its cache lies in host memory
    source : the replica its cache is fetched from, -1 for none
    n_restarts : times it began anew after a failure
    task : what it is a part of, -1 for nothing
    """

    index: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    priority: int = 0
    block_hashes: tuple[int, ...] = ()
    block_tokens: int = 0
    computed_tokens: int = 0
    output_done: int = 0
    pages: int = 0
    shared_blocks: int = 0
    scheduled_s: float = -1.0
    first_token_s: float = -1.0
    last_token_s: float = -1.0
    finish_s: float = -1.0
    n_preemptions: int = 0
    n_restarts: int = 0
    cached_prompt_tokens: int = 0
    is_swapped: bool = False
    replica: int = -1
    source: int = -1
    task: int = -1

    @property
    def known_tokens(self) -> int:
        """Prompt and output so far: what must be in the cache, but for the last one, before the next step."""
        return self.prompt_tokens + self.output_done

    @property
    def context_limit(self) -> int:
        """Tokens in the cache once it is finished; the last output token is never stored."""
        return self.prompt_tokens + self.output_tokens - 1

    @property
    def tokens_to_read(self) -> int:
        """Tokens a prefill has to compute: its prompt, and after a preemption the output so far."""
        return self.known_tokens - self.computed_tokens

    def restart(self) -> None:
        """Forget all progress: its replica is gone, and what was streamed is sent anew."""
        self.computed_tokens = self.output_done = self.pages = self.shared_blocks = 0
        self.is_swapped = False
        self.source = -1
        self.scheduled_s = self.first_token_s = self.last_token_s = -1.0
        self.n_restarts += 1


def request_of(arrival: Arrival, index: int, arrival_s: float) -> Request:
    """An arrival as it enters the system."""
    return Request(
        index=index,
        arrival_s=arrival_s,
        prompt_tokens=arrival.input_tokens,
        output_tokens=arrival.output_tokens,
        priority=arrival.priority,
        block_hashes=arrival.block_hashes,
        block_tokens=arrival.block_tokens,
        task=arrival.task,
    )
