"""How an engine is told to cut a model: its tensor, data and expert parallel sizes for what the plan has."""

import math
from dataclasses import dataclass

from ...models.layouts import LAYOUTS
from ..result import PhasePlan
from .launch import Launch, Servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One kind of server.

    Parameters
    ----------
    tensor, pipeline : chips that hold one copy of a stage as the engine counts them, and stages
    data : copies of all but the experts behind one server's port, each with requests of its own
    groups : such copies inside `tensor`
    experts : chips that hold different experts, 1 where each expert is cut over all
    context : chips the cache's positions are cut over in decode
    n_servers : servers of this kind; `hosts` of each
    """

    tensor: int
    pipeline: int
    data: int
    groups: int
    experts: int
    context: int
    n_servers: int
    hosts: int

    @property
    def n_chips(self) -> int:
        """Chips of one server."""
        return self.tensor * self.pipeline * self.data

    @property
    def host_chips(self) -> int:
        """Chips of one server on each of its hosts."""
        return self.n_chips // self.hosts


def vllm_cut(launch: Launch, servers: Servers) -> Cut:
    """VLLM: copies are data parallel ranks of one server, and experts lie over all its ranks.

    So copies that have experts in common make one server, and replicas with experts have each their own.
    """
    phase, n = servers.phase, data_shards(servers.phase)
    apart = n > 1 or phase.ep > 1 or servers.replica_hosts > 1
    together = 1 if apart else servers.host_replicas
    return _cut(
        servers,
        tensor=phase.tp // n,
        data=n * together,
        context=context_shards(launch, servers),
        n_servers=servers.n_replicas // together,
    )


def sglang_cut(launch: Launch, servers: Servers) -> Cut:
    """SGLang: copies are groups inside the tensor parallel chips, replicas data parallel ranks."""
    groups = data_shards(servers.phase)
    together = 1 if servers.replica_hosts > 1 or groups > 1 else servers.host_replicas
    return _cut(
        servers,
        tensor=servers.phase.tp,
        groups=groups,
        data=together,
        n_servers=servers.n_replicas // together,
    )


def trtllm_cut(launch: Launch, servers: Servers) -> Cut:
    """TensorRT-LLM: a server is one replica; copies inside it are as many as its chips, or none."""
    tensor = servers.phase.tp
    groups = tensor if data_shards(servers.phase) > 1 else 1
    return _cut(servers, tensor=tensor, groups=groups, data=1, n_servers=servers.n_replicas)


def _cut(servers: Servers, *, tensor: int, data: int, n_servers: int, groups: int = 1, context: int = 1) -> Cut:
    pipeline = servers.phase.pp
    return Cut(
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        groups=groups,
        experts=servers.phase.ep,
        context=context,
        n_servers=n_servers,
        hosts=-(-tensor * pipeline * data // servers.host_chips),
    )


def data_shards(phase: PhasePlan) -> int:
    """Copies of all but the experts on a phase's mesh: the chips along the axes that cut the batch and no weight."""
    sizes = phase.mesh.model_dump()
    return math.prod(sizes[axis] for axis in LAYOUTS[phase.ffn].data_axes)


def context_shards(launch: Launch, servers: Servers) -> int:
    """Chips that an engine cuts the cache's positions over, where attention is sharded over the context.

    Those that would hold copies of one K/V head; nobody knows them of a model without a description.
    """
    phase = servers.phase
    if phase.attention != "context" or launch.heads is None:
        return 1
    tensor, n_kv_heads = phase.tp // data_shards(phase), launch.heads[1]
    return tensor // n_kv_heads if tensor % n_kv_heads == 0 else 1
