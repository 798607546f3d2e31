"""From a model and a layout to the sharded program.

The lowering says which einsums there are and in which form each needs its operands. Every collective comes out of
`reshard`; those of one kind over the same axes at the same moment are one launch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from .blocks import Block
from .description import Model
from .forms import AXES
from .layouts import AttentionSharding, ExpertSharding, Layout, get_layout
from .lifetimes import RESIDUAL, alive, buffers
from .lowering.block import lower_block
from .lowering.ends import Ends
from .lowering.forms import BlockForms
from .program import ENCODER, BlockProgram, EncoderProgram, SendRecv, ShardedProgram, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How all blocks of a program are lowered."""

    layout: Layout
    attention: AttentionSharding
    experts: ExpertSharding
    batch_axes: tuple[str, ...]
    head_axes: tuple[str, ...]
    looped: bool
    materialised_scores: bool

    def blocks(
        self, model: Model, kinds: Mapping[str, Block], n_layers_of: Mapping[str, int], *, both_ways: bool
    ) -> tuple[BlockProgram, ...]:
        """One for each kind of block."""
        return tuple(
            lower_block(
                model, block, kind, n_layers_of[kind],
                self.layout, self.attention, self.experts, self.batch_axes, self.head_axes,
                looped=self.looped, materialised_scores=self.materialised_scores, both_ways=both_ways,
            )
            for kind, block in kinds.items()
        )  # fmt: skip


@lru_cache(maxsize=1024)
def lower(
    model: Model,
    layout: str,
    attention: AttentionSharding,
    *,
    experts: ExpertSharding = "tensor",
    batch_axes: tuple[str, ...] = AXES,
    head_axes: tuple[str, ...] = AXES,
    looped: bool = False,
    materialised_scores: bool = False,
    reads_input: bool = True,
) -> ShardedProgram:
    """Lower one layout of one model to a sharded program.

    Parameters
    ----------
    layout, attention, experts : names: ``ws-2d``, ``batch``, ``expert``
    batch_axes : the axes that divide the batch (a prefix of x, y, z); forms that cut B over others leave it whole there
    head_axes : the axes the heads are cut over, padded where they do not divide
    looped : weights are gathered in rounds beside the matmul that uses them (looped CollectiveEinsum)
    materialised_scores : attention writes its scores to memory, masked ones too, as before flash attention
    reads_input : False for a pass behind an encoder that has read the input already, and for what a model that generates
        nothing has of it: no step

    References
    ----------
    [Pope2022] sections 3.2 to 3.5.
    """
    declared = get_layout(layout)
    head_axes = tuple(axis for axis in head_axes if axis not in declared.data_axes)
    # replicas along an axis share sequences out as evenly as they can, whether their number divides or not
    batch_axes = tuple(axis for axis in AXES if axis in batch_axes or axis in declared.data_axes)
    residual_forms = BlockForms(declared, attention, experts, batch_axes, head_axes, n_groups=1)
    ends = Ends(model, declared, residual_forms, looped=looped)
    residual = Tensor(name=RESIDUAL, form=residual_forms.residual)
    way = _Way(
        layout=declared, attention=attention, experts=experts, batch_axes=batch_axes, head_axes=head_axes,
        looped=looped, materialised_scores=materialised_scores,
    )  # fmt: skip
    first = ends.embed(has_norm=model.embedding_norm)
    last = ends.close(has_norm=model.final_norm) if model.bidirectional else ends.unembed()
    made = ShardedProgram(
        model=model,
        layout=declared,
        attention=attention,
        batch_axes=batch_axes,
        head_axes=head_axes,
        experts=experts,
        looped=looped,
        first=first,
        blocks=way.blocks(model, model.kinds, model.n_layers_of, both_ways=model.bidirectional),
        last=last,
        handover=(SendRecv(name="send", tensor=residual),),
        first_weights=ends.first_weights(),
        last_weights=ends.last_weights(),
        residual=residual,
        alive=tuple(held for steps in (first, last) for held in alive(steps)),
        buffers=buffers((*first, *last)),
        encoder=_encoder(model, ends, way),
    )
    return made if reads_input else _without_input(made)


def _encoder(model: Model, ends: Ends, way: _Way) -> EncoderProgram | None:
    """The stack that reads the input, where there is one."""
    encoder = model.encoder
    if encoder is None:
        return None
    names = {kind: ENCODER if len(encoder.blocks) == 1 else f"{ENCODER} {kind}" for kind in encoder.blocks}
    kinds = {names[kind]: block for kind, block in encoder.blocks.items()}
    n_layers_of = {names[kind]: n for kind, n in encoder.n_layers_of.items()}
    first, last = ends.embed(has_norm=encoder.embedding_norm), ends.hand_on(has_norm=encoder.final_norm)
    return EncoderProgram(
        first=first,
        blocks=way.blocks(model, kinds, n_layers_of, both_ways=True),
        last=last,
        weights=ends.encoder_weights(encoder),
        residual=Tensor(name=RESIDUAL, form=ends.forms.residual),
        alive=tuple(held for steps in (first, last) for held in alive(steps)),
        buffers=buffers((*first, *last)),
    )


def _without_input(program: ShardedProgram) -> ShardedProgram:
    """The same without what reads the input: its weights lie there, and nothing runs on them."""

    def idle(blocks: tuple[BlockProgram, ...]) -> tuple[BlockProgram, ...]:
        return tuple(replace(block, steps=(), alive=(), buffers=()) for block in blocks)

    if program.model.bidirectional:
        return replace(program, first=(), blocks=idle(program.blocks), last=(), handover=(), alive=(), buffers=())
    if program.encoder is None:
        return program
    encoder = replace(program.encoder, first=(), blocks=idle(program.encoder.blocks), last=(), alive=(), buffers=())
    blocks = tuple(replace(block, of_input=(), of_input_alive=()) for block in program.blocks)
    return replace(program, encoder=encoder, blocks=blocks)
