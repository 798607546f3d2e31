"""What the serving engine asks of the cost model: seconds of a pass, and of many decode steps at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from ...models.sizes import batch_axes
from .machine import Machine
from .pass_curve import DecodeCurve, PassCurve, decode_curve, pass_curve
from .phases import PhaseSetting, mixed_pass_s
from .price import Engine


class Chunk(NamedTuple):
    """A prompt, or a part of one, in a pass: its new tokens, and those of the sequence that are in the cache already."""

    new_tokens: int
    past_tokens: int


class StepTime(Protocol):
    """Seconds of the passes of one replica; what the engine knows of hardware and model."""

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """Share of a pass that each pipeline stage takes; (1.0,) without a pipeline."""
        ...

    def decode_s(self, sequences: int, context_tokens: int, steps: int = 1) -> float:
        """Seconds of `steps` decode steps in a row.

        Parameters
        ----------
        sequences : each writes one token a step
        context_tokens : tokens all of them attend to in the first step together, the new ones included
        """
        ...

    def pass_s(self, chunks: Sequence[Chunk], sequences: int = 0, context_tokens: int = 0) -> float:
        """Seconds of a pass over parts of prompts and, beside them, one decode step of `sequences`."""
        ...


def line_sum(first: float, step: float, n: int) -> float:
    """Sum of n terms that begin with `first` and grow by `step`.

    >>> line_sum(1.0, 2.0, 4)
    16.0
    """
    return n * first + step * (n * (n - 1) / 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantSteps:
    """Passes that take the same time whatever is in them, as the closed forms of queueing theory have it."""

    prefill_s: float
    decode_step_s: float
    stage_shares: tuple[float, ...] = (1.0,)

    def decode_s(self, sequences: int, context_tokens: int, steps: int = 1) -> float:
        """Every step alike."""
        return self.decode_step_s * steps

    def pass_s(self, chunks: Sequence[Chunk], sequences: int = 0, context_tokens: int = 0) -> float:
        """A prefill for each chunk, and a step if anything decodes."""
        return self.prefill_s * len(chunks) + (self.decode_step_s if sequences else 0.0)


class PhasedSteps:
    """`StepTime` of a plan: prefill and decode programs on one mesh each, one pass where they are one program.

    Parameters
    ----------
    prefill, decode : the phases, each on its mesh
    max_sequences : most sequences that ever decode together
    mixes : a chunk and a decode step go through the chips as one pass; else one after the other
    scale : every time is multiplied by this; 1 unless it was fitted to a measured run
    masking_s : what the host takes a sequence and step on top, while the chips wait: a mask over the vocabulary
    """

    def __init__(
        self,
        prefill: "PhaseRun",
        decode: "PhaseRun",
        *,
        max_sequences: int,
        mixes: bool,
        stage_shares: tuple[float, ...] = (1.0,),
        scale: float = 1.0,
        masking_s: float = 0.0,
    ) -> None:
        self._prefill = prefill
        self._decode = decode.decode_curve(max_sequences)
        self._mixed = decode.pass_curve(1) if mixes else None
        self._scale = scale
        self._masking_s = masking_s
        self._stage_shares = stage_shares

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """Share of a pass that each pipeline stage takes."""
        return self._stage_shares

    def decode_s(self, sequences: int, context_tokens: int, steps: int = 1) -> float:
        r"""Seconds of decode steps, summed in closed form.

        .. math:: \sum_{j<k} a_n + \max(c_n S_j,\; m_n + r_n S_j), \qquad S_j = S + j n

        Both lines grow along S, so the larger of them changes at most once.
        """
        curve, i = self._decode, sequences - 1
        compute, fixed, slope = curve.compute_s_per_token[i], curve.memory_s[i], curve.memory_s_per_token[i]
        n_memory = steps
        if compute > slope:
            crossing = fixed / (compute - slope)
            n_memory = min(max(math.ceil((crossing - context_tokens) / sequences), 0), steps)
        rest = context_tokens + n_memory * sequences
        attention = line_sum(fixed + slope * context_tokens, slope * sequences, n_memory)
        attention += line_sum(compute * rest, compute * sequences, steps - n_memory)
        return self._scale * (steps * curve.fixed_s[i] + attention) + steps * sequences * self._masking_s

    def pass_s(self, chunks: Sequence[Chunk], sequences: int = 0, context_tokens: int = 0) -> float:
        """Seconds of a pass; chunks and decode steps share it where they are one program."""
        if not chunks:
            return self.decode_s(sequences, context_tokens)
        if sequences and self._mixed is not None:
            together = _chunks_s(self._mixed, chunks, sequences, context_tokens)
            return self._scale * together + sequences * self._masking_s
        beside = self.decode_s(sequences, context_tokens) if sequences else 0.0
        return self._scale * _chunks_s(self._prefill.pass_curve(len(chunks)), chunks) + beside


def _chunks_s(curve: PassCurve, chunks: Sequence[Chunk], sequences: int = 0, context_tokens: int = 0) -> float:
    """A pass over chunks and `sequences` that decode."""
    beside_s, apart = 0.0, curve.attention.decode_s_per_cached_token
    new, cached, pairs = float(sequences), float(context_tokens), float(context_tokens)
    if apart is not None:
        beside_s, cached, pairs = apart * context_tokens, 0.0, 0.0
    for chunk in chunks:
        new += chunk.new_tokens
        cached += chunk.new_tokens + chunk.past_tokens
        pairs += curve.attention.pairs(chunk.new_tokens, chunk.past_tokens)
    return beside_s + curve.seconds(
        new_tokens=new, sequences=sequences + len(chunks), pairs=pairs, cached_tokens=cached
    )


@dataclass(slots=True, kw_only=True)
class PhaseRun:
    """One phase of a plan on its mesh, with its curves made when they are first asked for."""

    setting: PhaseSetting
    machine: Machine
    sizes: tuple[int, int, int]
    engine: Engine
    _curves: dict[tuple[str, ...], PassCurve] = field(default_factory=dict)
    _axes: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def pass_curve(self, n_prompts: int) -> PassCurve:
        """Passes of so many prompts: their number says which axes the batch is cut over."""
        axes = self._axes.get(n_prompts)
        if axes is None:
            axes = self._axes[n_prompts] = batch_axes(self.sizes, n_prompts)
        if axes not in self._curves:
            self._curves[axes] = pass_curve(self.setting, self.machine, self.engine, axes)
        return self._curves[axes]

    def by_constants(self) -> "PhaseRun":
        """The same without measured kernels."""
        if self.engine.kernels is None:
            return self
        engine = replace(self.engine, kernels=None)
        return PhaseRun(setting=self.setting, machine=self.machine, sizes=self.sizes, engine=engine)

    def mixed_s(self, n_sequences: int, n_microbatches: int) -> float:
        """A step of a full engine that decodes `n_sequences` and reads the prompts of those that take their places."""
        n, parts = float(n_sequences), float(n_microbatches)
        return float(mixed_pass_s(self.setting, self.machine, n, self.engine, n_microbatches=parts))

    def decode_curve(self, max_sequences: int) -> DecodeCurve:
        """Decode steps of 1 to `max_sequences` sequences."""
        return decode_curve(self.setting, self.machine, self.engine, max_sequences)


def is_one_program(prefill: PhaseRun, decode: PhaseRun, *, rel_tol: float = 1e-9) -> bool:
    """Whether a token costs the same in a prompt and in a decode step, so that both go through one pass.

    That holds where no form cuts the batch or the tokens of a sequence: both phases have one layout on one mesh, and a pass
    over n tokens is priced alike whether they are a prompt or n sequences of one token each. Measured kernels differ between
    the two, so constants alone price this.
    """
    same = (prefill.setting.layout, prefill.setting.attention, prefill.setting.formats, prefill.sizes)
    if same != (decode.setting.layout, decode.setting.attention, decode.setting.formats, decode.sizes):
        return False
    if prefill.machine.chip != decode.machine.chip:
        return False
    one = prefill.by_constants().pass_curve(1)
    many = decode.by_constants().decode_curve(_COMPARED_SEQUENCES)
    return all(
        math.isclose(one.tokens_s(float(n)) + one.sequences_s(float(n)), fixed_s, rel_tol=rel_tol)
        for n, fixed_s in enumerate(many.fixed_s, start=1)
    )


_COMPARED_SEQUENCES = 64
