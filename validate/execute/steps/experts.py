"""Mixtures of experts: choose, send tokens to where their experts are, run them, bring back what they made."""

import torch

from ....models.feed_forward import ExpertsFfn
from ....models.forms import Form
from ....models.program import Exchange, Experts, Matmul, Pointwise, Tensor
from .. import arithmetic as do
from ..local import Local
from ..routing import in_turn
from ..routing import route as routed
from ..shards import indices
from ..value import Dispatched, Pass


def _ffn(now: Pass) -> ExpertsFfn:
    ffn = now.running.block.ffn
    assert isinstance(ffn, ExpertsFfn)
    return ffn


def route(at: Local, step: Pointwise, now: Pass) -> None:
    """Choose the experts of every token this chip has."""
    (read,) = step.reads
    ffn, turns = _ffn(now), None
    if at.routing == "balanced":
        mine = indices(now.dims, read.form, "B", at.wires.place).to(now.tokens.device)
        turns = in_turn(now.sequences[mine], now.positions, ffn, at.wires.mesh.tp)
    bias = now.held["bias of router"].data if ffn.router_bias else None
    now.routing = routed(at.get(read, now), bias, ffn, turns=turns)


def experts(at: Local, step: Experts, now: Pass) -> None:
    """Every token through those of its experts that this chip has; of what came from elsewhere, what goes back."""
    into, out = (at.weight(tensor, now) for tensor in step.weights)
    run = _Mlp(at, step, now, into, out)
    if step.exchanged and at.wires.mesh.size(step.exchanged) > 1:
        assert now.dispatched is not None
        now.dispatched.rows = run.rows(now.dispatched.rows, now.dispatched.counts)
        return
    assert now.routing is not None
    x = at.get(step.x, now)
    at.put(step.out, run.tokens(x, now.routing.experts, now.routing.weights), now)


class _Mlp:
    """The experts of one chip."""

    def __init__(self, at: Local, step: Experts, now: Pass, into: torch.Tensor, out: torch.Tensor) -> None:
        self._ffn, self._at, self._into, self._out = step.ffn, at, into, out
        form = step.weights[0].form
        self._mine = indices(now.dims, form, "G", at.wires.place).tolist()
        wide = form.axes_of("F")
        self._bias_in = self._bias_out = None
        if step.ffn.expert_bias:
            self._bias_in = at.part_of("bias of experts in", Form((("G", form.axes_of("G")), ("F", wide))), now)
            width = step.weights[1].form.letters[-1]
            bias = at.part_of("bias of experts out", Form((("G", form.axes_of("G")), (width, ()))), now)
            self._bias_out = bias if at.is_first(wide) else None

    def tokens(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """[B, L, E] the weighed sum over each token's experts that are here."""
        flat, total = x.flatten(0, -2), torch.zeros_like(x).flatten(0, -2)
        if x.is_meta:
            return total.view(x.shape)
        chosen, weights = chosen.flatten(0, -2), weights.flatten(0, -2)
        for local, expert in enumerate(self._mine):
            token, choice = (chosen == expert).nonzero(as_tuple=True)
            if len(token):
                made = self._one(flat[token], local) * weights[token, choice][:, None]
                total.index_add_(0, token, made.to(total.dtype))
        return total.view(x.shape)

    def rows(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """[n, E] through the experts they were sent to."""
        if rows.is_meta:
            return torch.empty_like(rows)
        local = torch.arange(counts.shape[1], device=rows.device).expand_as(counts).flatten()
        which = local.repeat_interleave(counts.flatten())
        made = torch.empty_like(rows)
        for expert in range(counts.shape[1]):
            mine = (which == expert).nonzero().flatten()
            if len(mine):
                made[mine] = self._one(rows[mine], expert)
        return made

    def _one(self, rows: torch.Tensor, local: int) -> torch.Tensor:
        hidden = rows @ self._into.select(-3, local)
        if self._bias_in is not None:
            hidden = hidden + self._bias_in.select(-2, local).unsqueeze(-2)
        made = do.activate(self._ffn, hidden) @ self._out[local]
        return made if self._bias_out is None else made + self._bias_out[local]


def exchange(at: Local, step: Exchange, now: Pass) -> None:
    """Send tokens to their experts, or bring back what these made of them; nothing where all experts are here."""
    if at.wires.mesh.size(step.axes) == 1:
        return
    if step.n_counts:
        _dispatch(at, step, now)
    else:
        _combine(at, step, now)


def _dispatch(at: Local, step: Exchange, now: Pass) -> None:
    """A row for each of a token's experts, by chip and then by expert; how many go to each expert goes ahead."""
    assert now.routing is not None
    x = at.get(step.tensor, now).flatten(0, -2)
    n_chips = at.wires.mesh.size(step.axes)
    if x.is_meta:
        counts = x.new_empty((n_chips, step.n_counts // n_chips), dtype=torch.int32)
        order = counts.new_empty(len(x) * step.n_copies)
        arrived = at.wires.all_to_all(step.axes, counts)
        sent = got = [len(order) // n_chips] * n_chips
    else:
        by_place, chosen = _places(at, step, now).to(x.device).argsort(), now.routing.experts.flatten()
        order = by_place[chosen].argsort(stable=True)
        counts = torch.bincount(by_place[chosen], minlength=step.n_counts).view(n_chips, -1).to(torch.int32)
        arrived = at.wires.all_to_all(step.axes, counts)
        sent, got = (found.sum(1).tolist() for found in (counts, arrived))
    rows = at.wires.all_to_all_rows(step.axes, x[order // step.n_copies], sent, got)
    now.dispatched = Dispatched(rows=rows, counts=arrived, order=order, sent=sent, got=got)


def _places(at: Local, step: Exchange, now: Pass) -> torch.Tensor:
    """The experts in the order chips along the exchange's axes hold them."""
    form = next(s.weights[0].form for s in now.running.steps if isinstance(s, Experts))
    found = []
    for number in range(at.wires.mesh.size(step.axes)):
        place, rest = dict(at.wires.place), number
        for axis in reversed(step.axes):
            rest, place[axis] = divmod(rest, at.wires.mesh.axes[axis])
        found.append(indices(now.dims, form, "G", place))
    return torch.cat(found)


def _combine(at: Local, step: Exchange, now: Pass) -> None:
    """Rows come home and are added up, weighed by the router."""
    assert now.dispatched is not None
    assert now.routing is not None
    there, like = now.dispatched, now.dims.shape(step.tensor.form)
    rows = at.wires.all_to_all_rows(step.axes, there.rows, there.got, there.sent)
    weights = now.routing.weights.flatten()[there.order]
    total = rows.new_zeros((like[0] * like[1], like[2]))
    total.index_add_(0, there.order // step.n_copies, rows * weights[:, None])
    at.put(step.tensor, total.view(like), now)
    now.dispatched = None


def gate_shared(at: Local, out: Tensor, now: Pass) -> torch.Tensor:
    """What the shared experts have activated, scaled by a number of each token."""
    axes = dict(out.form.dims)
    entered = next(step.x[0] for step in now.running.steps if isinstance(step, Matmul) and step.name == "router")
    x = entered.at(Form(tuple((dim, axes.get(dim, ())) for dim in entered.form.letters)))
    return at.get(out, now) * (at.get(x, now) @ now.held["shared gate"].data).sigmoid()[..., None]
