"""Tokens that a replica's memory has room for."""

import math

from ...models.sizes import Sizes, TokenGroup, batch_axes
from .memory import activation_bytes, gathered_bytes, kv_cache_bytes
from .phases import lower_phase
from .step_time import PhaseRun

# Sequences by which the bytes of a page are counted: enough for every axis to divide.
_MANY = 4096


def work_bytes(run: PhaseRun, *, tokens: float) -> float:
    """Bytes on one chip that a pass over so many tokens needs beside weights and cache."""
    program = lower_phase(run.setting, (), run.engine)
    sizes = Sizes(program, run.machine.mesh, [TokenGroup(n_sequences=1.0, new_tokens=tokens, past_tokens=0.0)])
    held = activation_bytes(program, sizes, run.setting.formats, static=run.engine.static_buffers)
    return float(held) + float(gathered_bytes(program, sizes, run.setting.formats))


def cache_pages(run: PhaseRun, *, free_bytes: float, page_tokens: int) -> int:
    """Pages of the cache of one replica that fit into `free_bytes` on each of its chips; at least 0.

    Sequences are taken as spread evenly over the chips the batch is cut over.
    """
    program = lower_phase(run.setting, batch_axes(run.sizes, _MANY), run.engine)
    sizes = Sizes(program, run.machine.mesh, [TokenGroup(n_sequences=float(_MANY), new_tokens=1.0, past_tokens=0.0)])
    held = kv_cache_bytes(
        program, sizes, run.setting.formats, context=float(page_tokens), pp=run.setting.pp, page_size=page_tokens
    )
    return max(math.floor(free_bytes / (float(held) / _MANY)), 0)
