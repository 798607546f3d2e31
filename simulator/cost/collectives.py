"""Time of a collective over mesh axes: latency of its hops, and volume over the wires of those axes."""

import math
from collections.abc import Sequence

import numpy as np

from ...models.reshard import CollectiveKind
from ...models.types import Array
from .constants import Constants
from .machine import AxisArrays, Machine


def _product(values: Sequence[Array]) -> Array:
    return math.prod(values, start=1.0)


def _largest(values: Sequence[Array]) -> Array:
    found = values[0]
    for value in values[1:]:
        found = np.maximum(found, value)
    return found


def _smallest(values: Sequence[Array]) -> Array:
    found = values[0]
    for value in values[1:]:
        found = np.minimum(found, value)
    return found


def _inside_rate(links: Sequence[AxisArrays], machine: Machine, *, axes_at_once: bool) -> Array:
    """Rate inside the fast domain: all torus axes at once, or one ring; axes behind one port share it either way."""
    if machine.shared_port or not axes_at_once:
        return _largest([axis.ring_bytes_per_s for axis in links])
    return sum((axis.inner_bytes_per_s for axis in links), start=0.0)


def collective_time_s(
    kind: CollectiveKind,
    axes: tuple[str, ...],
    full_bytes: Array,
    machine: Machine,
    *,
    efficiency: float,
    network_efficiency: float,
    axes_at_once: bool,
) -> Array:
    r"""Time the wires of `axes` are busy with one collective, without its latency.

    .. math:: t = \max\left(\frac{D (K_i-1)/K_i}{\eta_i \beta_i},\; \frac{D/K_i\,(K_o-1)/K_o}{\eta_o \beta_o}\right)

    over the K_i chips inside the fast domain and the K_o domains along the axes. An all_to_all has D (K_o-1)/K_o across.
    Inside, its messages go straight to where they belong over the links of all its axes: it is bound by injection,
    D (K_i-1)/(K_i K_o) over those links, or by the bisection, which half of D/K_o of every chip crosses.

    Parameters
    ----------
    full_bytes : (...) D of `models.work.Work`
    efficiency, network_efficiency : share of the links' and of the network ports' rate that is reached
    axes_at_once : a collective over several torus axes uses the links of all of them together, else those of one

    References
    ----------
    [Pope2022] appendix A.1; [Chan2007] for the bandwidth terms.
    """
    links = [machine.axes[axis] for axis in axes]
    inner, outer = _product([axis.inner for axis in links]), _product([axis.outer for axis in links])
    exchanges = kind == "all_to_all"
    rate = np.maximum(_inside_rate(links, machine, axes_at_once=axes_at_once or exchanges), 1.0)
    if exchanges:
        bisection = _smallest([axis.exchange_bytes_per_s for axis in links])
        inside = np.maximum((inner - 1.0) / (inner * outer * rate), 1.0 / (outer * bisection))
        across = (outer - 1.0) / outer
    else:
        inside, across = (inner - 1.0) / (inner * rate), (outer - 1.0) / (outer * inner)
    network = _smallest([axis.outer_bytes_per_s for axis in links])
    return full_bytes * np.maximum(inside / efficiency, across / (network * network_efficiency))


def collective_latency_s(
    kind: CollectiveKind,
    axes: tuple[str, ...],
    machine: Machine,
    constants: Constants,
    *,
    axes_at_once: bool,
    looped: bool = False,
) -> Array:
    """Launch and hops of one collective; nothing where the group is one chip.

    It is launched once inside the fast domain, or on each torus line where it goes over one at a time, and once more
    between domains. Its hops are those from end to end, twice for an all_reduce; a looped one goes round K-1 times.
    """
    links = [machine.axes[axis] for axis in axes]
    inner, outer = _product([axis.inner for axis in links]), _product([axis.outer for axis in links])
    lines = sum((axis.n_lines for axis in links), start=0.0)
    if axes_at_once or machine.shared_port:
        lines = np.minimum(lines, 1.0)
    hops = inner * outer - 1.0 if looped else sum((axis.inner_hops for axis in links), start=0.0)
    passes = 2.0 if kind == "all_reduce" else 1.0
    launches = lines + np.greater(outer, 1.0)
    return launches * constants.collective_launch_s + passes * hops * constants.hop_s
