"""One rank of a run: weights, prefill, the cache's way to decode, decode; and what was seen on the way."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.blocks import RECURRENT
from ...models.forms import Form
from ...models.program import Tensor
from .cache import LayerState
from .checkpoint import Checkpoint
from .comm import STAGES, Wires
from .formats import DTYPES, kept_as, quantised, scale_name
from .kernels import Kernels, TorchKernels
from .local import Local
from .shards import Dimensions
from .spec import RunSpec
from .stage import Layer, Stage
from .states import Keeper, n_cut, part_of
from .value import Pass, Value
from .vectors import local_vectors
from .watch import Watch
from .weights import ENDS, RandomWeights, Weights, lengths_of, local_part, made_up_part

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


@dataclass(slots=True, kw_only=True)
class Units:
    """What goes through all passes of a step.

    Parameters
    ----------
    tokens, sequences : [B, L] and [B] of a replica's sequences: new tokens, and places in the run's batch
    past : tokens already in the cache
    """

    tokens: torch.Tensor
    sequences: torch.Tensor
    past: int


# Hands the tokens a pass chose from the last stage to all: the host's way, no process group's.
TellTokens = Callable[[int, torch.Tensor | None], torch.Tensor]


def prompts(spec: RunSpec) -> torch.Tensor:
    """Random prompts of all sequences [batch, input_tokens]."""
    generator = torch.Generator().manual_seed(spec.seed)
    return torch.randint(spec.model.vocab_size, (spec.batch, spec.input_tokens), generator=generator)


def weights_of(spec: RunSpec) -> Weights:
    """The run's weights, whole, before any of them is rounded."""
    plan, dtype = spec.weight_plan(), DTYPES[spec.dtype]
    if spec.checkpoint is not None:
        return Checkpoint(spec.checkpoint, plan, dtype)
    return RandomWeights(plan, spec.seed, dtype)


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
        self._plan, program = spec.weight_plan(), spec.program("prefill")
        self.layers = [self._layer(layer) for layer in spec.layers_of(stage)]
        ends = dict.fromkeys((*program.first_weights * self.is_first, *program.last_weights * self.is_last))
        self.ends = self._local(ENDS, tuple(ends))
        if "unembedding" not in self.ends and self.is_last:
            self._tie()

    def _layer(self, number: int) -> Layer:
        """A layer's own part of its weights, the vectors of a recurrent mixer by name."""
        kind, model = self.spec.model.layers[number], self.spec.model
        block = self.spec.program("prefill").of(kind)
        weights, mixer = self._local(number, block.weights), block.block.mixer
        if "vectors" in weights and isinstance(mixer, RECURRENT):
            n_heads = self.spec.dimensions("prefill", kind, 1).lengths["H"]
            flat = weights.pop("vectors").data
            weights |= local_vectors(mixer.recurrence(model.d_model), flat, lengths_of(model, kind), n_heads)
        return Layer(kind=kind, weights=weights)

    def _local(self, layer: int, tensors: tuple[Tensor, ...]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        kind = self._plan.kind(layer)
        dims = self.spec.dimensions("prefill", kind, self.spec.input_tokens)
        for tensor in tensors:
            made = self._plan.made(kind, tensor.name) if self.spec.weights is not None else ()
            parts = (
                self._made_up(tensor, dims, made)
                if self._source is None
                else self._cut(self._source(layer, tensor.name), tensor, dims, kind, made)
            )
            found |= {name: Value(part.to(self.device), form) for name, (part, form) in parts.items()}
        return found

    def _made_up(self, tensor: Tensor, dims: Dimensions, made: tuple[str, ...]) -> dict[str, tuple[torch.Tensor, Form]]:
        kept = kept_as(self.spec.weights) if made and self.spec.weights else DTYPES[self.spec.dtype]
        parts = {tensor.name: (made_up_part(tensor, dims, kept, self.device), tensor.form)}
        if made:
            scale = _scale_of(tensor, made)
            parts[scale.name] = (made_up_part(scale, dims, DTYPES[self.spec.dtype], self.device), scale.form)
        return parts

    def _cut(
        self, whole: torch.Tensor, tensor: Tensor, dims: Dimensions, kind: str, made: tuple[str, ...]
    ) -> dict[str, tuple[torch.Tensor, Form]]:
        """The chip's part of a weight; with its scales where it is kept in one byte a number."""
        lengths, place, lead = lengths_of(self.spec.model, kind), self.wires.place, int(tensor.copies > 1)
        if not made or self.spec.weights is None:
            return {tensor.name: (local_part(whole, lengths, tensor.form, dims, place, lead=lead), tensor.form)}
        kept, scales = quantised(whole, tensor.form.letters, made, self.spec.weights)
        scale = _scale_of(tensor, made)
        return {
            tensor.name: (local_part(kept, lengths, tensor.form, dims, place, lead=lead), tensor.form),
            scale.name: (local_part(scales, lengths, scale.form, dims, place, lead=lead), scale.form),
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
        values = [*self.ends.values(), *(v for layer in self.layers for v in layer.weights.values())]
        storages = {v.data.untyped_storage().data_ptr(): v.data.untyped_storage().nbytes() for v in values}
        report.held_bytes = sum(storages.values())

    def _stage(self, phase: str) -> Stage:
        spec = self.spec
        at = Local(
            program=spec.program(phase), wires=self.wires, kernels=self.kernels, theta=spec.theta, norm_eps=spec.norm_eps,
            routing=spec.routing,
        )  # fmt: skip
        return Stage(
            at=at, layers=self.layers, ends=self.ends, is_first=self.is_first, is_last=self.is_last,
            clock=_clock(self.device, self._note),
        )  # fmt: skip

    @property
    def _numbers(self) -> range:
        return self.spec.layers_of(self.wires.place[STAGES])

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
        keeper = Keeper(spec, self.wires, self.layers, self._numbers, self.device)
        states = keeper.make("prefill")
        if report is not None:
            report.held_bytes += keeper.n_bytes(states)
        mine, places = (
            whole.to(self.device).chunk(spec.mesh.dp) for whole in (prompts(spec), torch.arange(spec.batch))
        )
        replica = self.wires.place["dp"]
        now = Units(tokens=mine[replica], sequences=places[replica], past=0)
        started = time.perf_counter()
        with self._watching(report, "prefill", has_values):
            chosen = self._passes(prefill, "prefill", now, states, told)
        prefill_s = time.perf_counter() - started
        with self._watching(report, "handoff", has_values):
            states = keeper.hand_over(states)
        started = time.perf_counter()
        with self._watching(report, "decode", has_values):
            for i in range(spec.output_tokens):
                tokens = self.tell(i, chosen)[:, None].to(self.device)
                now = Units(tokens=tokens, sequences=places[replica], past=spec.input_tokens + i)
                chosen = self._passes(decode, "decode", now, states, told)
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
        self, stage: Stage, phase: str, now: Units, states: list[list[LayerState]], report: RankReport | None
    ) -> torch.Tensor | None:
        """All passes of all units through this stage; tokens come and go in the units' order."""
        spec, n_new = self.spec, now.tokens.shape[1]
        order = pass_order(spec.unit_sequences, spec.sequences(phase), n_cut(stage.at.program, spec)).to(self.device)
        dims = spec.dimensions_of(phase, n_new)
        started, before_s = stage.clock(), sum(stage.seconds.values())
        chosen = []
        units = zip(now.tokens.chunk(spec.n_units), now.sequences.chunk(spec.n_units), states, strict=True)
        for tokens, places, held in units:
            parts = []
            for i, rows in enumerate(order):
                one = Pass(tokens=tokens[rows], sequences=places[rows], past=now.past, dims_of=dims)
                found = stage.run(one, [part_of(state, i, order, self.wires) for state in held])
                if found is not None:
                    parts.append((found, one.held["all logits"].data, one.held["vocabulary"].data))
            if parts:
                back = order.flatten().argsort()
                chosen.append([torch.cat([part[k] for part in parts])[back] for k in (0, 1)] + [parts[0][2]])
        in_steps_s = sum(stage.seconds.values()) - before_s
        stage.seconds[PASS] = stage.seconds.get(PASS, 0.0) + stage.clock() - started - in_steps_s
        if not chosen:
            return None
        found_tokens = torch.cat([found for found, _, _ in chosen])
        if report is not None:
            report.tokens.append(found_tokens.tolist())
            logits = torch.cat([part for _, part, _ in chosen])[None].cpu().numpy()
            report.logits = logits if report.logits is None else np.concatenate([report.logits, logits])
            report.vocabulary = chosen[0][2].cpu().numpy()
        return found_tokens


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


def _scale_of(weight: Tensor, made: tuple[str, ...]) -> Tensor:
    """The scales of a matrix, whole on every chip."""
    form = Form(tuple((dim, ()) for dim in weight.form.letters if dim in made))
    return Tensor(name=scale_name(weight.name), form=form, role="weight", copies=weight.copies)


def _kernels(spec: RunSpec, device: torch.device) -> Kernels:
    """What the spec computes with; Triton is imported only where it is asked for."""
    if spec.kernels == "torch":
        return TorchKernels(DTYPES[spec.dtype], spec.norm_eps)
    from .triton_kernels import TritonKernels

    return TritonKernels(DTYPES[spec.dtype], spec.context, spec.theta, device, spec.norm_eps)


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
