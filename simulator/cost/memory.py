"""Bytes that lie on one chip, from the same program that is priced."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...models.program import Attention, Collective, Matmul, Pointwise, ShardedProgram, Step, Tensor
from ...models.sizes import Array, Sizes, TokenGroup, ceil_div
from ...models.work import Formats, tensor_bytes

# A GPU shares its memory with the driver, the communication library and fragmentation. vLLM 0.33 plans with this share
# of the device by default (--gpu-memory-utilization).
DEFAULT_MEMORY_SHARE = 0.92


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """What one chip holds at the peak of a pass, each (...) bytes.

    `gathered` is the copy a weight-gathered layout makes for one einsum: whole, or two shards where the gather is looped.
    """

    weights: Array
    kv_cache: Array
    activations: Array
    gathered: Array

    @property
    def total(self) -> Array:
        """Everything together."""
        return self.weights + self.kv_cache + self.activations + self.gathered


def weight_bytes(program: ShardedProgram, sizes: Sizes, formats: Formats, *, pp: int = 1) -> Array:
    """Resident weights of the fullest stage: its layers, and what the ends of the model hold."""
    layers = ceil_div(float(program.model.n_layers), pp)
    ends: Array = 0.0
    for held in program.end_weights(pp=pp):
        ends = np.maximum(ends, tensor_bytes(held, sizes, formats))
    return layers * tensor_bytes(program.block_weights, sizes, formats) + ends


def kv_cache_bytes(
    program: ShardedProgram, sizes: Sizes, formats: Formats, *, context: Array, pp: int = 1, page_size: int = 1
) -> Array:
    """KV cache of every layer of a stage for `context` tokens a sequence, in whole pages of `page_size` tokens."""
    n_sequences = sum((group.n_sequences for group in sizes.groups), start=0.0)
    paged = ceil_div(context, page_size) * page_size
    full = TokenGroup(n_sequences=n_sequences, new_tokens=0.0, past_tokens=paged)
    held = Sizes(program, sizes.mesh, [full])
    return ceil_div(float(program.model.n_layers), pp) * tensor_bytes((program.cache,), held, formats)


def activation_bytes(program: ShardedProgram, sizes: Sizes, formats: Formats, *, static: bool) -> Array:
    """Activations at the fullest step of a block, or, for allocators that never reuse, of all a block's tensors.

    The residual lives through the block; every other tensor from the step that makes it to the last that reads it.
    """
    resident = tensor_bytes((_residual(program),), sizes, formats)
    if static:
        # a reduction is done in place, whatever changes the dimensions a chip holds has a buffer for its result
        buffers = {(t.name, t.form.dims): t for step in program.block for t in (*_made(step), *_read(step))}
        return resident + tensor_bytes((t for t in buffers.values() if t.name != "residual"), sizes, formats)
    peak: Array = 0.0
    for live in _lifetimes(program.block):
        peak = np.maximum(peak, tensor_bytes(live, sizes, formats))
    return resident + peak


def gathered_bytes(program: ShardedProgram, sizes: Sizes, formats: Formats) -> Array:
    """The largest gathered copy of weights at any einsum; looped gathers hold the shard in use and the one coming in."""
    peak: Array = 0.0
    for step in program.block:
        if isinstance(step, Collective) and step.tensors[0].role == "weight":
            if step.looped:
                held = 2.0 * tensor_bytes(step.tensors, sizes, formats)
            else:
                after = (_with(t, step, i) for i, t in enumerate(step.tensors))
                held = tensor_bytes(after, sizes, formats)
            peak = np.maximum(peak, held)
    return peak


def memory_bytes(
    program: ShardedProgram,
    sizes: Sizes,
    formats: Formats,
    *,
    context: Array,
    pp: int = 1,
    n_microbatches: Array = 1.0,
    page_size: int = 1,
    static: bool = False,
) -> MemoryBytes:
    """Peak bytes on the fullest chip of one replica.

    Parameters
    ----------
    sizes : of one micro-batch
    context : (...) tokens a sequence holds in the cache at most
    n_microbatches : (...) micro-batches whose caches are resident at once
    static : the software gives every tensor a buffer of its own
    """
    kv = kv_cache_bytes(program, sizes, formats, context=context, pp=pp, page_size=page_size)
    return MemoryBytes(
        weights=weight_bytes(program, sizes, formats, pp=pp),
        kv_cache=kv * n_microbatches,
        activations=activation_bytes(program, sizes, formats, static=static),
        gathered=gathered_bytes(program, sizes, formats),
    )


def _with(tensor: Tensor, step: Collective, i: int) -> Tensor:
    return Tensor(name=tensor.name, form=step.after[i], role=tensor.role, copies=tensor.copies)


def _residual(program: ShardedProgram) -> Tensor:
    return next(step.reads[0] for step in reversed(program.block) if isinstance(step, Pointwise))


def _made(step: Step) -> tuple[Tensor, ...]:
    match step:
        case Matmul():
            return step.outs
        case Attention():
            return (step.out,)
        case Pointwise():
            return step.writes
        case Collective() if step.tensors[0].role != "weight":
            return tuple(_with(t, step, i) for i, t in enumerate(step.tensors))
        case _:
            return ()


def _read(step: Step) -> tuple[Tensor, ...]:
    match step:
        case Matmul():
            return step.x
        case Attention():
            return (step.q,)
        case Pointwise():
            return step.reads
        case Collective() if step.tensors[0].role != "weight":
            return step.tensors
        case _:
            return ()


def _lifetimes(steps: Iterable[Step]) -> list[list[Tensor]]:
    """Tensors alive during each step: from the step that made them to the last that reads them."""
    steps = list(steps)
    born: dict[str, int] = {}
    dies: dict[str, int] = {}
    for i, step in enumerate(steps):
        for tensor in _made(step):
            born.setdefault(tensor.name, i)
        for tensor in (*_made(step), *_read(step)):
            dies[tensor.name] = i
    forms: dict[str, Tensor] = {}
    live = []
    for i, step in enumerate(steps):
        made = [t for t in _made(step) if t.name != "residual"]
        # what a step leaves with the same dimensions it found lies where it lay
        reused = {(t.name, t.form.dims) for t in made}
        kept = [t for name, t in forms.items() if dies[name] >= i and name != "residual"]
        live.append([t for t in kept if (t.name, t.form.dims) not in reused] + made)
        forms |= {tensor.name: tensor for tensor in _made(step)}
    return live
