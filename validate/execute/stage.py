"""One rank's run of a sharded program: every step on real tensors, in the forms the program says."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ...models.description import Model
from ...models.forms import AXES, Form
from ...models.program import (
    Append,
    Attention,
    Collective,
    Matmul,
    Pointwise,
    SendRecv,
    ShardedProgram,
    Step,
    Tensor,
)
from . import arithmetic as do
from .cache import Cache
from .comm import Wires
from .exchange import exchange, looped_matmul
from .formats import scale_name, widened
from .kernels import Kernels
from .shards import Dimensions, cut, indices, recut, rows_of, slots_between
from .weights import pad_heads

# What a norm reads under a name of its own is the residual, at the last position where logits are to come.
_LAST = ("last", "final normed")
_BIASES = {
    "w_q": "bias of q", "w_kv": "bias of kv", "w_o": "bias of o",
    "w_in": "bias of w_in", "w_out": "bias of w_out", "unembedding": "bias of logits",
}  # fmt: skip


@dataclass(slots=True)
class Value:
    """A local tensor and how it lies; copies lead its dimensions."""

    data: torch.Tensor
    form: Form


@dataclass(slots=True, kw_only=True)
class Pass:
    """One forward pass of a micro-batch.

    Parameters
    ----------
    tokens : [B, L] of the whole micro-batch
    past : tokens already in the cache
    """

    tokens: torch.Tensor
    past: int
    dims: Dimensions
    held: dict[str, Value] = field(default_factory=dict)

    @property
    def positions(self) -> torch.Tensor:
        """Positions of the new tokens."""
        return torch.arange(self.past, self.past + self.tokens.shape[1], device=self.tokens.device)


@dataclass(slots=True, kw_only=True)
class Stage:
    """What one rank holds of a model for one program.

    Parameters
    ----------
    layers, ends : local weights by name, of each layer of this stage and of the ends it holds
    caches : one a layer and micro-batch
    clock : seconds now; each step's share is added to `seconds` under part and name
    """

    program: ShardedProgram
    wires: Wires
    kernels: Kernels
    layers: list[dict[str, Value]]
    ends: dict[str, Value]
    is_first: bool
    is_last: bool
    theta: float
    norm_eps: float
    clock: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """The model."""
        return self.program.model

    def run(self, now: Pass, caches: Sequence[Cache]) -> torch.Tensor | None:
        """One pass through this stage; the chosen tokens [B] on the last one, whose logits stay in `now.held`."""
        if self.is_first:
            self._steps("first", self.program.first, now, self.ends, None)
            now.held["residual"] = self._embedded(now)
        else:
            self._receive(now)
        for weights, cache in zip(self.layers, caches, strict=True):
            now.held = {"residual": now.held["residual"]}
            self._steps("block", self.program.only.steps, now, weights, cache)
        if not self.is_last:
            self._steps("handover", self.program.handover, now, {}, None)
            return None
        now.held = {"residual": now.held["residual"]}
        self._steps("last", self.program.last, now, self.ends, None)
        return self._choose(now)

    def _embedded(self, now: Pass) -> Value:
        rows = now.held["embedded"]
        form = self.program.residual.form
        return Value(recut(rows.data, now.dims, rows.form, form, self.wires.place), form)

    def _receive(self, now: Pass) -> None:
        form = self.program.residual.form
        like = torch.empty(now.dims.shape(form), dtype=self.kernels.dtype, device=now.tokens.device)
        started = self.clock()
        now.held["residual"] = Value(self.wires.receive(like), form)
        self._note("handover/send", started)

    def _note(self, key: str, started: float) -> None:
        self.seconds[key] = self.seconds.get(key, 0.0) + self.clock() - started

    def _steps(
        self, part: str, steps: Sequence[Step], now: Pass, weights: dict[str, Value], cache: Cache | None
    ) -> None:
        now.held |= weights
        for i, step in enumerate(steps):
            started = self.clock()
            match step:
                case Matmul():
                    self._matmul(step, now)
                case Attention():
                    assert cache is not None
                    self._attend(step, now, cache)
                case Append():
                    assert cache is not None
                    self._append(step, now, cache)
                case Pointwise():
                    self._pointwise(step, now)
                case Collective():
                    self._collective(step, now, steps[i + 1 :])
                case SendRecv():
                    self.wires.send_on(self._get(step.tensor, now))
            self._note(f"{part}/{step.name}", started)

    def _get(self, tensor: Tensor, now: Pass) -> torch.Tensor:
        """A tensor in the form a step wants; what slices alone bring about is done here."""
        held = now.held.get(tensor.name) or self._residual_as(tensor, now)
        if set(held.form.partial) != set(tensor.form.partial):
            raise AssertionError(f"{tensor.name} lies as {held.form} where {tensor.form} is read")
        return recut(held.data, now.dims, held.form, tensor.form, self.wires.place)

    def _residual_as(self, tensor: Tensor, now: Pass) -> Value:
        residual = now.held["residual"]
        if tensor.name not in _LAST:
            return residual
        axes = residual.form.axes_of("L")
        last = self._last_position(residual, now)
        return Value(last, Form(tuple(item for item in residual.form.dims if item[0] != "L"), axes))

    def _last_position(self, residual: Value, now: Pass) -> torch.Tensor:
        """[B, E] of the last position where this chip holds it, else zeros."""
        held = indices(now.dims, residual.form, "L", self.wires.place).tolist()
        last = now.tokens.shape[1] - 1
        return residual.data[:, held.index(last)] if last in held else torch.zeros_like(residual.data[:, 0])

    def _put(self, tensor: Tensor, data: torch.Tensor, now: Pass) -> None:
        now.held[tensor.name] = Value(data, tensor.form)

    def _alone(self, axes: tuple[str, ...]) -> bool:
        """Whether this chip is the one that adds what must be added once to a sum over `axes`."""
        return all(self.wires.place[axis] == 0 for axis in axes)

    def _matmul(self, step: Matmul, now: Pass) -> None:
        xs = step.x * len(step.weights) if len(step.x) == 1 else step.x
        made: dict[str, torch.Tensor] = {}
        for x, weight, out in zip(xs, step.weights, step.outs, strict=True):
            value = self._product(x, weight, out, now)
            scale = now.held.get(scale_name(weight.name))
            if scale is not None:
                value = (value * self._along_out(scale, weight, out, now)).to(self.kernels.dtype)
            bias = now.held.get(_BIASES.get(weight.name, ""))
            if bias is not None and self._alone(out.form.partial):
                value = value + self._along_out(bias, weight, out, now)
            made[out.name] = made[out.name] + value if out.name in made else value
        for out in step.outs:
            self._put(out, made[out.name], now)

    def _product(self, x: Tensor, weight: Tensor, out: Tensor, now: Pass) -> torch.Tensor:
        held = now.held[weight.name]
        if set(held.form.axes) != set(weight.form.axes):
            return looped_matmul(
                self.kernels,
                self.wires,
                now.dims,
                self._get(x, now),
                x.form,
                held.data,
                held.form,
                weight.form,
                out.form,
            )
        return self.kernels.matmul(self._get(x, now), x.form, self._get(weight, now), weight.form, out.form)

    def _along_out(self, vector: Value, weight: Tensor, out: Tensor, now: Pass) -> torch.Tensor:
        """[copies, 1, 1, ...] of a bias or a scale, for this chip's part of `out`."""
        form = Form(tuple(item for item in out.form.dims if item[0] in vector.form.letters))
        part = recut(vector.data, now.dims, vector.form, form, self.wires.place)
        if weight.copies == 1:
            return part
        return part.view(weight.copies, *(1 for _ in range(len(out.form.dims) - len(form.dims))), *part.shape[1:])

    def _collective(self, step: Collective, now: Pass, later: Sequence[Step]) -> None:
        if step.tensors[0].role == "statistic":
            self._know(step.tensors[0], now, later)
        if step.looped and self.wires.mesh.size(step.axes) > 1:
            return  # its shards go round beside the matmul that uses them
        values = [self._get(tensor, now) for tensor in step.tensors]
        moved = exchange(step, values, now.dims, self.wires)
        for tensor, value in zip(step.results, moved, strict=True):
            self._put(tensor, value, now)

    def _know(self, wanted: Tensor, now: Pass, later: Sequence[Step]) -> None:
        """Make a norm's statistics of what the norm that comes will read; attention has left its own."""
        if wanted.name in now.held:
            return
        read = next(step for step in later if isinstance(step, Pointwise) and step.op == "norm").reads[0]
        self._put(wanted, do.statistics(self.model, self._get(read, now)), now)

    def _append(self, step: Append, now: Pass, cache: Cache) -> None:
        """Write what this chip owns of the new positions."""
        stop = now.past + now.tokens.shape[1]
        slots, positions = slots_between(now.dims, self.program.only.state[0].form, self.wires.place, now.past, stop)
        device = now.tokens.device
        (kept,) = step.new
        new = self._get(kept, now)
        if len(slots) < new.shape[2]:
            new = new.index_select(2, (positions - now.past).to(device))
        cache.write(new, slots.to(device))

    def _attend(self, step: Attention, now: Pass, cache: Cache) -> None:
        q = self._get(step.q, now)
        slots, keys = slots_between(now.dims, step.cache.form, self.wires.place, 0, now.past + now.tokens.shape[1])
        slopes = self._slopes(step.q.form, now)
        mixed, lse = self.kernels.attend(q, cache, len(slots), now.positions, keys.to(q.device), slopes)
        self._put(step.out, mixed, now)
        if step.out.form.partial:
            form = Form((*(item for item in step.q.form.dims if item[0] != "Q"), ("M", step.cache.form.axes_of("S"))))
            now.held["attention statistics"] = Value(lse[..., None].float(), form)

    def _slopes(self, form: Form, now: Pass) -> torch.Tensor | None:
        if self.model.positions != "alibi":
            return None
        heads = Form((("H", form.axes_of("H")),))
        padded = pad_heads(self.model, do.alibi_slopes(self.model.n_heads), heads, now.dims.lengths["H"], lead=0)
        return cut(padded, now.dims, heads, self.wires.place).to(now.tokens.device)

    def _pointwise(self, step: Pointwise, now: Pass) -> None:
        run = {
            "embed": self._embed,
            "norm": self._norm,
            "rotate": self._rotate,
            "merge": self._merge,
            "activate": self._activate,
            "add": self._add,
            "sample": self._sample,
        }[step.op]
        run(step, now)

    def _embed(self, step: Pointwise, now: Pass) -> None:
        table, (out,) = now.held["embedding"], step.writes
        row_of = rows_of(now.dims, table.form, "V", self.wires.place)
        rows = row_of.to(now.tokens.device)[now.tokens]
        found = widened(table.data[rows.clamp(min=0)], self.kernels.dtype) * (rows >= 0)[..., None]
        scale = now.held.get(scale_name("embedding"))
        if scale is not None:
            found = found * scale.data[now.tokens][..., None]
        positions = now.held.get("positions")
        if positions is not None and self._alone(out.form.partial):
            found = found + positions.data[now.positions]
        self._put(out, found.to(self.kernels.dtype), now)

    def _norm(self, step: Pointwise, now: Pass) -> None:
        (read,), (out,) = step.reads, step.writes
        x = self._get(read, now)
        shared = now.held.pop(f"{step.name} statistics", None)
        n = 2 if self.model.norm == "layernorm" else 1
        known = None if shared is None else shared.data.unflatten(-1, (-1, n)).sum(-2)
        form = Form((("E", read.form.axes_of("E")),))
        weight = cut(self._norm_weight(step.name, now), now.dims, form, self.wires.place)
        self._put(out, self.kernels.norm(self.model, x, known, weight), now)

    def _norm_weight(self, name: str, now: Pass) -> torch.Tensor:
        """Scale, and shift if there is one, of a norm: [1 or 2, E]."""
        if name in ("final norm", "embedding norm"):
            return now.held[name].data.view(-1, self.model.d_model)
        rows = now.held["norms"].data.view(self.model.n_norms_per_block, -1, self.model.d_model)
        return rows[1 if name == "ffn norm" else 0]

    def _rotate(self, step: Pointwise, now: Pass) -> None:
        q, kv = (self._get(tensor, now) for tensor in step.reads)
        k = kv[0]
        if self.model.qk_norm:
            scales = now.held["norms of q and k"].data
            q, k = (do.norm_heads(y, scale, self.norm_eps) for y, scale in zip((q, k), scales, strict=True))
        q, k = self.kernels.rotate(q, k, now.positions, self.theta)
        for tensor, value in zip(step.writes, (q, torch.stack((k, kv[1]))), strict=True):
            self._put(tensor, value, now)

    def _merge(self, step: Pointwise, now: Pass) -> None:
        (read,), (out,) = step.reads, step.writes
        parts = now.held.pop("attention statistics").data
        mine = self._own_part(parts, out.form.partial)
        share = do.merge_share(mine, parts)[..., None]
        self._put(out, (self._get(read, now) * share).to(self.kernels.dtype), now)

    def _own_part(self, parts: torch.Tensor, axes: tuple[str, ...]) -> torch.Tensor:
        """The number of this chip among those of its group."""
        return parts[..., self.wires.mesh.index(self.wires.place, tuple(axis for axis in AXES if axis in axes))]

    def _activate(self, step: Pointwise, now: Pass) -> None:
        (read,), (out,) = step.reads, step.writes
        self._put(out, self.kernels.activate(self.model, self._get(read, now)), now)

    def _add(self, step: Pointwise, now: Pass) -> None:
        values = [self._get(tensor, now) for tensor in step.reads]
        self._put(step.writes[0], sum(values[1:], start=values[0]), now)

    def _sample(self, step: Pointwise, now: Pass) -> None:
        """Each chip's best logit and its place in the vocabulary, as two numbers of four bytes."""
        (read,) = step.reads
        logits = self._get(read, now).float()
        mine = indices(now.dims, read.form, "V", self.wires.place).to(logits.device)
        logits = logits.masked_fill(mine < 0, -torch.inf)
        now.held["all logits"], now.held["vocabulary"] = Value(logits, read.form), Value(mine, read.form)
        best, where = logits.max(-1)
        chosen = mine[where].to(torch.int32)
        form = Form((("B", ()), ("C", read.form.axes_of("V"))))
        now.held["best"] = Value(torch.stack((best, chosen.view(torch.float32)))[..., None], form)

    def _choose(self, now: Pass) -> torch.Tensor:
        """The token [B] with the best logit of all; the lowest of equals."""
        best, bits = now.held["best"].data
        tokens = bits.contiguous().view(torch.int32).long()
        is_best = best == best.max(-1, keepdim=True).values
        chosen: torch.Tensor = tokens.masked_fill(~is_best, torch.iinfo(torch.int64).max).amin(-1)
        return chosen
