"""``vllm serve``, on GPUs and on TPUs."""

import json
from collections.abc import Sequence

from ...hardware_specs.catalogue import get_chip
from .cut import Cut, data_shards, vllm_cut
from .differences import made_while_loading
from .flags import FlagTable, Raw, Value
from .launch import Launch, Servers
from .script import HEADLESS, command, how_many, quoted, roles, script

_PORT = 8000
_DP_PORT = 13345
_RANK, _HEAD = Raw("$HOST_RANK"), Raw("$HEAD_ADDRESS")
TRANSFER = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}


def vllm_script(launch: Launch, table: FlagTable, comments: Sequence[str]) -> str:
    """A script that starts a server; with several hosts or roles its environment says which."""
    cuts = [(servers, vllm_cut(launch, servers)) for servers in launch.servers]
    says = [*comments, *how_many(cuts, launch)]
    if len(cuts) == 1:
        return script(says, server_lines(launch, table, *cuts[0]))
    says.append("# a router that hands a prompt's cache on stands before both: --to llm-d, kserve or dynamo bring one")
    return script(says, roles([(servers.role, server_lines(launch, table, servers, cut)) for servers, cut in cuts]))


def server_lines(launch: Launch, table: FlagTable, servers: Servers, cut: Cut, *, port: int = _PORT) -> list[str]:
    """Lines that start one server on one of its hosts, which ``HOST_RANK`` and ``HEAD_ADDRESS`` tell."""
    pairs: list[tuple[str, Value]] = [("host", "0.0.0.0"), ("port", port)]
    words = [*table.command, launch.checkpoint, *arguments(launch, table, servers, cut), *table.words(pairs)]
    if cut.hosts == 1:
        return command(words)
    if launch.vendor == "google":
        says = f"# on one host of a Ray cluster over the {cut.hosts} hosts of the slice"
        return [says, *command([*words, *table.words([("executor", "ray")])])]
    given = f'HOST_RANK="${{HOST_RANK:?0 to {cut.hosts - 1}}}" HEAD_ADDRESS="${{HEAD_ADDRESS:?address of the host of rank 0}}"'
    others = " ".join(quoted(word) for word in _others(table, cut))
    is_head = f'if [ "$HOST_RANK" -gt 0 ]; then headless=({others}); else headless=(); fi'
    return [given, is_head, *command([*words, *_hosts(table, cut), HEADLESS])]


def _others(table: FlagTable, cut: Cut) -> list[str]:
    """Flags of every host of a server but the first."""
    start = Raw(f"$((HOST_RANK * {cut.data // cut.hosts}))") if cut.data > 1 else None
    return table.words([("headless", True), ("data_parallel_start_rank", start)])


def _hosts(table: FlagTable, cut: Cut) -> list[str]:
    """Flags of a server over several hosts: data parallel ranks find each other, the ranks of one model start together."""
    if cut.data > 1:
        local = cut.data // cut.hosts
        pairs: list[tuple[str, Value]] = [
            ("data_parallel_local", local),
            ("data_parallel_address", _HEAD),
            ("data_parallel_rpc_port", _DP_PORT),
        ]
    else:
        pairs = [("hosts", cut.hosts), ("host_rank", _RANK), ("head_address", _HEAD)]
    return table.words(pairs)


def arguments(
    launch: Launch, table: FlagTable, servers: Servers, cut: Cut, *, with_transfer: bool = True, with_cut: bool = True
) -> list[str]:
    """Flags of the engine.

    Parameters
    ----------
    with_transfer : hand caches on where prefill and decode have servers of their own
    with_cut : tensor, pipeline, data and expert parallel sizes, where nobody else adds them
    """
    sizes: list[tuple[str, Value]] = [
        ("tensor_parallel", cut.tensor),
        ("pipeline_parallel", _above_one(cut.pipeline)),
        ("data_parallel", _above_one(cut.data)),
        ("expert_parallel", cut.experts > 1),
    ]
    pairs: list[tuple[str, Value]] = [
        *(sizes if with_cut else ()),
        ("decode_context_parallel", _above_one(cut.context)),
        ("exchange", exchange(servers, table)),
        *formats(launch, table),
        *_memory(launch, servers),
        ("max_model_len", launch.max_model_len),
        ("max_sequences", rank_share(servers.max_sequences, servers)),
        ("token_budget", rank_share(servers.token_budget, servers)),
        ("cache_transfer", json.dumps(TRANSFER) if launch.is_split and with_transfer else None),
    ]
    return table.words(pairs)


def formats(launch: Launch, table: FlagTable) -> list[tuple[str, Value]]:
    """Number formats and the page; what the engine has no word for is left to it, and is said elsewhere."""
    decode = launch.decode
    own_cache = decode.kv_dtype == decode.activations
    return [
        ("activations", table.format("activations", decode.activations)),
        ("weights", made_while_loading(launch, table)),
        ("kv_dtype", "auto" if own_cache else table.format("kv_dtype", decode.kv_dtype)),
        ("page_tokens", decode.page_size if decode.page_size in table.page_tokens else None),
    ]


def exchange(servers: Servers, table: FlagTable) -> str | None:
    """What sends tokens to the chips of their experts, where the plan sends them there and does not gather them."""
    return table.exchanges.get(servers.role) if servers.phase.experts == "exchange" else None


def rank_share(n: int, servers: Servers) -> int:
    """A replica's limit over the ranks it is made of: each copy of all but the experts has a scheduler of its own."""
    return -(-n // data_shards(servers.phase))


def _memory(launch: Launch, servers: Servers) -> list[tuple[str, Value]]:
    """The cache in bytes a chip; on a TPU, where the engine takes no bytes, the share of the chip that was planned with."""
    phase = servers.phase
    if launch.vendor == "google":
        held = phase.memory.limit / chip_bytes(servers)
        return [("memory_share", round(held, 4))]
    return [("cache_bytes", int(servers.cache_bytes))]


def chip_bytes(servers: Servers) -> float:
    """Memory of one chip."""
    return get_chip(servers.phase.chip).hbm_bytes.value


def _above_one(n: int) -> int | None:
    return n if n > 1 else None
