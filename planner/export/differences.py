"""What a plan asks that an engine does otherwise, in sentences: nothing is left out in silence."""

from collections.abc import Iterator

from ...hardware_specs.units import format_bytes
from ...models.layouts import LAYOUTS
from ..result import PhasePlan
from .cut import context_shards, data_shards
from .flags import FlagTable
from .launch import Launch, Servers

# Formats that are not quantised.
_FLOATS = ("fp32", "bf16", "fp16")


def differences(launch: Launch, table: FlagTable) -> tuple[str, ...]:
    """Every difference between the plan and what the engine will do, each once, in order."""
    found = [*_of_the_plan(launch, table)]
    for servers in launch.servers:
        found += _of_phases(servers, table)
        found += _of_context(launch, servers, table)
        found += _of_limits(launch, servers, table)
        found += _of_experts(servers, table)
    return tuple(dict.fromkeys(found))


def _of_the_plan(launch: Launch, table: FlagTable) -> Iterator[str]:
    decode = launch.decode
    if launch.checkpoint == launch.model:
        yield f"no published weights of {launch.model} are known; name yours with --checkpoint"
    if decode.engine not in table.profiles:
        yield (
            f"the plan is priced as {decode.engine}, not as {table.title}: its times are predicted for the former; plan with "
            f"--engine {table.profiles[0]} for those of the latter"
        )
    yield from _of_weights(launch, table)
    yield from _of_cache(launch, table)
    if table.format("activations", decode.activations) is None:
        yield f"activations in {decode.activations}: {table.name} has no such format, it computes in its own"
    if launch.is_split and launch.plan.handoff_s is None:
        yield "the cache's way from prefill to decode is not priced: the chip claims no network between slices"


def _of_weights(launch: Launch, table: FlagTable) -> Iterator[str]:
    planned, native, made = launch.weights, launch.native_weights, made_while_loading(launch, table)
    if launch.is_users:
        yield f"the plan has weights in {planned}; their format is what {launch.checkpoint} comes in"
    elif made is not None:
        yield f"{table.name} quantises matrices alone: embedding and logits, planned in {planned.ends}, stay as they come"
    elif native is not None and planned != native:
        yield (
            f"the plan has weights in {planned}, {launch.checkpoint} comes in {native}, and {table.name} does not make the one "
            "of the other while loading; name a checkpoint that has them with --checkpoint"
        )
    elif planned.most in _FLOATS and planned.most != launch.decode.activations:
        yield (
            f"the plan has weights in {planned} and activations in {launch.decode.activations}; {table.name} keeps weights that "
            "are not quantised in the format of the activations"
        )


def made_while_loading(launch: Launch, table: FlagTable) -> str | None:
    """The format an engine is told to turn the weights into, where the plan has another than the checkpoint comes in."""
    planned, native = launch.weights, launch.native_weights
    if launch.is_users or native is None or planned == native or not planned.is_one:
        return None
    return table.format("weights", planned.most)


def _of_cache(launch: Launch, table: FlagTable) -> Iterator[str]:
    decode = launch.decode
    if decode.kv_dtype != decode.activations and table.format("kv_dtype", decode.kv_dtype) is None:
        yield f"a cache in {decode.kv_dtype}: {table.name} has no such format, it keeps the cache in {decode.activations}"
    if decode.page_size not in table.page_tokens:
        planned = "one contiguous cache" if decode.page_size == 1 else f"pages of {decode.page_size} tokens"
        known = ", ".join(map(str, table.page_tokens))
        yield f"{planned} in the plan; {table.name} has pages of its own default size (it takes {known} tokens)"


def _of_phases(servers: Servers, table: FlagTable) -> Iterator[str]:
    for phase in servers.phases:
        if phase.ffn not in table.layouts:
            yield _layout(phase, table)
        if phase.attention not in table.attention:
            yield (
                f"{phase.phase} shards attention over {phase.attention}; {table.name} shards it over heads, and the predicted "
                "time is not that of heads"
            )
        if phase.pp > 1 and phase.n_microbatches > 1:
            yield (
                f"{phase.phase} goes through its {phase.pp} stages in {phase.n_microbatches} micro-batches; {table.name} fills "
                "its stages with passes of its own"
            )


def _layout(phase: PhasePlan, table: FlagTable) -> str:
    runs = table.layouts[0]
    if LAYOUTS[phase.ffn].stored == LAYOUTS[runs].stored:
        return (
            f"{phase.phase} is planned as {phase.ffn}; {table.name} holds the same weights and does an all-reduce where that "
            "layout has other collectives"
        )
    return (
        f"{phase.phase} is planned as {phase.ffn} on a {phase.mesh.x}x{phase.mesh.y}x{phase.mesh.z} mesh; {table.name} cuts the "
        f"model over all {phase.tp} chips as {runs}, and the predicted time is not that of {runs}"
    )


def _of_limits(launch: Launch, servers: Servers, table: FlagTable) -> Iterator[str]:
    prefill = servers.phases[0]
    tokens = launch.work.input_tokens * max(prefill.batch // prefill.dp // prefill.n_microbatches, 1)
    if prefill.phase == "prefill" and tokens > servers.token_budget:
        yield (
            f"prefill reads {tokens:,} tokens in one pass in the plan; {table.name} reads them in chunks of "
            f"{servers.token_budget:,}"
        )
    if servers.max_sequences == 1:
        yield "a replica takes one request at a time, the plan's batch; --max-sequences N takes more"
    needed = max(phase.memory.kv_cache for phase in servers.phases)
    if servers.cache_bytes < needed:
        yield (
            f"passes of {servers.token_budget:,} tokens leave {format_bytes(servers.cache_bytes)} a chip for the cache, the "
            f"planned batch takes {format_bytes(needed)}: some sequences will wait; a smaller --token-budget leaves more"
        )
    for phase in servers.phases:
        if launch.heads is not None and phase.n_heads_padded > launch.heads[0]:
            yield (
                f"{phase.phase} pads {launch.heads[0]} heads to {phase.n_heads_padded}; {table.name} refuses a tensor-parallel "
                "size that does not divide the heads"
            )


def _of_context(launch: Launch, servers: Servers, table: FlagTable) -> Iterator[str]:
    for phase in servers.phases:
        if phase.attention != "context" or "context" not in table.attention:
            continue
        n, chips = context_shards(launch, servers), phase.tp // data_shards(phase)
        if phase.phase == "prefill":
            yield f"prefill shards attention over the context; {table.name} cuts positions in decode alone"
        elif n < chips:
            yield (
                f"decode cuts the cache's positions over {chips} chips; {table.name} cuts them over the {n} that share a K/V "
                "head, and heads over the others"
            )


def _of_experts(servers: Servers, table: FlagTable) -> Iterator[str]:
    for phase in servers.phases:
        n, name = data_shards(phase), f"{phase.phase} has"
        if n > 1 and table.engine == "trtllm" and n < phase.tp:
            yield f"{name} {n} copies of {phase.tp // n} chips each beside its experts; {table.name} has {phase.tp} of one chip"
        if n > 1 and table.engine == "vllm" and phase.tp // n > servers.host_chips:
            yield f"{name} copies of {phase.tp // n} chips; {table.name} keeps each on one host, of {servers.host_chips} here"
    cuts = {(phase.ep, data_shards(phase), phase.experts) for phase in servers.phases}
    if len(cuts) > 1:
        yield f"prefill and decode spread experts or copies differently; {table.name} does both as decode"
