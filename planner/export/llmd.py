"""Values of llm-d's chart ``llm-d-modelservice``: vLLM on Kubernetes, its caches handed on by a sidecar."""

import math
from collections.abc import Sequence
from typing import Any

from ...hardware_specs.units import parse_quantity
from .cut import Cut, vllm_cut
from .flags import FlagTable
from .kserve import resources
from .launch import Launch, Servers, data
from .manifest import environment, manifest
from .vllm import arguments, server_lines

_PORT, _BEHIND_SIDECAR, _SIDE_CHANNEL = 8000, 8200, 5557
_GIB = parse_quantity("1 GiB", "B")
# A volume for the weights: what the chips hold together, and a tenth to spare.
_SPARE = 1.1


def llmd_values(launch: Launch, table: FlagTable, comments: Sequence[str]) -> str:
    """Values of one release: ``helm install NAME llm-d-modelservice/llm-d-modelservice -f FILE``."""
    cuts = {servers.role: (servers, vllm_cut(launch, servers)) for servers in launch.servers}
    held = max(servers.phase.memory.weights * cut.n_chips for servers, cut in cuts.values())
    values: dict[str, Any] = {
        "multinode": any(cut.hosts > 1 for _, cut in cuts.values()),
        "modelArtifacts": {
            "name": launch.checkpoint,
            "uri": f"hf://{launch.checkpoint}",
            "size": f"{math.ceil(held * _SPARE / _GIB)}Gi",
            "authSecretName": "hf-token",
            "labels": {"llm-d.ai/inferenceServing": "true", "llm-d.ai/model": launch.slug},
        },
        "accelerator": {"type": data("kubernetes")["accelerators"][launch.vendor]},
        "routing": {"servicePort": _PORT, "proxy": _proxy(launch)},
    }
    values["decode"] = _part(launch, table, *(cuts.get("both") or cuts["decode"]))
    values["prefill"] = _part(launch, table, *cuts["prefill"]) if launch.is_split else {"create": False}
    says = [
        "# helm install NAME llm-d-modelservice/llm-d-modelservice -f this-file; the secret hf-token holds HF_TOKEN"
    ]
    return manifest([*comments, *says], values)


def _proxy(launch: Launch) -> dict[str, Any]:
    if not launch.is_split:
        return {"enabled": False}
    return {"enabled": True, "targetPort": _BEHIND_SIDECAR, "connector": "nixlv2"}


def _part(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> dict[str, Any]:
    """Pods of one kind: `workers` hosts a server."""
    parallelism = {
        "tensor": cut.tensor,
        "data": cut.data,
        "dataLocal": max(cut.data // cut.hosts, 1),
        "workers": cut.hosts,
    }
    container: dict[str, Any] = {"name": "vllm", "image": table.images[launch.vendor]}
    container |= _started(launch, table, servers, cut)
    container |= {"env": _environment(launch), "ports": _ports(launch, servers), "mountModelVolume": True}
    container["resources"] = resources(launch, cut.host_chips)
    return {"create": True, "replicas": cut.n_servers, "parallelism": parallelism, "containers": [container]}


def _started(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> dict[str, Any]:
    """How the chart starts the engine: its own command, or over several hosts ours, told by the group's variables."""
    if cut.hosts == 1:
        words = arguments(launch, table, servers, cut, with_cut=False)
        extra = table.words([("pipeline_parallel", cut.pipeline if cut.pipeline > 1 else None)])
        extra += table.words([("expert_parallel", cut.experts > 1)])
        return {"modelCommand": "vllmServe", "args": [*words, *extra]}
    port = _BEHIND_SIDECAR if launch.is_split and servers.role == "decode" else _PORT
    given = ["export HOST_RANK=$LWS_WORKER_INDEX HEAD_ADDRESS=$LWS_LEADER_ADDRESS"]
    lines = "\n".join(["set -euo pipefail", *given, *server_lines(launch, table, servers, cut, port=port)])
    return {"modelCommand": "custom", "command": ["/bin/bash", "-c"], "args": [lines]}


def _environment(launch: Launch) -> list[dict[str, Any]]:
    if not launch.is_split:
        return []
    made: list[dict[str, Any]] = environment({"VLLM_NIXL_SIDE_CHANNEL_PORT": str(_SIDE_CHANNEL)})
    return [*made, {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


def _ports(launch: Launch, servers: Servers) -> list[dict[str, Any]]:
    if not launch.is_split:
        return [{"containerPort": _PORT, "protocol": "TCP"}]
    served = _BEHIND_SIDECAR if servers.role == "decode" else _PORT
    return [{"containerPort": port, "protocol": "TCP"} for port in (served, _SIDE_CHANNEL)]
