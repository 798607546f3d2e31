"""Draft models: pruned, distilled or merely small models that write what a large one checks."""

from dataclasses import dataclass

from ..hardware_specs.dtypes import parse_dtype
from ..hardware_specs.errors import SpecError
from ..models.catalogue import get_model
from ..models.description import Model
from ..models.params import kv_bytes_per_token
from ..simulator.engine.deployment import Speculation
from .api import estimate
from .result import PhasePlan, PlanResult

# Leviathan2023 section 3.3: optimal lengths of drafts at the acceptance rates and costs it measures; Table 3: acceptance from
# 0.5 to 0.9 by task and draft.
_DRAFT_TOKENS, _ACCEPTANCE = 5, 0.7


@dataclass(frozen=True, slots=True)
class DraftPair:
    """A draft model for a model of the same vocabulary, and how the smaller one was made."""

    model: str
    draft: str
    made: str
    source: str


DRAFT_PAIRS: tuple[DraftPair, ...] = (
    DraftPair("llama-2-7b", "sheared-llama-1.3b", "pruned from it", "Xia2024"),
    DraftPair("llama-2-13b", "sheared-llama-1.3b", "pruned from its 7B sibling", "Xia2024"),
    DraftPair("llama-2-70b", "tinyllama-1.1b", "trained anew with its tokens", "Zhang2024"),
    DraftPair("llama-3.1-8b", "llama-3.2-1b", "pruned from it and distilled", "model card of meta-llama/Llama-3.2-1B"),
    DraftPair("llama-3.1-70b", "llama-3.2-1b", "distilled from it", "model card of meta-llama/Llama-3.2-1B"),
    DraftPair("llama-3.1-405b", "llama-3.2-3b", "distilled from its siblings", "model card of meta-llama/Llama-3.2-3B"),
    DraftPair("qwen2.5-32b", "qwen2.5-0.5b", "trained apart", "model card of Qwen/Qwen2.5-0.5B"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """A draft model on a plan's chips.

    Parameters
    ----------
    step_s : one of its decode steps at the plan's batch; the host's own work is that of the step it is drafted for
    chips : how many of a replica's chips it is cut over
    held_bytes : its weights on each of them
    cache_share : part of the cache left to the model, as every token is kept by both
    """

    speculation: Speculation
    step_s: float
    chips: int
    held_bytes: float
    cache_share: float


def draft_of(model: str) -> str:
    """The draft of a pair.

    Raises
    ------
    SpecError : no pair is known
    """
    found = [pair.draft for pair in DRAFT_PAIRS if pair.model == model]
    if not found:
        known = ", ".join(pair.model for pair in DRAFT_PAIRS)
        raise SpecError(f"no draft model is known for {model}; name one of the same vocabulary (pairs: {known})")
    return found[0]


def price_draft(result: PlanResult, rank: int, text: str, *, model: Model | None = None) -> Drafted:
    """Price a draft model where a plan runs: on one chip of a replica or on all of them, whichever is quicker.

    Parameters
    ----------
    text : ``auto``, or ``NAME``, ``NAME:TOKENS``, ``NAME:TOKENS:ACCEPTANCE``

    Raises
    ------
    SpecError : no such model, another vocabulary, not smaller, or no room
    """
    name, tokens, acceptance = _parts(text)
    target = model or get_model(result.model)
    draft = get_model(draft_of(target.name) if name == "auto" else name)
    if draft.vocab_size > target.vocab_size or draft.name == target.name:
        raise SpecError(
            f"{draft.name} has {draft.vocab_size} tokens and {target.name} {target.vocab_size}; a draft is another model with "
            "tokens that the model knows"
        )
    phase = result.of_rank(rank).decode
    priced = [found for n in sorted({1, phase.tp}) if (found := _decoded(draft, phase, n, result)) is not None]
    if not priced:
        raise SpecError(f"{draft.name} does not fit beside {target.name} on {phase.chip}; take more chips")
    best = min(priced, key=_drafting_s)
    step_s = _drafting_s(best)
    speculation = Speculation(draft_tokens=tokens, acceptance=acceptance, draft_cost=step_s / phase.step_s)
    kept = [kv_bytes_per_token(m, parse_dtype(phase.kv_dtype).bytes_per_element) for m in (target, draft)]
    return Drafted(
        speculation=speculation,
        step_s=step_s,
        chips=best.tp,
        held_bytes=best.memory.weights,
        cache_share=kept[0] / sum(kept) if sum(kept) else 1.0,
    )


def _drafting_s(phase: PhasePlan) -> float:
    """A step without what the host does once a pass: drafts follow each other inside one."""
    return sum(step.total_s for step in phase.breakdown if step.step != "pass")


def _decoded(draft: Model, phase: PhasePlan, n_chips: int, result: PlanResult) -> PhasePlan | None:
    """A decode step of the draft for one replica's batch at the plan's context; None where it cannot be cut so."""
    try:
        found = estimate(
            draft,
            f"{phase.chip}:{n_chips}",
            input_tokens=result.workload.input_tokens,
            output_tokens=result.workload.output_tokens,
            prefill_batch=1,
            decode_batch=max(phase.batch // phase.dp, 1),
            engine=phase.engine,
            bound=all(step.source == "bound" for step in phase.breakdown),
        )
    except SpecError:
        return None
    return found.plans[0].decode if found.plans else None


def _parts(text: str) -> tuple[str, int, float]:
    name, _, rest = text.partition(":")
    tokens, _, acceptance = rest.partition(":")
    try:
        return name, int(tokens) if tokens else _DRAFT_TOKENS, float(acceptance) if acceptance else _ACCEPTANCE
    except ValueError:
        raise SpecError(f"draft {text!r}: write NAME[:TOKENS[:ACCEPTANCE]], e.g. llama-3.2-1b:5:0.7") from None
