"""Schedulers as pure functions: what a replica does next, from what it may know.

A scheduler is an order in which requests wait and a rule that fills the next pass. Neither sees how long an answer will be.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ...hardware_specs.errors import UnknownNameError
from .request import Visible

# What stands for "no limit" in a turn.
UNLIMITED = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A replica as its scheduler sees it.

    Parameters
    ----------
    n_waiting, n_reading, n_decoding : requests in the queue, with part of their prompt read, and writing
    max_sequences : most requests that may read or write at a time
    token_budget : most tokens of a pass
    step_tokens : tokens that one decode step computes
    """

    n_waiting: int
    n_reading: int
    n_decoding: int
    max_sequences: int
    token_budget: int
    step_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What goes into the next pass.

    Parameters
    ----------
    prompt_tokens : most tokens of prompts
    max_prompts : most requests that may be taken from the queue
    splits_prompts : a prompt may be read in parts; else it is read whole, alone if it is over `prompt_tokens`
    decodes : the decode step goes along. If not and no prompt can be read, it is done alone
    """

    prompt_tokens: int
    max_prompts: int
    splits_prompts: bool
    decodes: bool


Rule = Callable[[View], Turn]
Order = Callable[[Visible], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A scheduler by name.

    Parameters
    ----------
    rule : fills the next pass
    order : the key by which requests wait, the smallest first
    holds_batch : places are given back when the whole batch is done
    reserves_output : pages for the whole answer are set aside when a request comes in, so none is ever preempted
    preempts_by_order : a request that waits may push out one that runs and has a larger key
    drops_late_behind : a request that can no longer keep its TTFT limit waits behind all that can
    """

    name: str
    source: str
    rule: Rule
    order: Order
    holds_batch: bool = False
    reserves_output: bool = False
    preempts_by_order: bool = False
    drops_late_behind: bool = False


def first_come(request: Visible) -> tuple[float, ...]:
    """In order of arrival."""
    return (request.arrival_s,)


def most_urgent(request: Visible) -> tuple[float, ...]:
    """By priority, then by arrival."""
    return (request.priority, request.arrival_s)


def static_rule(view: View) -> Turn:
    """A batch is taken when the last is done, read in one pass, and decoded until its longest answer ends."""
    busy = view.n_reading + view.n_decoding > 0
    return Turn(
        prompt_tokens=0 if busy else UNLIMITED, max_prompts=view.max_sequences, splits_prompts=False, decodes=busy
    )


def orca_rule(view: View) -> Turn:
    """Whole prompts join the decode step as soon as there is a place."""
    return Turn(prompt_tokens=UNLIMITED, max_prompts=view.max_sequences, splits_prompts=False, decodes=True)


def prefill_first_rule(view: View) -> Turn:
    """Whole prompts up to the budget before anything is decoded."""
    return Turn(
        prompt_tokens=view.token_budget,
        max_prompts=view.max_sequences,
        splits_prompts=False,
        decodes=view.n_waiting == 0,
    )


def chunked_rule(view: View) -> Turn:
    """The decode step first; what the budget leaves is filled with parts of prompts."""
    left = max(view.token_budget - view.step_tokens, 0)
    return Turn(prompt_tokens=left, max_prompts=view.max_sequences, splits_prompts=True, decodes=True)


def two_tier_rule(view: View) -> Turn:
    """One prompt at a time, at the least latency; decode fills up behind it."""
    return Turn(
        prompt_tokens=UNLIMITED,
        max_prompts=1,
        splits_prompts=False,
        decodes=view.n_waiting == 0,
    )


SCHEDULERS: dict[str, Scheduler] = {
    scheduler.name: scheduler
    for scheduler in (
        Scheduler(
            name="static",
            source="FasterTransformer: a batch is taken together and answered together",
            rule=static_rule,
            order=first_come,
            holds_batch=True,
            reserves_output=True,
        ),
        Scheduler(
            name="orca",
            source="Yu2022: iteration-level scheduling, cache reserved for the longest answer",
            rule=orca_rule,
            order=first_come,
            reserves_output=True,
        ),
        Scheduler(
            name="vllm",
            source="Kwon2023: prefill first, preemption when the pages run out",
            rule=prefill_first_rule,
            order=first_come,
        ),
        Scheduler(
            name="chunked",
            source="Agrawal2024; vLLM since version 1",
            rule=chunked_rule,
            order=first_come,
        ),
        Scheduler(
            name="two-tier",
            source="Pope2022 section 4.4: a batch-1 prefill server feeds a batch-64 decode server",
            rule=two_tier_rule,
            order=first_come,
        ),
        Scheduler(
            name="disaggregated",
            source="Zhong2024, Patel2024: prefill and decode on replicas of their own",
            rule=chunked_rule,
            order=first_come,
        ),
        Scheduler(
            name="priority",
            source="chunked, by priority; the least urgent request gives way",
            rule=chunked_rule,
            order=most_urgent,
            preempts_by_order=True,
        ),
        Scheduler(
            name="deadline",
            source="chunked, in order of arrival and so of deadline; what is late already gives way to what is not",
            rule=chunked_rule,
            order=first_come,
            drops_late_behind=True,
        ),
    )
}


def get_scheduler(name: str) -> Scheduler:
    """Find a scheduler by name."""
    if name not in SCHEDULERS:
        raise UnknownNameError("scheduler", name, SCHEDULERS)
    return SCHEDULERS[name]
