"""KServe's ``LLMInferenceService``: vLLM on Kubernetes behind llm-d's scheduler."""

import shlex
from collections.abc import Sequence
from typing import Any

from .cut import Cut, vllm_cut
from .flags import FlagTable
from .launch import Launch, Servers, data
from .manifest import environment, manifest
from .vllm import arguments

_API = "serving.kserve.io/v1alpha2"


def kserve_manifest(launch: Launch, table: FlagTable, comments: Sequence[str]) -> str:
    """One service; prefill has a part of its own where it has servers of its own."""
    parts = {servers.role: _part(launch, table, servers, vllm_cut(launch, servers)) for servers in launch.servers}
    spec: dict[str, Any] = {"model": {"uri": f"hf://{launch.checkpoint}", "name": launch.checkpoint}}
    spec |= parts.get("both") or parts["decode"]
    spec["router"] = {"gateway": {}, "route": {}, "scheduler": {}}
    if launch.is_split:
        spec["prefill"] = parts["prefill"]
    return manifest(
        comments,
        {"apiVersion": _API, "kind": "LLMInferenceService", "metadata": {"name": launch.slug}, "spec": spec},
    )


def _part(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> dict[str, Any]:
    """Servers of one kind; those over several hosts have workers beside the first."""
    parallelism: dict[str, Any] = {"tensor": cut.tensor}
    if cut.pipeline > 1:
        parallelism["pipeline"] = cut.pipeline
    if cut.data > 1:
        parallelism |= {"data": cut.data, "dataLocal": cut.data // cut.hosts}
    if cut.experts > 1:
        parallelism["expert"] = True
    pod = {"containers": [_container(launch, table, servers, cut)]}
    made: dict[str, Any] = {"replicas": cut.n_servers, "parallelism": parallelism, "template": pod}
    if cut.hosts > 1:
        made["worker"] = {"containers": [_container(launch, table, servers, cut)]}
    return made


def _container(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> dict[str, Any]:
    """The engine; its flags go through ``eval``, so JSON in them keeps its quotes."""
    values = {"VLLM_ADDITIONAL_ARGS": shlex.join(arguments(launch, table, servers, cut))}
    if launch.is_split:
        values["UCX_PROTO_INFO"] = "y"
    made: list[dict[str, Any]] = environment(values)
    if launch.is_split:
        made.append({"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    return {"name": "main", "env": made, "resources": resources(launch, cut.host_chips)}


def resources(launch: Launch, n_chips: int) -> dict[str, Any]:
    """Chips of one pod."""
    held = {data("kubernetes")["resources"][launch.vendor]: str(n_chips)}
    return {"limits": dict(held), "requests": dict(held)}
