"""Which tensors a block holds while it runs."""

from collections.abc import Sequence

from .program import (
    Attention,
    Collective,
    Exchange,
    Experts,
    Index,
    LatentAttention,
    Matmul,
    Pointwise,
    Scan,
    Step,
    Tensor,
)

RESIDUAL = "residual"


def made(step: Step) -> tuple[Tensor, ...]:
    """Activations a step writes."""
    match step:
        case Matmul():
            return step.outs
        case Attention():
            return (step.out,) if step.scores is None else (step.scores, step.out)
        case LatentAttention() | Scan() | Experts():
            return (step.out,)
        case Exchange():
            return (step.tensor,)
        case Pointwise():
            return step.writes
        case Collective() if not step.moves_weights:
            return step.results
        case _:
            return ()


def read(step: Step) -> tuple[Tensor, ...]:
    """Activations a step reads."""
    match step:
        case Matmul():
            return step.x
        case Attention():
            return (step.q, step.cache) if step.positions == "L" else (step.q,)
        case LatentAttention():
            return step.q
        case Index():
            return step.q, step.share
        case Scan():
            return step.reads
        case Experts():
            return (step.x,)
        case Exchange():
            return (step.tensor,)
        case Pointwise():
            return step.reads
        case Collective() if not step.moves_weights:
            return step.tensors
        case _:
            return ()


def buffers(steps: Sequence[Step]) -> tuple[Tensor, ...]:
    """Every tensor with a buffer of its own, the residual apart.

    A reduction is done in place; whatever changes the dimensions a chip holds has a buffer for its result.
    """
    distinct = {(t.name, t.form.dims): t for step in steps for t in (*made(step), *read(step))}
    return tuple(t for t in distinct.values() if t.name != RESIDUAL)


def alive(steps: Sequence[Step]) -> tuple[tuple[Tensor, ...], ...]:
    """Tensors alive during each step, the residual apart: from the step that makes them to the last that reads them."""
    last = {t.name: i for i, step in enumerate(steps) for t in (*made(step), *read(step))}
    held: dict[str, Tensor] = {}
    found = []
    for i, step in enumerate(steps):
        new = [t for t in made(step) if t.name != RESIDUAL]
        # what a step leaves with the same dimensions it found lies where it lay
        reused = {(t.name, t.form.dims) for t in new}
        kept = [t for name, t in held.items() if last[name] >= i and (t.name, t.form.dims) not in reused]
        found.append((*kept, *new))
        held |= {t.name: t for t in new}
    return tuple(found)
