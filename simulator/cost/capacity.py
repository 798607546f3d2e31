"""Tokens that a replica's memory has room for."""

import math

from ...models.params import full_window
from ...models.sizes import Sizes, TokenGroup, batch_axes
from .memory import activation_bytes, gathered_bytes, kv_cache_bytes
from .phases import lower_phase
from .step_time import PhaseRun

# Sequences by which bytes are counted: enough for every axis to divide.
_MANY = 4096


def work_bytes(run: PhaseRun, *, tokens: float) -> float:
    """Bytes on one chip that a pass over so many tokens needs beside weights and cache."""
    program = lower_phase(run.setting, (), run.engine)
    sizes = Sizes(program, run.machine.mesh, [TokenGroup(n_sequences=1.0, new_tokens=tokens, past_tokens=0.0)])
    held = activation_bytes(program, sizes, run.setting.formats, static=run.engine.static_buffers)
    return float(held) + float(gathered_bytes(program, sizes, run.setting.formats))


def fixed_bytes(run: PhaseRun) -> float:
    """Bytes on one chip that a sequence keeps however long it is: recurrent states, and windows once they are full.

    Sequences are taken as spread evenly over the chips the batch is cut over.
    """
    return _held_bytes(run, _longest_kept(run)) - _longest_kept(run) * _growth_bytes(run, 1)


def cache_pages(run: PhaseRun, *, free_bytes: float, page_tokens: int) -> int:
    """Pages of the cache of one replica that fit into `free_bytes` on each of its chips; at least 0.

    What grows with a sequence lies in pages; of a model whose sequences never grow, every page asked for is there.
    """
    page_bytes = _growth_bytes(run, page_tokens)
    if free_bytes <= 0.0:
        return 0
    return math.floor(free_bytes / page_bytes) if page_bytes else _ENDLESS_PAGES


# More than any simulation fills.
_ENDLESS_PAGES = 10**12


def _growth_bytes(run: PhaseRun, tokens: int) -> float:
    """What so many tokens more leave of a sequence whose windows are full."""
    start = _longest_kept(run)
    return _held_bytes(run, start + tokens) - _held_bytes(run, start)


def _longest_kept(run: PhaseRun) -> int:
    """Tokens after which no window grows any more."""
    return max(full_window(block) for block in run.setting.model.kinds.values())


def _held_bytes(run: PhaseRun, tokens: int) -> float:
    """Cache and states of a sequence of `tokens` on one chip."""
    program = lower_phase(run.setting, batch_axes(run.sizes, _MANY), run.engine)
    sizes = Sizes(program, run.machine.mesh, [TokenGroup(n_sequences=float(_MANY), new_tokens=1.0, past_tokens=0.0)])
    held = kv_cache_bytes(program, sizes, run.setting.formats, context=float(tokens), pp=run.setting.pp)
    return float(held) / _MANY
