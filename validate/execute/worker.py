"""One rank of a run: weights, prefill, the cache's way to decode, decode; and what was seen on the way."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.forms import Form
from ...models.program import ShardedProgram, Tensor
from ...simulator.cost.handoff import cache_collectives
from .cache import Cache
from .checkpoint import Checkpoint
from .comm import STAGES, Wires
from .exchange import exchange
from .formats import DTYPES, SCALED, kept_as, quantised, scale_name
from .kernels import Kernels, TorchKernels
from .shards import Dimensions, recut
from .spec import RunSpec
from .stage import Pass, Stage, Value
from .watch import Watch
from .weights import ENDS, RandomWeights, Weights, local_part, made_up_part

# What a pass takes beside its steps, by the name it is priced under.
PASS = "pass/pass"


@dataclass(slots=True, kw_only=True)
class RankReport:
    """What one rank saw.

    Parameters
    ----------
    tokens : [steps, B] chosen after each pass, of this rank's replica; on the last stage
    logits, vocabulary : of each pass [steps, B, V_local], and which entries of the vocabulary they are
    sent_bytes : by phase (prefill, handoff, decode) and group
    held_bytes : weights and cache that lie on this rank
    peak_bytes : held, and the most that was alive beside it in a pass
    step_s : of each timed run, seconds of each step by phase and name; of decode, the mean over its passes. On a CPU they are
        the rank's CPU time
    wall_s : of each timed run, seconds by the clock of prefill and of one decode step
    """

    rank: int
    tokens: list[list[int]] = field(default_factory=list)
    logits: NDArray[np.float32] | None = None
    vocabulary: NDArray[np.int64] | None = None
    sent_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    held_bytes: int = 0
    peak_bytes: int = 0
    step_s: list[dict[str, float]] = field(default_factory=list)
    wall_s: list[dict[str, float]] = field(default_factory=list)


# Hands the tokens a pass chose from the last stage to all: the host's way, no process group's.
TellTokens = Callable[[int, torch.Tensor | None], torch.Tensor]


def prompts(spec: RunSpec) -> torch.Tensor:
    """Random prompts of all sequences [batch, input_tokens]."""
    generator = torch.Generator().manual_seed(spec.seed)
    return torch.randint(spec.model.vocab_size, (spec.batch, spec.input_tokens), generator=generator)


def weights_of(spec: RunSpec) -> Weights:
    """The run's weights, whole, before any of them is rounded."""
    tensors, dtype = spec.weight_tensors(), DTYPES[spec.dtype]
    if spec.checkpoint is not None:
        return Checkpoint(spec.checkpoint, spec.model, tensors, dtype)
    return RandomWeights(spec.model, tensors, spec.seed, dtype)


class Rank:
    """A rank with its weights and caches.

    Parameters
    ----------
    tell : how tokens get from the last stage to the others
    source : whole weights to cut; None makes something of the local shapes up
    note : called at each step
    """

    def __init__(
        self,
        spec: RunSpec,
        wires: Wires,
        tell: TellTokens,
        device: torch.device,
        source: Weights | None,
        note: Callable[[], None] = lambda: None,
    ) -> None:
        self._note = note
        self.spec, self.wires, self.tell, self.device, self._source = spec, wires, tell, device, source
        self.kernels = _kernels(spec, device)
        stage = wires.place[STAGES]
        self.is_first, self.is_last = stage == 0, stage == spec.mesh.pp - 1
        dims = spec.dimensions("prefill", spec.input_tokens, spec.context)
        program = spec.program("prefill")
        self.layers = [self._local(layer, program.only.weights, dims) for layer in spec.layers_of(stage)]
        ends = dict.fromkeys((*program.first_weights * self.is_first, *program.last_weights * self.is_last))
        self.ends = self._local(ENDS, tuple(ends), dims)
        if "unembedding" not in self.ends and self.is_last:
            self._tie()

    def _local(self, layer: int, tensors: tuple[Tensor, ...], dims: Dimensions) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for tensor in tensors:
            is_rounded = self.spec.weights is not None and tensor.name in SCALED
            parts = (
                self._made_up(tensor, dims, is_rounded)
                if self._source is None
                else self._cut(self._source(layer, tensor.name), tensor, dims, is_rounded)
            )
            found |= {name: Value(part.to(self.device), form) for name, (part, form) in parts.items()}
        return found

    def _made_up(self, tensor: Tensor, dims: Dimensions, is_rounded: bool) -> dict[str, tuple[torch.Tensor, Form]]:
        kept = kept_as(self.spec.weights) if is_rounded and self.spec.weights else DTYPES[self.spec.dtype]
        parts = {tensor.name: (made_up_part(tensor, dims, kept, self.device), tensor.form)}
        if is_rounded:
            scale = _scale_of(tensor)
            parts[scale.name] = (made_up_part(scale, dims, DTYPES[self.spec.dtype], self.device), scale.form)
        return parts

    def _cut(
        self, whole: torch.Tensor, tensor: Tensor, dims: Dimensions, is_rounded: bool
    ) -> dict[str, tuple[torch.Tensor, Form]]:
        """The chip's part of a weight; with its scales where it is kept in one byte a number."""
        model, place, lead = self.spec.model, self.wires.place, int(tensor.copies > 1)
        if not is_rounded or self.spec.weights is None:
            return {tensor.name: (local_part(whole, model, tensor.form, dims, place, lead=lead), tensor.form)}
        kept, scales = quantised(whole, tensor.form.letters, tensor.name, self.spec.weights)
        scale = _scale_of(tensor)
        return {
            tensor.name: (local_part(kept, model, tensor.form, dims, place, lead=lead), tensor.form),
            scale.name: (local_part(scales, model, scale.form, dims, place, lead=lead), scale.form),
        }

    def _tie(self) -> None:
        """A tied output matrix is the lookup table seen from the other side."""
        table = self.ends["embedding"]
        form = type(table.form)(tuple(reversed(table.form.dims)))
        self.ends["unembedding"] = Value(table.data.T, form)
        if scale_name("embedding") in self.ends:
            self.ends[scale_name("unembedding")] = self.ends[scale_name("embedding")]

    def run(self, report: RankReport) -> None:
        """One run under watch, then the timed ones."""
        self._held(report)
        self._run(report)
        for _ in range(self.spec.n_timed):
            timed: dict[str, float] = {}
            wall: dict[str, float] = {}
            self._run(None, timed, wall)
            report.step_s.append(timed)
            report.wall_s.append(wall)

    def trace(self, report: RankReport) -> None:
        """One run of tensors without memory: what it would send."""
        self._run(report, has_values=False)

    def _held(self, report: RankReport) -> None:
        values = [*self.ends.values(), *(v for layer in self.layers for v in layer.values())]
        storages = {v.data.untyped_storage().data_ptr(): v.data.untyped_storage().nbytes() for v in values}
        report.held_bytes = sum(storages.values())

    def _stage(self, phase: str) -> Stage:
        return Stage(
            program=self.spec.program(phase), wires=self.wires, kernels=self.kernels, layers=self.layers, ends=self.ends,
            is_first=self.is_first, is_last=self.is_last, theta=self.spec.theta, norm_eps=self.spec.norm_eps,
            clock=_clock(self.device, self._note),
        )  # fmt: skip

    def _caches(self, program: ShardedProgram, phase: str, context: int) -> list[list[Cache]]:
        """One a unit and layer."""
        spec, form = self.spec, program.only.state[0].form
        dims = spec.dimensions(phase, 1, context, spec.unit_sequences)
        b, s, k, q = (dims.local(form, dim) for dim in "BSKQ")
        dealt, kept = bool(dims.cut_axes(form, "S")), kept_as(spec.kv or spec.dtype)

        def make() -> Cache:
            return Cache(b, s, k, q, page_size=spec.page_size, dtype=kept, device=self.device, is_dealt=dealt)

        return [[make() for _ in self.layers] for _ in range(spec.n_units)]

    def _run(
        self,
        report: RankReport | None,
        timed: dict[str, float] | None = None,
        wall: dict[str, float] | None = None,
        *,
        has_values: bool = True,
    ) -> None:
        told = report if has_values else None
        spec = self.spec
        prefill, decode = self._stage("prefill"), self._stage("decode")
        same = set_form(prefill.program.only.state[0].form) == set_form(decode.program.only.state[0].form)
        n_prefill = spec.context if same else spec.input_tokens
        caches = self._caches(prefill.program, "prefill", n_prefill)
        if report is not None:
            report.held_bytes += sum(cache.memory.nbytes for part in caches for cache in part)
        mine = prompts(spec).to(self.device).chunk(spec.mesh.dp)[self.wires.place["dp"]]
        started = time.perf_counter()
        with self._watching(report, "prefill", has_values):
            dims = spec.dimensions("prefill", spec.input_tokens, n_prefill)
            chosen = self._passes(prefill, "prefill", mine, 0, dims, caches, told)
        prefill_s = time.perf_counter() - started
        if not same:
            with self._watching(report, "handoff", has_values):
                caches = self._hand_over(prefill.program, decode.program, caches)
        dims = spec.dimensions("decode", 1, spec.context)
        started = time.perf_counter()
        with self._watching(report, "decode", has_values):
            for i in range(spec.output_tokens):
                now = self.tell(i, chosen)[:, None].to(self.device)
                chosen = self._passes(decode, "decode", now, spec.input_tokens + i, dims, caches, told)
        if wall is not None:
            wall |= {"prefill": prefill_s, "decode": (time.perf_counter() - started) / spec.output_tokens}
        if timed is not None:
            timed |= {f"prefill/{key}": seconds for key, seconds in prefill.seconds.items()}
            timed |= {f"decode/{key}": seconds / spec.output_tokens for key, seconds in decode.seconds.items()}
        if report is not None:
            report.peak_bytes += report.held_bytes

    @contextlib.contextmanager
    def _watching(self, report: RankReport | None, phase: str, has_values: bool) -> Iterator[None]:
        """Count what is sent, and where there is memory to count, its peak."""
        if report is None:
            yield
            return
        with Watch(self.wires.names, STAGES, has_memory=has_values) as seen:
            yield
        report.sent_bytes[phase] = dict(seen.sent)
        report.peak_bytes = max(report.peak_bytes, seen.peak)

    def _passes(
        self, stage: Stage, phase: str, tokens: torch.Tensor, past: int, dims: Dimensions, caches: list[list[Cache]],
        report: RankReport | None,
    ) -> torch.Tensor | None:  # fmt: skip
        """All passes of all units through this stage; tokens come and go in the units' order."""
        n_cut = self.spec.mesh.size(stage.program.only.state[0].form.axes_of("B"))
        order = pass_order(self.spec.unit_sequences, self.spec.sequences(phase), n_cut).to(self.device)
        started, before_s = stage.clock(), sum(stage.seconds.values())
        chosen = []
        for unit, held in zip(tokens.chunk(self.spec.n_units), caches, strict=True):
            parts = []
            for i, rows in enumerate(order):
                now = Pass(tokens=unit[rows], past=past, dims=dims)
                found = stage.run(now, [cache.part(i, len(order)) for cache in held])
                if found is not None:
                    parts.append((found, now.held["all logits"].data, now.held["vocabulary"].data))
            if parts:
                back = order.flatten().argsort()
                chosen.append([torch.cat([part[k] for part in parts])[back] for k in (0, 1)] + [parts[0][2]])
        in_steps_s = sum(stage.seconds.values()) - before_s
        stage.seconds[PASS] = stage.seconds.get(PASS, 0.0) + stage.clock() - started - in_steps_s
        if not chosen:
            return None
        tokens = torch.cat([found for found, _, _ in chosen])
        if report is not None:
            report.tokens.append(tokens.tolist())
            logits = torch.cat([part for _, part, _ in chosen])[None].cpu().numpy()
            report.logits = logits if report.logits is None else np.concatenate([report.logits, logits])
            report.vocabulary = chosen[0][2].cpu().numpy()
        return tokens

    def _hand_over(self, before: ShardedProgram, after: ShardedProgram, caches: list[list[Cache]]) -> list[list[Cache]]:
        """Bring the prompts' cache from the form prefill left it in to decode's, all layers in one message."""
        spec = self.spec
        dims = spec.dimensions("decode", 1, spec.input_tokens, spec.unit_sequences)
        made = self._caches(after, "decode", spec.context)
        moves = cache_collectives(before.only.state[0], after.only.state[0])
        for old, new in zip(caches, made, strict=True):
            value, form = (
                torch.stack([cache.read(dims.local(before.only.state[0].form, "S")) for cache in old]),
                before.only.state[0].form,
            )
            for move in moves:
                value = recut(value, dims, form, move.tensors[0].form, self.wires.place)
                (value,) = exchange(move, [value], dims, self.wires)
                form = move.after[0]
            value = recut(value, dims, form, after.only.state[0].form, self.wires.place)
            slots = torch.arange(value.shape[3], device=value.device)
            for cache, layer in zip(new, value, strict=True):
                cache.write(layer, slots)
        return made


def pass_order(n_unit: int, n_pass: int, n_cut: int) -> torch.Tensor:
    """Which sequences of a unit go through each pass [passes, n_pass]: those whose cache each chip keeps side by side.

    Parameters
    ----------
    n_cut : chips the cache's sequences are cut over, each of which keeps one run of the unit's

    Examples
    --------
    >>> pass_order(8, 4, 2).tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    return torch.arange(n_unit).view(n_cut, n_unit // n_pass, -1).transpose(0, 1).flatten(1)


def _scale_of(weight: Tensor) -> Tensor:
    """The scales of a weight, whole on every chip."""
    form = Form(tuple((dim, ()) for dim in weight.form.letters if dim in SCALED[weight.name]))
    return Tensor(name=scale_name(weight.name), form=form, role="weight", copies=weight.copies)


def _kernels(spec: RunSpec, device: torch.device) -> Kernels:
    """What the spec computes with; Triton is imported only where it is asked for."""
    if spec.kernels == "torch":
        return TorchKernels(DTYPES[spec.dtype], spec.norm_eps)
    from .triton_kernels import TritonKernels

    return TritonKernels(DTYPES[spec.dtype], spec.context, spec.theta, spec.model.d_head, device, spec.norm_eps)


def set_form(form: Form) -> tuple[tuple[str, frozenset[str]], ...]:
    """A form without the order of its axes, which says nothing."""
    return tuple((dim, frozenset(axes)) for dim, axes in form.dims)


def _clock(device: torch.device, note: Callable[[], None]) -> Callable[[], float]:
    """Seconds now, once the device is done with all it was given; whoever asks is `note`d.

    On a CPU they are the process's own: cores that are shared with other work make wall time a measure of that work.
    """

    def now() -> float:
        note()
        if device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
