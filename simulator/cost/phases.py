"""A phase priced: prefill or decode of a batch, through micro-batches and pipeline stages, for many candidates at once.

Candidates of one call share the layout and the formats; batch and mesh are arrays.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.errors import SpecError
from ...models.description import Model
from ...models.formats import Formats
from ...models.forms import AXES
from ...models.layouts import AttentionSharding, ExpertSharding
from ...models.lower import lower
from ...models.params import n_params_active, n_params_reading
from ...models.program import BLOCK, ENCODER, ShardedProgram
from ...models.sizes import Sizes, TokenGroup, batch_prefix, ceil_div
from ...models.stages import by_stages, is_staged, stage_kinds
from ...models.types import Array
from ..types import PhaseName, Workload, Workloads
from .machine import Machine, take
from .memory import MEMORY_PARTS, MemoryBytes, memory_bytes
from .price import Engine, StepPrice, pass_flop, pass_time_s, price_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSetting:
    """What candidates priced in one call have in common.

    Parameters
    ----------
    head_axes : axes the heads are cut over; all of them pads the heads, fewer replicates attention over the rest
    pp, dp : pipeline stages, replicas
    """

    model: Model
    phase: PhaseName
    layout: str
    attention: AttentionSharding
    formats: Formats
    workload: Workload
    head_axes: tuple[str, ...] = AXES
    experts: ExpertSharding = "tensor"
    pp: int = 1
    dp: int = 1
    page_size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePrice:
    """Prices of candidates, each (n,).

    `pass_s` is one forward pass as a request sees it (TTFT of the batch, or one token), `latency_s` the whole phase.
    `flop` is what one chip of the mean stage computes in one pass, padding and replication included; `n_batch_axes` how
    many of the axes x, y, z divide a micro-batch.
    """

    pass_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    flop: NDArray[np.float64]
    n_batch_axes: NDArray[np.int64]
    memory: MemoryBytes


def token_group(setting: PhaseSetting, n_sequences: Array, works: Workloads | None = None) -> TokenGroup:
    """The tokens of one pass: whole prompts, or one token each at the mean context of the decode.

    Parameters
    ----------
    works : of each candidate, in place of the setting's one
    """
    work, read = written(setting, works), input_tokens(setting, works)
    if setting.phase == "prefill":
        # one number where all candidates have the same: kernels of one query are told from those of many by it
        new = 1.0 * work.input_tokens if read is None else float(_START_TOKENS)
        return TokenGroup(n_sequences=n_sequences, new_tokens=new, past_tokens=0.0, input_tokens=read)
    return TokenGroup(n_sequences=n_sequences, new_tokens=1.0, past_tokens=work.mean_decode_past, input_tokens=read)


def prompts(setting: PhaseSetting, n_sequences: Array, works: Workloads | None = None) -> TokenGroup:
    """What prefill leaves: prompts in the cache, and no token more; `works` as in `token_group`."""
    past, read = 1.0 * written(setting, works).input_tokens, input_tokens(setting, works)
    return TokenGroup(n_sequences=n_sequences, new_tokens=0.0, past_tokens=past, input_tokens=read)


# What a decoder behind an encoder begins with.
_START_TOKENS = 1


def written(setting: PhaseSetting, works: Workloads | None = None) -> Workload | Workloads:
    """Requests as the stack that writes has them: behind an encoder they begin at one start token."""
    if setting.model.encoder is None:
        return works or setting.workload
    if works is None:
        return Workload(input_tokens=_START_TOKENS, output_tokens=setting.workload.output_tokens)
    start = np.full_like(works.output_tokens, _START_TOKENS)
    return Workloads(input_tokens=start, output_tokens=works.output_tokens)


def input_tokens(setting: PhaseSetting, works: Workloads | None = None) -> Array | None:
    """Tokens of a request that an encoder reads; None without one."""
    return None if setting.model.encoder is None else 1.0 * (works or setting.workload).input_tokens


def microbatch_sequences(setting: PhaseSetting, batch: Array, n_microbatches: Array) -> Array:
    """Sequences of one micro-batch of one replica, the fullest where they do not divide."""
    return ceil_div(ceil_div(batch, setting.dp), n_microbatches)


def mixed_groups(setting: PhaseSetting, n_sequences: Array) -> list[TokenGroup]:
    """The steady pass of a full engine that reads prompts and decodes at once: a step of `n_sequences`, and their prompts.

    While a sequence decodes its N tokens its place is filled once, so a pass reads L/N prompt tokens for each of them: a part
    of one prompt, or several whole ones.

    Raises
    ------
    SpecError : an encoder, which reads no prompt in parts
    """
    work = setting.workload
    if setting.model.encoder is not None or setting.model.bidirectional:
        raise SpecError(f"{setting.model.name} reads its input both ways, so not in parts beside a decode step")
    prompt = float(work.input_tokens)
    read = np.maximum(n_sequences * prompt / max(work.output_tokens, 1), 1.0)
    new = np.minimum(read, prompt)
    return [
        TokenGroup(n_sequences=n_sequences, new_tokens=1.0, past_tokens=work.mean_decode_past),
        TokenGroup(n_sequences=read / new, new_tokens=new, past_tokens=(prompt - new) / 2.0),
    ]


def price_mixed(setting: PhaseSetting, machine: Machine, n_sequences: Array, engine: Engine) -> list[StepPrice]:
    """The steps of `mixed_groups`, one micro-batch, by the decode program."""
    program = lower_phase(setting, (), engine)
    sizes = Sizes(program, machine.mesh, mixed_groups(setting, n_sequences))
    return price_pass(program, sizes, setting.formats, machine, engine, pp=setting.pp)


def mixed_pass_s(
    setting: PhaseSetting, machine: Machine, n_sequences: Array, engine: Engine, *, n_microbatches: Array = 1.0
) -> Array:
    """Seconds until each of a replica's sequences has another token, its micro-batches one behind the other in a pipeline."""
    prices = price_mixed(setting, machine, ceil_div(n_sequences, n_microbatches), engine)
    return scheduled_pass_s(setting, prices, n_microbatches, setting.pp)


def lower_phase(setting: PhaseSetting, batch_axes: tuple[str, ...], engine: Engine) -> ShardedProgram:
    """The program of a setting."""
    return lower(
        setting.model,
        setting.layout,
        setting.attention,
        experts=setting.experts,
        batch_axes=batch_axes,
        head_axes=setting.head_axes,
        looped=engine.looped,
        materialised_scores=engine.materialised_scores,
        reads_input=setting.phase == "prefill" or not (setting.model.encoder or setting.model.bidirectional),
    )


def bind(
    setting: PhaseSetting,
    machine: Machine,
    n_sequences: Array,
    batch_axes: tuple[str, ...],
    engine: Engine,
    works: Workloads | None = None,
) -> tuple[ShardedProgram, Sizes]:
    """The program of a setting, and its sizes for one micro-batch of `n_sequences`; `works` as in `token_group`."""
    program = lower_phase(setting, batch_axes, engine)
    return program, Sizes(program, machine.mesh, [token_group(setting, n_sequences, works)])


def price_phase(
    setting: PhaseSetting,
    machine: Machine,
    batch: NDArray[np.float64],
    engine: Engine,
    *,
    n_microbatches: NDArray[np.float64] | float = 1.0,
    pp: NDArray[np.float64] | None = None,
    works: Workloads | None = None,
) -> PhasePrice:
    """Price candidates that differ in mesh and batch, and in what they serve and how fast their chips are.

    Candidates lie along the first dimension. Dimensions behind it, where there are any, are what every candidate is priced
    at: workloads and speeds of shape (1, ...), each along its own.

    Parameters
    ----------
    machine : axes (n, ...) or scalar
    batch : (n,) sequences over all replicas; (n, 1, ...) where there are dimensions behind
    n_microbatches : like `batch`, parts a replica's batch is cut into
    pp : like `batch`, stages of each, all 1 or none; None is the setting's
    works : (n,) or (1, ...) workloads in place of the setting's one
    """
    n = len(batch)
    stages = np.full(batch.shape, float(setting.pp)) if pp is None else pp
    n_micro = np.broadcast_to(np.asarray(n_microbatches, np.float64), batch.shape)
    sequences = np.asarray(microbatch_sequences(setting, batch, n_micro), np.float64)
    prefix = np.ravel(np.broadcast_to(batch_prefix(machine.mesh, sequences), batch.shape))
    program = np.array(program_prefixes(setting, engine))[prefix]
    parts = [np.flatnonzero(program == length) for length in np.unique(program)]
    prices = [
        price_program(
            setting,
            machine if len(parts) == 1 else take(machine, index),
            sequences[index],
            int(program[index[0]]),
            engine,
            n_micro=n_micro[index],
            pp=stages[index],
            works=None if works is None else works.take(index),
        ).price
        for index in parts
    ]
    made = _scatter(prices, parts, n)
    return replace(made, n_batch_axes=np.broadcast_to(prefix.reshape(batch.shape), made.pass_s.shape))


def program_prefixes(setting: PhaseSetting, engine: Engine) -> tuple[int, ...]:
    """For each count of axes that may divide the batch, the least count that runs the same program.

    Where no form cuts the batch, all run one.
    """
    return _same_programs(
        setting.model, setting.layout, setting.attention, setting.experts, setting.head_axes, engine.looped,
        engine.materialised_scores,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _same_programs(
    model: Model,
    layout: str,
    attention: AttentionSharding,
    experts: ExpertSharding,
    head_axes: tuple[str, ...],
    looped: bool,
    materialised_scores: bool,
) -> tuple[int, ...]:
    """`program_prefixes` of what `lower` takes."""
    programs = [
        lower(
            model, layout, attention, experts=experts, batch_axes=AXES[:n], head_axes=head_axes, looped=looped,
            materialised_scores=materialised_scores,
        )
        for n in range(len(AXES) + 1)
    ]  # fmt: skip
    nameless = [replace(program, batch_axes=()) for program in programs]
    return tuple(nameless.index(program) for program in nameless)


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedProgram:
    """Candidates that run one program: the program bound to their sizes, each of its steps, and what they come to."""

    program: ShardedProgram
    sizes: Sizes
    steps: list[StepPrice]
    price: PhasePrice


def price_program(
    setting: PhaseSetting,
    machine: Machine,
    sequences: NDArray[np.float64],
    prefix: int,
    engine: Engine,
    *,
    n_micro: NDArray[np.float64],
    pp: NDArray[np.float64],
    works: Workloads | None = None,
) -> PricedProgram:
    """Price candidates whose batch is cut over the same axes.

    Parameters
    ----------
    sequences : (n, ...) of one micro-batch
    prefix : how many of the axes x, y, z divide them
    n_micro : (n, ...) micro-batches
    pp : (n, ...) stages, all 1 or none
    works : as in `price_phase`
    """
    work = works or setting.workload
    program, sizes = bind(setting, machine, sequences, AXES[:prefix], engine, works)
    prices = price_pass(program, sizes, setting.formats, machine, engine, pp=pp)
    memory = memory_bytes(
        program,
        sizes,
        setting.formats,
        context=1.0 * written(setting, works).context_tokens,
        pp=pp,
        n_microbatches=n_micro,
        page_size=setting.page_size,
        static=engine.static_buffers,
    )
    pass_s = scheduled_pass_s(setting, prices, n_micro, pp)
    n_passes: Array = 1.0 if setting.phase == "prefill" else 1.0 * work.output_tokens
    priced = (pass_s, n_passes, *(getattr(memory, name) for name in MEMORY_PARTS))
    shape = np.broadcast_shapes(sequences.shape, *(np.shape(column) for column in priced))
    price = PhasePrice(
        pass_s=np.broadcast_to(pass_s, shape),
        latency_s=np.broadcast_to(pass_s * n_passes, shape),
        flop=np.broadcast_to(n_micro * pass_flop(prices) / pp, shape),
        n_batch_axes=np.full(shape, prefix),
        memory=MemoryBytes(**{name: np.broadcast_to(getattr(memory, name), shape) for name in MEMORY_PARTS}),
    )
    return PricedProgram(program=program, sizes=sizes, steps=prices, price=price)


def engine_microbatches(batch: int, new_tokens: int, pp: int, limit_tokens: int) -> int:
    """Micro-batches of an engine that splits by its stages and then in halves down to a token limit.

    References
    ----------
    [FasterTransformer] getLocalBatchSize.

    >>> engine_microbatches(128, 20, 3, 1024), engine_microbatches(96, 1, 3, 1024), engine_microbatches(7, 20, 1, 1024)
    (4, 3, 1)
    """
    if pp == 1:
        return 1
    part = batch // pp if batch % pp == 0 else batch
    while part * new_tokens > limit_tokens and part % 2 == 0:
        part //= 2
    return batch // part


def scheduled_pass_s(setting: PhaseSetting, prices: list[StepPrice], n_micro: Array, pp: Array) -> Array:
    r"""One pass of all micro-batches through the pipeline.

    Prefill fills and drains it: :math:`\sum_s t_s + (m - 1)\, \max_s t_s`. Decode comes round again, so a step takes as long
    as the stages need for all micro-batches or one micro-batch for all stages: :math:`\max(\sum_s t_s,\; m \max_s t_s)`.

    References
    ----------
    [Huang2019] GPipe, section 2 (bubble).
    """
    whole = pass_time_s(prices)
    if not is_staged(pp) and np.all(np.equal(n_micro, 1.0)):
        return whole
    slowest = slowest_stage_s(setting, prices, pp)
    if setting.phase == "prefill":
        return whole + (n_micro - 1.0) * slowest
    return np.maximum(whole, n_micro * slowest)


def slowest_stage_s(setting: PhaseSetting, prices: list[StepPrice], pp: Array) -> Array:
    """How often a stage can start: the one with the most layers and the costlier end, its dispatch, its way onwards."""
    block = by_stages(pp, lambda n: slowest_layers_s(setting, prices, n))
    block = block + pass_time_s([p for p in prices if p.part.startswith(ENCODER)])
    ends = [pass_time_s([p for p in prices if p.part == part]) for part in ("first", "last")]
    every_pass = pass_time_s([p for p in prices if p.part == "pass"])
    if not is_staged(pp):
        return block + ends[0] + ends[1] + every_pass
    onwards = pass_time_s([p for p in prices if p.part == "handover"]) / (pp - 1.0)
    return block + np.maximum(ends[0], ends[1]) + every_pass + onwards


def slowest_layers_s(setting: PhaseSetting, prices: list[StepPrice], pp: int) -> Array:
    """Seconds of the layers of the one of `pp` stages that takes longest over them."""
    model = setting.model
    of_kind: dict[str, Array] = {}
    for kind, n in model.n_layers_of.items():
        part = BLOCK if len(model.kinds) == 1 else f"{BLOCK} {kind}"
        of_kind[kind] = pass_time_s([p for p in prices if p.part == part]) / n
    slowest: Array = 0.0
    for held in stage_kinds(model.layers, pp):
        slowest = np.maximum(slowest, sum((n * of_kind[kind] for kind, n in held), start=0.0))
    return slowest


def model_flop_utilization(model: Model, tokens: Array, capacity_flop: Array, phase: PhaseName | None = None) -> Array:
    r"""Achieved over peak throughput, as if 2N flop a token were all the work.

    .. math:: \mathrm{MFU} = 2 N T / (n \pi t)

    Parameters
    ----------
    tokens : (...) tokens T that went through the model
    capacity_flop : (...) what the chips could have done meanwhile: chips n x peak x seconds t
    phase : where tokens of the input pass other parameters than those of the output: an encoder's

    Notes
    -----
    N is unpadded, of a mixture of experts what one token passes, and counted as the model's paper counts it; attention
    over the context is left out.

    References
    ----------
    [Pope2022] section 2.
    """
    n_params = model.n_params_nominal or float(n_params_active(model))
    if phase is not None and (reading := float(n_params_reading(model))):
        n_params = reading if phase == "prefill" else n_params - reading
    return 2.0 * n_params * tokens / capacity_flop


def _scatter(prices: list[PhasePrice], parts: list[NDArray[np.int64]], n: int) -> PhasePrice:
    """Put the candidates of each part back into their places."""
    if len(prices) == 1:
        return prices[0]

    def join(fields: list[Array]) -> NDArray[np.float64]:
        out = np.empty((n, *np.shape(fields[0])[1:]))
        for index, values in zip(parts, fields, strict=True):
            out[index] = values
        return out

    return PhasePrice(
        pass_s=join([p.pass_s for p in prices]),
        latency_s=join([p.latency_s for p in prices]),
        flop=join([p.flop for p in prices]),
        n_batch_axes=join([p.n_batch_axes.astype(np.float64) for p in prices]).astype(np.int64),
        memory=MemoryBytes(**{name: join([getattr(p.memory, name) for p in prices]) for name in MEMORY_PARTS}),
    )
