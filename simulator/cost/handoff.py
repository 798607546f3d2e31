"""The cache's way from the form prefill leaves it in to the form decode reads it in, on one slice."""

from collections.abc import Sequence
from functools import cache

from ...models.forms import Form
from ...models.program import Collective, Tensor
from ...models.reshard import reshard
from ...models.sizes import Array, Sizes, TokenGroup, ceil_div
from ...models.work import step_work
from .collectives import collective_latency_s, collective_time_s
from .machine import Machine
from .phases import PhaseSetting, lower_phase
from .price import Engine


@cache
def cache_collectives(before: Form, after: Form) -> tuple[Collective, ...]:
    """The collectives that bring one layer's cache from one form to the other; none where slices are enough.

    >>> from shardwise.models.forms import parse_form
    >>> [c.kind for c in cache_collectives(parse_form("BSK_zyxQ"), parse_form("B_xyzSKQ"))]
    ['all_to_all']
    >>> cache_collectives(parse_form("BSKQ"), parse_form("B_xyzSKQ"))
    ()
    """
    held = Tensor(name="cache", form=before, role="kv", copies=2)
    return tuple(
        Collective(
            name="hand over", kind=move.kind, axes=move.axes, tensors=(held.at(move.before),), after=(move.after,)
        )
        for move in reshard(before, after)
        if move.kind != "slice"
    )


def handoff_s(
    setting: PhaseSetting, moves: Sequence[Collective], machine: Machine, n_sequences: float, engine: Engine
) -> Array:
    """Seconds to move the cache of `n_sequences` prompts of one replica, all layers of a stage in one go.

    Parameters
    ----------
    setting : the prefill phase that leaves the cache
    moves : what `cache_collectives` derives
    """
    if not moves:
        return 0.0
    held = TokenGroup(n_sequences=n_sequences, new_tokens=0.0, past_tokens=float(setting.workload.input_tokens))
    sizes = Sizes(lower_phase(setting, (), engine), machine.mesh, [held])
    n_layers = ceil_div(float(setting.model.n_layers), setting.pp)
    total: Array = 0.0
    for move in moves:
        total = total + collective_latency_s(
            move.kind, move.axes, machine, engine.constants, axes_at_once=engine.axes_at_once
        )
        total = total + collective_time_s(
            move.kind,
            move.axes,
            n_layers * step_work(move, sizes, setting.formats).full_bytes,
            machine,
            efficiency=engine.constants.link_efficiency,
            network_efficiency=engine.constants.network_efficiency,
            axes_at_once=engine.axes_at_once,
        )
    return total
