"""``trtllm-serve`` with its configuration file."""

import math
from collections.abc import Sequence
from typing import Any

from .cut import Cut, trtllm_cut
from .flags import FlagTable, Value
from .launch import Launch, Servers
from .manifest import dump
from .script import command, how_many, roles, script
from .vllm import chip_bytes

_PORTS = {"both": 8000, "prefill": 8001, "decode": 8002}
_LAUNCHER = "trtllm-llmapi-launch"


def trtllm_script(launch: Launch, table: FlagTable, comments: Sequence[str]) -> str:
    """A script that writes the configuration and starts a server, or the front of disaggregated ones."""
    cuts = [(servers, trtllm_cut(launch, servers)) for servers in launch.servers]
    says = [*comments, *how_many(cuts, launch)]
    if len(cuts) == 1:
        return script(says, _lines(launch, table, *cuts[0]))
    kinds = [(str(servers.role), _lines(launch, table, servers, cut)) for servers, cut in cuts]
    return script(says, roles([*kinds, ("front", _front(cuts))]))


def _lines(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> list[str]:
    name = "trtllm.yaml" if servers.role == "both" else f"trtllm-{servers.role}.yaml"
    pairs: list[tuple[str, Value]] = [
        ("backend", "pytorch"),
        ("host", "0.0.0.0"),
        ("port", _PORTS[servers.role]),
        ("tensor_parallel", cut.tensor),
        ("pipeline_parallel", cut.pipeline if cut.pipeline > 1 else None),
        ("expert_parallel", cut.experts if cut.experts > 1 else None),
        ("chips_per_host", cut.host_chips if cut.hosts > 1 else None),
        ("max_sequences", -(-servers.max_sequences // cut.groups)),
        ("token_budget", -(-servers.token_budget // cut.groups)),
        ("max_model_len", launch.max_model_len),
        ("config", name),
    ]
    over_hosts = ["mpirun", "-n", str(cut.n_chips), "--hostfile", "hosts", _LAUNCHER] if cut.hosts > 1 else []
    start = [*over_hosts, *table.command, launch.checkpoint]
    configured = _file(name, configuration(launch, table, servers, cut))
    return [*configured, *command([*start, *table.words(pairs)], first=len(start))]


def _file(name: str, document: dict[str, Any]) -> list[str]:
    return [f"cat > {name} <<'YAML'", *dump(document).rstrip("\n").split("\n"), "YAML"]


def configuration(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> dict[str, Any]:
    """The configuration file; what is left out is the engine's default."""
    decode = launch.decode
    own_cache = decode.kv_dtype == decode.activations
    cache: dict[str, Any] = {
        "dtype": "auto" if own_cache else table.format("kv_dtype", decode.kv_dtype) or "auto",
        "free_gpu_memory_fraction": free_share(servers),
        "enable_block_reuse": True,
    }
    if decode.page_size in table.page_tokens:
        cache["tokens_per_block"] = decode.page_size
    made: dict[str, Any] = {"kv_cache_config": cache, "enable_chunked_prefill": True}
    if cut.groups > 1:
        made["enable_attention_dp"] = True
    if launch.is_split:
        made["cache_transceiver_config"] = {"backend": "DEFAULT", "max_tokens_in_buffer": launch.max_model_len}
    if servers.role == "prefill":
        made["disable_overlap_scheduler"] = True
    return table.checked(made)


def free_share(servers: Servers) -> float:
    r"""What ``free_gpu_memory_fraction`` means: the cache over what is free when the weights are loaded, rounded down.

    .. math:: C / (M - W)
    """
    free = chip_bytes(servers) - servers.phase.memory.weights
    return math.floor(servers.cache_bytes / free * 1000.0) / 1000.0


def _front(cuts: Sequence[tuple[Servers, Cut]]) -> list[str]:
    """The one address of disaggregated servers; their own are to be filled in."""
    kinds = {"prefill": "context_servers", "decode": "generation_servers"}
    document: dict[str, Any] = {"hostname": "0.0.0.0", "port": _PORTS["both"], "backend": "pytorch"}
    for servers, cut in cuts:
        urls = [f"{servers.role}-{i}:{_PORTS[servers.role]}" for i in range(cut.n_servers)]
        document[kinds[servers.role]] = {"num_instances": cut.n_servers, "urls": urls}
    name = "trtllm-disaggregated.yaml"
    return [*_file(name, document), *command(["trtllm-serve", "disaggregated", "-c", name])]
