"""The cache's way from the form prefill leaves it in to the form decode reads it in, on one slice."""

from collections.abc import Sequence
from functools import cache

from ...models.program import Collective, Tensor
from ...models.reshard import reshard
from ...models.sizes import Sizes, ceil_div
from ...models.types import Array
from ...models.work import step_work
from ..types import Workloads
from .collectives import collective_latency_s, collective_time_s
from .machine import Machine
from .phases import PhaseSetting, lower_phase, prompts
from .price import Engine

# What every kind of block keeps of a sequence: `ShardedProgram.states`.
States = tuple[tuple[str, tuple[Tensor, ...]], ...]


@cache
def cache_collectives(before: Tensor, after: Tensor) -> tuple[Collective, ...]:
    """The collectives that bring one layer's cache, or another state, from one form to the other; none where slices do.

    >>> from shardwise.models.forms import parse_form
    >>> cache = Tensor(name="cache", form=parse_form("BSK_zyxQ"), role="kv", copies=2)
    >>> [c.kind for c in cache_collectives(cache, cache.at(parse_form("B_xyzSKQ")))]
    ['all_to_all']
    >>> cache_collectives(cache.at(parse_form("BSKQ")), cache.at(parse_form("B_xyzSKQ")))
    ()
    """
    return tuple(
        Collective(
            name="hand over", kind=move.kind, axes=move.axes, tensors=(before.at(move.before),), after=(move.after,)
        )
        for move in reshard(before.form, after.form)
        if move.kind != "slice"
    )


def state_moves(before: States, after: States) -> tuple[tuple[str, Collective], ...]:
    """The collectives of every kind of block, with the kind."""
    return tuple(
        (kind, move)
        for (kind, left), (_, wanted) in zip(before, after, strict=True)
        for held, goal in zip(left, wanted, strict=True)
        for move in cache_collectives(held, goal)
    )


def handoff_s(
    setting: PhaseSetting,
    moves: Sequence[tuple[str, Collective]],
    machine: Machine,
    n_sequences: Array,
    engine: Engine,
    works: Workloads | None = None,
) -> Array:
    """Seconds to move the cache of `n_sequences` prompts of one replica, all layers of a kind in one go.

    Parameters
    ----------
    setting : the prefill phase that leaves the cache
    moves : what `state_moves` derives
    works : (n,) workloads in place of the setting's one
    """
    if not moves:
        return 0.0
    program = lower_phase(setting, (), engine)
    sizes = Sizes(program, machine.mesh, [prompts(setting, n_sequences, works)])
    total: Array = 0.0
    for kind, move in moves:
        n_layers = ceil_div(float(setting.model.n_layers_of[kind]), setting.pp)
        total = total + collective_latency_s(
            move.kind, move.axes, machine, engine.constants, axes_at_once=engine.axes_at_once
        )
        total = total + collective_time_s(
            move.kind,
            move.axes,
            n_layers * step_work(move, sizes.of(program.of(kind)), setting.formats).full_bytes,
            machine,
            efficiency=engine.constants.link_efficiency,
            network_efficiency=engine.constants.network_efficiency,
            axes_at_once=engine.axes_at_once,
        )
    return total
