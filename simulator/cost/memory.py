"""Bytes that lie on one chip, from the same program that is priced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...models.formats import Formats
from ...models.program import Collective, EncoderProgram, ShardedProgram, Tensor
from ...models.quantities import tensor_bytes
from ...models.sizes import Sizes, TokenGroup, ceil_div
from ...models.stages import by_stages, is_staged, stage_kinds
from ...models.types import Array

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


MEMORY_PARTS = tuple(MemoryBytes.__dataclass_fields__)


def weight_bytes(program: ShardedProgram, sizes: Sizes, formats: Formats, *, pp: Array = 1) -> Array:
    """Resident weights of the fullest stage: its layers, and what the ends of the model hold; an encoder is of one stage."""
    ends: Array = 0.0
    for held in program.end_weights(pp=2 if is_staged(pp) else 1):
        ends = np.maximum(ends, tensor_bytes(held, sizes, formats))
    layers = {b.kind: tensor_bytes(b.weights, sizes.of(b), formats) for b in program.blocks}
    held_bytes = by_stages(pp, lambda n: stage_bytes(program, layers, n)) + ends
    return held_bytes if program.encoder is None else held_bytes + encoder_bytes(program.encoder, sizes, formats)


def encoder_bytes(encoder: EncoderProgram, sizes: Sizes, formats: Formats) -> Array:
    """Resident weights of an encoder."""
    own = sizes.of_input
    layers = [block.n_layers * tensor_bytes(block.weights, own.of(block), formats) for block in encoder.blocks]
    return sum(layers, start=tensor_bytes(encoder.weights, own, formats))


def stage_bytes(program: ShardedProgram, bytes_of: Mapping[str, Array], pp: int) -> Array:
    """Bytes of the fullest stage's layers, where a layer of each kind has `bytes_of` it."""
    fullest: Array = 0.0
    for counts in stage_kinds(program.model.layers, pp):
        fullest = np.maximum(fullest, sum((n * bytes_of[kind] for kind, n in counts), start=0.0))
    return fullest


def kv_cache_bytes(
    program: ShardedProgram, sizes: Sizes, formats: Formats, *, context: Array, pp: Array = 1, page_size: int = 1
) -> Array:
    """Cache and states of every layer of a stage for `context` tokens a sequence, in whole pages of `page_size` tokens.

    What a decoder keeps of the input lies beside it, in pages too.
    """
    n_sequences = sum((group.n_sequences for group in sizes.groups), start=0.0)
    paged = ceil_div(context, page_size) * page_size
    read = sizes.groups[0].input_tokens
    kept = None if read is None else ceil_div(read, page_size) * page_size
    full = TokenGroup(n_sequences=n_sequences, new_tokens=0.0, past_tokens=paged, input_tokens=kept)
    held = Sizes(program, sizes.mesh, [full])
    states = {block.kind: tensor_bytes(block.state, held.of(block), formats) for block in program.blocks}
    return by_stages(pp, lambda n: stage_bytes(program, states, n))


def activation_bytes(program: ShardedProgram, sizes: Sizes, formats: Formats, *, static: bool) -> Array:
    """Activations at the fullest step of a block, or, for allocators that never reuse, of all a block's tensors.

    The residual lives through the block; every other tensor from the step that makes it to the last that reads it.
    """
    written = _stack_bytes(program, sizes, formats, static=static)
    if program.encoder is None:
        return written
    own = sizes.of_input
    read = _stack_bytes(program.encoder, own, formats, static=static)
    kept = [(block.of_input_alive, own.of(block)) for block in program.blocks]
    return np.maximum(np.maximum(written, read), _fullest(kept, formats))


def _stack_bytes(program: ShardedProgram | EncoderProgram, sizes: Sizes, formats: Formats, *, static: bool) -> Array:
    """Activations of one stack with its two ends and its residual."""
    blocks = [(block, sizes.of(block)) for block in program.blocks]
    peak: Array = 0.0
    if static:
        for block, own in blocks:
            peak = np.maximum(peak, tensor_bytes(block.buffers, own, formats))
        peak = peak + tensor_bytes(program.buffers, sizes, formats)
    else:
        peak = _fullest([(program.alive, sizes), *((block.alive, own) for block, own in blocks)], formats)
    return tensor_bytes((program.residual,), sizes, formats) + peak


def _fullest(held: Sequence[tuple[tuple[tuple[Tensor, ...], ...], Sizes]], formats: Formats) -> Array:
    """Bytes of the step that holds most."""
    peak: Array = 0.0
    for steps, own in held:
        for tensors in steps:
            peak = np.maximum(peak, tensor_bytes(tensors, own, formats))
    return peak


def gathered_bytes(program: ShardedProgram, sizes: Sizes, formats: Formats) -> Array:
    """The largest gathered copy of weights at any einsum; looped gathers hold the shard in use and the one coming in."""
    peak: Array = 0.0
    for part in program.parts:
        own = sizes.at(part)
        for step in part.steps if part.block else ():
            if isinstance(step, Collective) and step.moves_weights:
                shards, whole = (tensor_bytes(tensors, own, formats) for tensors in (step.tensors, step.results))
                peak = np.maximum(peak, 2.0 * shards if step.looped else whole)
    return peak


def memory_bytes(
    program: ShardedProgram,
    sizes: Sizes,
    formats: Formats,
    *,
    context: Array,
    pp: Array = 1,
    n_microbatches: Array = 1.0,
    page_size: int = 1,
    static: bool = False,
) -> MemoryBytes:
    """Peak bytes on the fullest chip of one replica.

    Parameters
    ----------
    sizes : of one micro-batch
    context : (...) tokens a sequence holds in the cache at most
    pp : (...) stages; 1 for all candidates or for none
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
