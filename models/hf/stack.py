"""From one block a layer to kinds of blocks by name, and rows of layers that repeat."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..blocks import Block, Layers
from ..feed_forward import Activation, DenseFfn
from ..mixers.attention import AttentionMixer
from ..mixers.compressed import CompressedMixer

# Longest pattern of layers that is looked for.
_LONGEST_ROW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBlock:
    """Sizes of a block that a model can hold without a stack."""

    n_heads: int
    n_kv_heads: int
    d_head: int
    qk_norm: bool
    d_ff: int
    gated: bool
    activation: Activation


def plain_block(blocks: Sequence[Block]) -> PlainBlock | None:
    """The one block all layers are alike, if it is attention and a dense feed-forward part with nothing of their own."""
    first = blocks[0]
    mixer, ffn = first.mixer, first.ffn
    if not (isinstance(mixer, AttentionMixer) and isinstance(ffn, DenseFfn)) or any(block != first for block in blocks):
        return None
    plain_mixer = AttentionMixer(
        n_heads=mixer.n_heads, n_kv_heads=mixer.n_kv_heads, d_head=mixer.d_head, qk_norm=mixer.qk_norm
    )
    plain_ffn = DenseFfn(d_ff=ffn.d_ff, gated=ffn.gated, activation=ffn.activation)
    if first != Block(mixer=plain_mixer, ffn=plain_ffn):
        return None
    return PlainBlock(
        n_heads=mixer.n_heads,
        n_kv_heads=mixer.n_kv_heads,
        d_head=mixer.d_head,
        qk_norm=mixer.qk_norm,
        d_ff=ffn.d_ff,
        gated=ffn.gated,
        activation=ffn.activation,
    )


def stack_of(blocks: Sequence[Block]) -> tuple[dict[str, Block], tuple[Layers, ...]]:
    """Kinds of blocks by name, and the order they follow each other in."""
    kinds: dict[str, Block] = {}
    names: list[str] = []
    known: dict[Block, str] = {}
    for block in blocks:
        if block not in known:
            stem = _stem(block)
            taken = sum(1 for name in kinds if name == stem or name.startswith(f"{stem}-no"))
            known[block] = stem if not taken else f"{stem}-no{taken + 1}"
            kinds[known[block]] = block
        names.append(known[block])
    return kinds, rows_of(names)


def _stem(block: Block) -> str:
    parts: list[str] = []
    if isinstance(block.mixer, AttentionMixer) and block.mixer.reach is not None:
        parts.append(f"{block.mixer.reach.pattern}-{block.mixer.reach.size}")
    elif isinstance(block.mixer, CompressedMixer):
        parts.append(f"compressed-{block.mixer.ratio or 1}")
    elif block.mixer is not None:
        parts.append(block.mixer.kind)
    return "-".join(parts + ([] if block.ffn is None else [block.ffn.kind]))


def rows_of(names: Sequence[str]) -> tuple[Layers, ...]:
    """Layers in rows that repeat, as few as a greedy search finds.

    >>> [(row.repeat, row.blocks) for row in rows_of(["a", "b", "b", "a", "b", "b", "c"])]
    [(2, ('a', 'b', 'b')), (1, ('c',))]
    """
    rows: list[Layers] = []
    at = 0
    while at < len(names):
        length, repeat = 1, 1
        for size in range(1, min(_LONGEST_ROW, (len(names) - at) // 2) + 1):
            times = _repeats(names, at, size)
            if times > 1 and times * size > length * repeat:
                length, repeat = size, times
        if repeat == 1 and rows and rows[-1].repeat == 1:
            rows[-1] = Layers(blocks=(*rows[-1].blocks, names[at]))
        else:
            rows.append(Layers(repeat=repeat, blocks=tuple(names[at : at + length])))
        at += length * repeat
    return tuple(rows)


def _repeats(names: Sequence[str], at: int, size: int) -> int:
    row, times = names[at : at + size], 1
    while names[at + times * size : at + (times + 1) * size] == row:
        times += 1
    return times
