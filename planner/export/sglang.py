"""``python -m sglang.launch_server``."""

import math
from collections.abc import Sequence

from .cut import Cut, sglang_cut
from .flags import FlagTable, Raw, Value
from .launch import Launch, Servers
from .script import command, how_many, roles, script
from .vllm import chip_bytes, exchange, formats

_PORT = 30000
_BOOTSTRAP_PORT = 8998
_ROUTER = ("python", "-m", "sglang_router.launch_router")


def sglang_script(launch: Launch, table: FlagTable, comments: Sequence[str]) -> str:
    """A script that starts a server, or the router; with several hosts or roles its environment says which."""
    cuts = [(servers, sglang_cut(launch, servers)) for servers in launch.servers]
    says = [*comments, *how_many(cuts, launch)]
    if len(cuts) == 1:
        return script(says, _lines(launch, table, *cuts[0]))
    kinds = [(str(servers.role), _lines(launch, table, servers, cut)) for servers, cut in cuts]
    return script(says, roles([*kinds, ("router", _router())]))


def _lines(launch: Launch, table: FlagTable, servers: Servers, cut: Cut) -> list[str]:
    where: list[tuple[str, Value]] = [("host", "0.0.0.0"), ("port", _PORT)]
    if cut.hosts == 1:
        return command([*table.command, *arguments(launch, table, servers, cut), *table.words(where)])
    where += [
        ("hosts", cut.hosts),
        ("host_rank", Raw("$HOST_RANK")),
        ("head_address", Raw("$HEAD_ADDRESS:20000")),
    ]
    return [
        f': "${{HOST_RANK:?0 to {cut.hosts - 1}}}" "${{HEAD_ADDRESS:?address of the host of rank 0}}"',
        *command([*table.command, *arguments(launch, table, servers, cut), *table.words(where)]),
    ]


def _router() -> list[str]:
    """A router that sends a prompt to a server of prefill and its cache on to one of decode."""
    return command(
        [
            *_ROUTER,
            "--pd-disaggregation",
            "--prefill",
            Raw("${PREFILL_URL:?http://host:30000}"),
            "--decode",
            Raw("${DECODE_URL:?http://host:30000}"),
            "--host",
            "0.0.0.0",
            "--port",
            "8000",
        ]
    )


def arguments(launch: Launch, table: FlagTable, servers: Servers, cut: Cut, *, with_role: bool = True) -> list[str]:
    """Flags of the engine; the checkpoint is one of them."""
    is_one_role = launch.is_split and with_role
    pairs: list[tuple[str, Value]] = [
        ("checkpoint", launch.checkpoint),
        ("tensor_parallel", cut.tensor),
        ("pipeline_parallel", cut.pipeline if cut.pipeline > 1 else None),
        ("expert_parallel", cut.experts if cut.experts > 1 else None),
        *_copies(table, cut),
        ("exchange", exchange(servers, table)),
        *formats(launch, table),
        ("static_share", static_share(servers)),
        ("max_model_len", launch.max_model_len),
        ("max_sequences", servers.max_sequences),
        ("token_budget", servers.token_budget),
        ("prefill_tokens", servers.token_budget),
        ("role", servers.role if is_one_role else None),
        ("cache_transfer", "nixl" if is_one_role else None),
        ("bootstrap_port", _BOOTSTRAP_PORT if is_one_role and servers.role == "prefill" else None),
    ]
    return table.words(pairs)


def _copies(table: FlagTable, cut: Cut) -> list[tuple[str, Value]]:
    """Replicas behind one port, or copies inside the tensor parallel chips: never both."""
    if cut.groups == 1:
        return [("data_parallel", cut.data if cut.data > 1 else None)]
    if table.has("attention_data_parallel"):
        return [("attention_data_parallel", cut.groups)]
    return [("data_parallel", cut.groups), ("attention_over_data_parallel", True)]


def static_share(servers: Servers) -> float:
    r"""What ``--mem-fraction-static`` means: weights and cache over all of the chip's memory, rounded down.

    .. math:: (W + C) / M
    """
    share = (servers.phase.memory.weights + servers.cache_bytes) / chip_bytes(servers)
    return math.floor(share * 1000.0) / 1000.0
