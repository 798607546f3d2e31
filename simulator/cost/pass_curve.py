"""Seconds of a forward pass as a function of its tokens, sequences and contexts, tabulated from the priced program.

A pass is three parts: what grows with its tokens (all but attention), what grows with the sequences it samples (the last
part), and attention, which grows with the pairs of queries and keys and with the cached tokens it reads. The first two are
lines between the points of a grid; attention is the larger of two lines, as in the program.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.forms import AXES
from ...models.ops import visible_share
from ...models.sizes import Sizes, TokenGroup, batch_prefix
from ...models.types import Array
from .machine import Machine
from .phases import PhaseSetting, lower_phase
from .price import Engine, StepPrice, pass_time_s, price_pass

# Whole numbers up to the first, then points this factor apart: between two of them a pass is priced as a line.
_WHOLE_TOKENS = 64
_GRID_RATIO = 1.04
_MOST_TOKENS = 2.0**22
# Sequences that decode beside a chunk, at which their attention is priced.
_BESIDE = 32.0
# Cached tokens at which attention is priced to read its slopes; powers of two, which every axis cuts evenly. Where kernels
# were measured they are the plan's own context and twice that, as efficiency differs along it.
_SHORT, _LONG = 4096.0, 8192.0
_LEAST_SHORT = 64.0


def _contexts(setting: PhaseSetting, engine: Engine) -> tuple[float, float]:
    """A short and a long context to read slopes between."""
    if engine.kernels is None:
        return _SHORT, _LONG
    short = max(setting.workload.mean_decode_past + 1.0, _LEAST_SHORT)
    return short, 2.0 * short


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A function of one number, linear between grid points and beyond the last."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, x: float) -> float:
        """The value at `x`."""
        i = min(max(bisect_right(self.x, x), 1), len(self.x) - 1)
        x0, y0 = self.x[i - 1], self.y[i - 1]
        return y0 + (x - x0) * (self.y[i] - y0) / (self.x[i] - x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLines:
    """Attention of all layers: the larger of its compute and its memory traffic.

    Parameters
    ----------
    compute_s_per_pair, memory_s_per_pair : a pair is one query of a sequence and one key it is compared with
    memory_s_per_cached_token : reading K and V of one token of one sequence
    memory_s_per_new_token : its query and its output
    counts_masked : pairs that the causal mask hides are computed too
    decode_s_per_cached_token : of sequences that decode beside the chunks, where they have a kernel of their own
    """

    compute_s_per_pair: float
    memory_s_per_pair: float
    memory_s_per_cached_token: float
    memory_s_per_new_token: float
    counts_masked: bool
    decode_s_per_cached_token: float | None = None

    def pairs(self, new_tokens: float, past_tokens: float) -> float:
        """Pairs of one sequence with `new_tokens` after `past_tokens`."""
        share = 1.0 if self.counts_masked else float(visible_share(new_tokens, past_tokens))
        return new_tokens * (past_tokens + new_tokens) * share

    def seconds(self, *, pairs: float, cached_tokens: float, new_tokens: float) -> float:
        """Time of a pass over sequences that have so many of each together."""
        memory = (
            self.memory_s_per_pair * pairs
            + self.memory_s_per_cached_token * cached_tokens
            + self.memory_s_per_new_token * new_tokens
        )
        return max(self.compute_s_per_pair * pairs, memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCurve:
    """A pass of one program on one mesh.

    `tokens_s` and `sequences_s` are the two parts that are not attention, of new tokens and of sequences sampled.
    """

    tokens_s: Line
    sequences_s: Line
    attention: AttentionLines

    def seconds(self, *, new_tokens: float, sequences: float, pairs: float, cached_tokens: float) -> float:
        """Time of one pass."""
        attention = self.attention.seconds(pairs=pairs, cached_tokens=cached_tokens, new_tokens=new_tokens)
        return self.tokens_s(new_tokens) + self.sequences_s(sequences) + attention


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCurve:
    """Decode steps of 1, 2, ... sequences: fixed seconds, and two lines in the tokens they attend to, each (n,)."""

    fixed_s: tuple[float, ...]
    compute_s_per_token: tuple[float, ...]
    memory_s: tuple[float, ...]
    memory_s_per_token: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A priced pass taken apart, each (...) seconds."""

    tokens_s: Array
    sequences_s: Array
    compute_s: Array
    memory_s: Array


def _parts(
    setting: PhaseSetting, machine: Machine, engine: Engine, batch_axes: tuple[str, ...], group: TokenGroup
) -> _Parts:
    """Price a pass of one token group and take attention and the last part out of it."""
    program = lower_phase(setting, batch_axes, engine)
    prices = price_pass(program, Sizes(program, machine.mesh, [group]), setting.formats, machine, engine, pp=setting.pp)
    attention = [price for price in prices if price.attends]
    others = [price for price in prices if not price.attends]
    last = [price for price in others if price.part == "last"]
    rest = pass_time_s([price for price in others if price.part != "last"])
    on_host_s = engine.constants.sequence_s * group.n_sequences
    launches = sum((price.count * price.overhead_s for price in attention), start=0.0)
    return _Parts(
        tokens_s=rest + launches - on_host_s,
        sequences_s=pass_time_s(last) + on_host_s,
        compute_s=_summed(attention, "compute_s"),
        memory_s=_summed(attention, "memory_s"),
    )


def _summed(prices: Sequence[StepPrice], name: str) -> Array:
    return sum((price.count * getattr(price, name) for price in prices), start=0.0)


def _grid(first: float) -> NDArray[np.float64]:
    """`first` times whole numbers, then points a factor apart."""
    n_ratios = int(np.log(_MOST_TOKENS / _WHOLE_TOKENS) / np.log(_GRID_RATIO))
    ratios = _WHOLE_TOKENS * _GRID_RATIO ** np.arange(1, n_ratios + 1)
    return first * np.concatenate([np.arange(1, _WHOLE_TOKENS + 1), np.ceil(ratios)])


def _line(x: NDArray[np.float64], y: Array) -> Line:
    return Line(x=tuple(x.tolist()), y=tuple(np.broadcast_to(np.asarray(y, float), x.shape).tolist()))


def pass_curve(setting: PhaseSetting, machine: Machine, engine: Engine, batch_axes: tuple[str, ...] = ()) -> PassCurve:
    """Tabulate passes of whole prompts, or parts of prompts, whose number `batch_axes` divides.

    Parameters
    ----------
    machine : one mesh
    """
    n = math.prod(float(machine.mesh[axis]) for axis in batch_axes)
    grid = _grid(n)
    tokens = _parts(
        setting, machine, engine, batch_axes, TokenGroup(n_sequences=n, new_tokens=grid / n, past_tokens=0.0)
    )
    one = TokenGroup(n_sequences=grid, new_tokens=1.0, past_tokens=_SHORT - 1.0)
    sequences = _parts(setting, machine, engine, batch_axes, one)
    return PassCurve(
        tokens_s=_line(grid, tokens.tokens_s),
        sequences_s=_line(grid, sequences.sequences_s),
        attention=_attention_lines(setting, machine, engine, batch_axes, n),
    )


def _kernel_lines(
    setting: PhaseSetting, machine: Machine, engine: Engine, batch_axes: tuple[str, ...], n: float
) -> AttentionLines:
    """Read measured kernels at the plan's own prompt and context: a chunk is priced at a whole prompt's efficiency."""
    prompt = float(max(setting.workload.input_tokens, 2))
    whole = _parts(setting, machine, engine, batch_axes, TokenGroup(n_sequences=n, new_tokens=prompt, past_tokens=0.0))
    short, _ = _contexts(setting, engine)
    one = TokenGroup(n_sequences=n * _BESIDE, new_tokens=1.0, past_tokens=short - 1.0)
    decode = _parts(setting, machine, engine, batch_axes, one)
    busy_s = max(float(decode.compute_s), float(decode.memory_s))
    return AttentionLines(
        compute_s_per_pair=float(whole.compute_s) / (n * prompt * prompt * float(visible_share(prompt, 0.0))),
        memory_s_per_pair=0.0,
        memory_s_per_cached_token=float(whole.memory_s) / (n * prompt),
        memory_s_per_new_token=0.0,
        counts_masked=False,
        decode_s_per_cached_token=busy_s / (n * _BESIDE * short),
    )


def _attention_lines(
    setting: PhaseSetting, machine: Machine, engine: Engine, batch_axes: tuple[str, ...], n: float
) -> AttentionLines:
    """Read the slopes of attention off three passes of `n` sequences."""
    if engine.kernels is not None:
        return _kernel_lines(setting, machine, engine, batch_axes, n)

    def at(new_tokens: float, context: float) -> _Parts:
        group = TokenGroup(n_sequences=n, new_tokens=new_tokens, past_tokens=context - new_tokens)
        return _parts(setting, machine, engine, batch_axes, group)

    short, long, two = at(1.0, _SHORT), at(1.0, _LONG), at(2.0, _SHORT)
    slope = (float(long.memory_s) - float(short.memory_s)) / (_LONG - _SHORT)
    per_new = max(float(short.memory_s) - slope * _SHORT, 0.0)
    per_pair = (float(two.memory_s) - 2.0 * per_new) / _SHORT - slope if engine.materialised_scores else 0.0
    return AttentionLines(
        compute_s_per_pair=float(short.compute_s) / (n * _SHORT),
        memory_s_per_pair=per_pair / n,
        memory_s_per_cached_token=(slope - per_pair) / n,
        memory_s_per_new_token=per_new / n,
        counts_masked=engine.materialised_scores,
    )


def decode_curve(setting: PhaseSetting, machine: Machine, engine: Engine, max_sequences: int) -> DecodeCurve:
    """Tabulate decode steps of 1 to `max_sequences` sequences; each number is cut over the axes that divide it."""
    n = np.arange(1.0, max_sequences + 1.0)
    prefix = np.broadcast_to(batch_prefix(machine.mesh, n), n.shape)
    fixed, compute, memory, slope = (np.empty_like(n) for _ in range(4))
    first, last = _contexts(setting, engine)
    for length in np.unique(prefix):
        at = np.flatnonzero(prefix == length)
        short, long = (
            _parts(
                setting,
                machine,
                engine,
                AXES[:length],
                TokenGroup(n_sequences=n[at], new_tokens=1.0, past_tokens=context - 1.0),
            )
            for context in (first, last)
        )
        fixed[at] = short.tokens_s + short.sequences_s
        compute[at] = short.compute_s / (n[at] * first)
        slope[at] = (long.memory_s - short.memory_s) / (n[at] * (last - first))
        memory[at] = np.maximum(short.memory_s - slope[at] * n[at] * first, 0.0)
    return DecodeCurve(
        fixed_s=tuple(fixed.tolist()),
        compute_s_per_token=tuple(compute.tolist()),
        memory_s=tuple(memory.tolist()),
        memory_s_per_token=tuple(slope.tolist()),
    )
