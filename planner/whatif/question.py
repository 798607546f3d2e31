"""The question a what-if starts from, and every variation of it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.errors import SpecError
from ...models.catalogue import get_model
from ...models.description import Model
from ..result import PhasePlan, PlanResult
from .keys import Change
from .vary import Axis

# Fields that a plan has of its chips; on others they are chosen anew.
_OF_CHIPS = ("prefill", "decode", "engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything one answer depends on; None is left to the planner.

    Parameters
    ----------
    model : catalogue name, or a model of one's own
    hardware, chips : catalogue name of the chip, and a count or shape as in ``--on``
    decode_on : a pool of its own for decode
    prefill, decode : layouts
    context_tokens : input and output tokens of a request together, in place of `input_tokens`
    link, network, hbm_bandwidth, hbm, flops : what takes the place of claimed figures
    price : a change of the usual price, or the kind of offer
    """

    model: str | Model
    hardware: str | None = None
    chips: str | None = None
    decode_on: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    context_tokens: int | None = None
    prefill_batch: int | None = None
    decode_batch: int | None = None
    weights: str | None = None
    kv_dtype: str | None = None
    page_size: int = 1
    prefill: str | None = None
    decode: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    engine: str | None = None
    rate_per_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    link: Change | None = None
    network: Change | None = None
    hbm_bandwidth: Change | None = None
    hbm: Change | None = None
    flops: Change | None = None
    price: Change | str | None = None
    memory_share: float | None = None
    bound: bool = False

    @property
    def described(self) -> Model:
        """The model.

        Raises
        ------
        UnknownNameError : none of that name
        """
        return get_model(self.model) if isinstance(self.model, str) else self.model

    @property
    def prompt_tokens(self) -> int:
        """Input tokens of a request; below 1 where the output leaves none of the context."""
        if self.context_tokens is not None:
            return self.context_tokens - (self.output_tokens or 0)
        return self.input_tokens or 0

    @property
    def on(self) -> str:
        """The pool, as the command line writes it."""
        return f"{self.hardware}:{self.chips}"


def question_of_plan(result: PlanResult, rank: int = 1) -> Question:
    """What a plan fixes: chips, formats, layouts, stages, replicas, batches and limits; the mesh is free.

    Raises
    ------
    SpecError : no plan of that rank
    """
    plan = result.of_rank(rank)
    p, d = plan.prefill, plan.decode
    return Question(
        model=result.model,
        hardware=p.chip,
        chips=_shape(p),
        decode_on=None if plan.shared else f"{d.chip}:{_shape(d)}",
        input_tokens=result.workload.input_tokens,
        output_tokens=result.workload.output_tokens,
        prefill_batch=p.batch,
        decode_batch=d.batch,
        weights=p.weights,
        kv_dtype=p.kv_dtype,
        page_size=p.page_size,
        prefill=p.layout,
        decode=d.layout,
        pp=p.pp if plan.shared else None,
        dp=p.dp if plan.shared else None,
        engine=p.engine,
        rate_per_s=result.rate_per_s,
        ttft_s=None if result.rate_per_s is not None else result.ttft_s,
        tpot_s=None if result.rate_per_s is not None else result.tpot_s,
        memory_share=p.memory.limit / get_chip(p.chip).hbm_bytes.value,
        bound=all(step.source == "bound" for step in (*p.breakdown, *d.breakdown)),
    )


def _shape(phase: PhasePlan) -> str:
    return phase.slice.partition(":")[2]


def freed(question: Question, axes: Sequence[Axis]) -> Question:
    """The question with what belongs to its chips left open, where the chips are varied."""
    varied = {field for axis in axes for field in axis.values[0].sets}
    if "hardware" not in varied:
        return question
    if "chips" not in varied and question.hardware and question.chips and not question.chips.startswith(".."):
        # a shape is one chip's own
        question = replace(question, chips=str(parse_pool(question.on)[0].n_chips))
    return replace(question, **{field: None for field in _OF_CHIPS if field not in varied})  # type: ignore[arg-type]


def check_complete(question: Question, axes: Sequence[Axis]) -> None:
    """Refuse a question that leaves out what nothing can be said without.

    Raises
    ------
    SpecError : names what is missing
    """
    varied = {field for axis in axes for field in axis.values[0].sets}
    _ = question.described.name
    missing = [
        option
        for option, fields in (
            ("--on, or --vary hardware=... and chips=...", ("hardware",)),
            ("a count of chips: --on CHIP:COUNT, or --vary chips=...", ("chips",)),
            ("--input", ("input_tokens", "context_tokens")),
            ("--output", ("output_tokens",)),
        )
        if not any(field in varied or getattr(question, field) is not None for field in fields)
    ]
    if missing:
        raise SpecError(f"say {' and '.join(missing)}")
    if question.hardware is not None and question.chips is not None:
        parse_pool(question.on)


def questions(question: Question, axes: Sequence[Axis]) -> Iterator[Question]:
    """Every variation, the last axis running fastest."""
    for values in itertools.product(*(axis.values for axis in axes)):
        changes: dict[str, object] = {}
        for value in values:
            changes |= value.sets
        if "context_tokens" not in changes and "input_tokens" in changes:
            changes["context_tokens"] = None
        yield replace(question, **changes)  # type: ignore[arg-type]
