"""What stands before the first block and after the last: lookup, and the choice of a token."""

import torch

from ....models.forms import Form
from ....models.program import Pointwise
from ..formats import scale_name, widened
from ..local import Local
from ..shards import indices, recut, rows_of
from ..value import Pass, Value


def embed(at: Local, step: Pointwise, now: Pass) -> None:
    """The rows of the table that this chip has, and learned positions, added once."""
    table, (out,) = now.held["embedding"], step.writes
    row_of = rows_of(now.dims, table.form, "V", at.wires.place)
    rows = row_of.to(now.tokens.device)[now.tokens]
    found = widened(table.data[rows.clamp(min=0)], at.kernels.dtype) * (rows >= 0)[..., None]
    scale = now.held.get(scale_name("embedding"))
    if scale is not None:
        found = found * scale.data[now.tokens][..., None]
    positions = now.held.get("positions")
    if positions is not None and at.is_first(out.form.partial):
        found = found + positions.data[now.positions]
    at.put(out, found.to(at.kernels.dtype), now)


def embedded(at: Local, now: Pass) -> Value:
    """What was looked up, as blocks pass it on."""
    rows, form = now.held["embedded"], at.program.residual.form
    return Value(recut(rows.data, now.dims, rows.form, form, at.wires.place), form)


def sample(at: Local, step: Pointwise, now: Pass) -> None:
    """Each chip's best logit and its place in the vocabulary, as two numbers of four bytes."""
    (read,) = step.reads
    logits = at.get(read, now).float()
    mine = indices(now.dims, read.form, "V", at.wires.place).to(logits.device)
    logits = logits.masked_fill(mine < 0, -torch.inf)
    now.held["all logits"], now.held["vocabulary"] = Value(logits, read.form), Value(mine, read.form)
    best, where = logits.max(-1)
    chosen = mine[where].to(torch.int32)
    form = Form((("B", ()), ("C", read.form.axes_of("V"))))
    now.held["best"] = Value(torch.stack((best, chosen.view(torch.float32)))[..., None], form)


def choose(now: Pass) -> torch.Tensor:
    """The token [B] with the best logit of all; the lowest of equals."""
    best, bits = now.held["best"].data
    tokens = bits.contiguous().view(torch.int32).long()
    is_best = best == best.max(-1, keepdim=True).values
    chosen: torch.Tensor = tokens.masked_fill(~is_best, torch.iinfo(torch.int64).max).amin(-1)
    return chosen
