"""A plan as servers to start, whatever starts them."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.documents import read_yaml
from ...hardware_specs.errors import SpecError
from ...models.catalogue import get_model
from ...models.description import Model
from ...models.formats import default_formats
from ...simulator.engine.deployment import Role
from ..deploy import ReplicaLimits, ServingOptions, replica_limits
from ..result import PhasePlan, Plan, PlanResult, UnderLoad, WorkloadShape
from ..space import head_counts

_HUGGING_FACE = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/")
# A server takes requests a little longer than planned: tokenizers add tokens of their own.
_SPARE_TOKENS = 32
_LENGTH_GRAIN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Replicas that are alike.

    Parameters
    ----------
    phases : what they do: prefill and decode, or one of them
    host_chips : chips of one host
    max_sequences, token_budget : requests of a replica at a time, and tokens of a pass
    cache_bytes : on each chip
    """

    role: Role
    phases: tuple[PhasePlan, ...]
    n_replicas: int
    host_chips: int
    max_sequences: int
    token_budget: int
    cache_bytes: float

    @property
    def phase(self) -> PhasePlan:
        """The phase an engine's one setting follows: decode, where these servers do it."""
        return self.phases[-1]

    @property
    def replica_chips(self) -> int:
        """Chips of one replica."""
        return self.phase.tp * self.phase.pp

    @property
    def replica_hosts(self) -> int:
        """Hosts that one replica is spread over."""
        return -(-self.replica_chips // self.host_chips)

    @property
    def host_replicas(self) -> int:
        """Replicas started together on one host: the most that fit and divide them all."""
        most = max(self.host_chips // self.replica_chips, 1)
        return next(n for n in range(min(most, self.n_replicas), 0, -1) if self.n_replicas % n == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormats:
    """Formats of weights: most of them, and those of mixers, experts, and the ends (embedding, logits, norms, biases)."""

    most: str
    mixers: str
    experts: str
    ends: str

    def __str__(self) -> str:
        """Most, and what differs."""
        others = {"mixers": self.mixers, "experts": self.experts, "ends": self.ends}
        own = ", ".join(f"{name} {dtype}" for name, dtype in others.items() if dtype != self.most)
        return f"{self.most} ({own})" if own else self.most

    @property
    def is_one(self) -> bool:
        """Whether all are alike."""
        return {self.most, self.mixers, self.experts, self.ends} == {self.most}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to be started, and what was predicted of it.

    Parameters
    ----------
    checkpoint : what the engine loads; `is_users` where the user named it
    heads : attention and K/V heads, None where the model is in no catalogue
    native_weights : the formats its checkpoint comes in, None where nobody knows
    max_model_len : tokens of the longest request
    ttft_s, tpot_s : limits the plan was made for
    under_load : the traffic it was made for
    """

    model: str
    checkpoint: str
    is_users: bool
    heads: tuple[int, int] | None
    native_weights: WeightFormats | None
    servers: tuple[Servers, ...]
    max_model_len: int
    work: WorkloadShape
    ttft_s: float | None
    tpot_s: float | None
    plan: Plan

    @property
    def decode(self) -> PhasePlan:
        """The decode phase; formats and the chip are its own."""
        return self.plan.decode

    @property
    def weights(self) -> WeightFormats:
        """Planned formats of the weights."""
        decode = self.decode
        return WeightFormats(
            most=decode.weights, mixers=decode.mixer_weights, experts=decode.expert_weights, ends=decode.end_weights
        )

    @property
    def under_load(self) -> UnderLoad | None:
        """The plan under traffic, where it was made for some."""
        return self.plan.under_load

    @property
    def vendor(self) -> str:
        """Who makes the chip."""
        return get_chip(self.decode.chip).vendor

    @property
    def is_split(self) -> bool:
        """Whether prefill and decode have servers of their own."""
        return len(self.servers) > 1

    @property
    def slug(self) -> str:
        """The model's name as clusters allow names."""
        return re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")[:52]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """What a user says beyond the plan; None leaves it to the plan."""

    checkpoint: str | None = None
    max_model_len: int | None = None
    max_sequences: int | None = None
    token_budget: int | None = None


def make_launch(result: PlanResult, rank: int, options: LaunchOptions, model: Model | None = None) -> Launch:
    """Servers of one plan of a result.

    A plan made for traffic takes on what it was simulated with; another one its own decode batch.

    Parameters
    ----------
    model : where the plan's model is none of the catalogue

    Raises
    ------
    SpecError : no such plan, no such model without a checkpoint, or a limit that is none
    """
    plan = result.of_rank(rank)
    model = model or _find(result.model)
    for name in ("max_model_len", "max_sequences", "token_budget"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise SpecError(f"--{name.replace('_', '-')} {value} must be at least 1")
    roles: tuple[tuple[Role, tuple[PhasePlan, ...]], ...] = (
        (("both", (plan.prefill, plan.decode)),)
        if plan.shared
        else (("prefill", (plan.prefill,)), ("decode", (plan.decode,)))
    )
    return Launch(
        model=result.model,
        checkpoint=_checkpoint(result.model, model, options.checkpoint),
        is_users=options.checkpoint is not None,
        heads=None if model is None else _heads(model),
        native_weights=None if model is None else _native(model),
        servers=tuple(_servers(role, phases, model, plan, result.workload, options) for role, phases in roles),
        max_model_len=options.max_model_len or _longest(result.workload, model),
        work=result.workload,
        ttft_s=result.ttft_s,
        tpot_s=result.tpot_s,
        plan=plan,
    )


def _heads(model: Model) -> tuple[int, int] | None:
    """Heads of the widest attention, and how many of them have keys and values of their own; None without any."""
    counts = [head_counts(model, block) for block in model.kinds.values() if block.mixer is not None]
    return max((pair for pair in counts if min(pair) > 0), default=None)


def _native(model: Model) -> WeightFormats:
    """The formats a model ships in."""
    shipped = default_formats(model)
    own = (shipped.own_mixers, shipped.own_experts, shipped.own_ends)
    mixers, experts, ends = (shipped.weights.name if dtype is None else dtype.name for dtype in own)
    return WeightFormats(most=shipped.weights.name, mixers=mixers, experts=experts, ends=ends)


def _find(name: str) -> Model | None:
    try:
        return get_model(name)
    except SpecError:
        return None


def _checkpoint(name: str, model: Model | None, given: str | None) -> str:
    """What the user named, or the repository the model's description was read from; its name where it has none."""
    if given is not None:
        return given
    if model is None:
        raise SpecError(f"model {name!r} is in no catalogue, so nobody knows its weights; name them with --checkpoint")
    found = _HUGGING_FACE.match(model.source)
    return found[1] if found else name


def _longest(work: WorkloadShape, model: Model | None) -> int:
    """Tokens of a request and a few to spare, in whole grains, no more than the model has positions for."""
    spare = -(-(work.input_tokens + work.output_tokens + _SPARE_TOKENS) // _LENGTH_GRAIN) * _LENGTH_GRAIN
    return spare if model is None or model.max_context is None else min(spare, model.max_context)


def _servers(
    role: Role,
    phases: tuple[PhasePlan, ...],
    model: Model | None,
    plan: Plan,
    work: WorkloadShape,
    options: LaunchOptions,
) -> Servers:
    phase = phases[-1]
    sequences = options.max_sequences or planned_sequences(plan, phase)
    serving = ServingOptions(max_sequences=sequences, token_budget=options.token_budget)
    limits = _limits(phases, model, work, serving)
    if limits.cache_bytes <= 0:
        raise SpecError(
            f"passes of {limits.pass_tokens} tokens leave no memory for the cache of {phase.phase} on {phase.slice}; take a "
            "smaller --token-budget, or a plan on more chips"
        )
    return Servers(
        role=role,
        phases=phases,
        n_replicas=phase.dp,
        host_chips=host_chips(phase),
        max_sequences=limits.max_sequences,
        token_budget=max(limits.token_budget, limits.max_sequences),
        cache_bytes=limits.cache_bytes,
    )


def planned_sequences(plan: Plan, phase: PhasePlan) -> int | None:
    """Requests a replica takes on at a time: its batch; None for what it was simulated with where the plan is for traffic."""
    return None if plan.under_load is not None else max(phase.batch // phase.dp, 1)


def _limits(
    phases: tuple[PhasePlan, ...], model: Model | None, work: WorkloadShape, serving: ServingOptions
) -> ReplicaLimits:
    """What a replica takes on; without the model's description, the bytes beside weights and cache are the plan's."""
    prefill, decode = phases[0], phases[-1]
    if model is not None:
        return replica_limits(prefill, decode, model, work, serving)
    held = max(p.memory.activations + p.memory.gathered for p in phases)
    tokens = serving.token_budget or work.input_tokens * max(prefill.batch // prefill.dp, 1)
    return ReplicaLimits(
        max_sequences=serving.max_sequences or max(decode.batch // decode.dp, 1),
        token_budget=tokens,
        pass_tokens=tokens,
        work_bytes=held,
        cache_bytes=decode.memory.limit - decode.memory.weights - held,
        page_bytes=decode.memory.limit - decode.memory.weights - held,
    )


def host_chips(phase: PhasePlan) -> int:
    """Chips of one host of a phase's slice."""
    shape = parse_pool(phase.slice)[0].shape
    known = data("hosts")
    n = int(known["chips"].get(phase.chip, {}).get("n", known["default"]))
    is_torus = get_chip(phase.chip).scale_up.kind == "torus"
    return min(n, phase.n_chips) if is_torus else min(n, shape[-1])


@cache
def data(name: str) -> Any:
    """A data file of this package."""
    return read_yaml(files(__package__).joinpath("data", f"{name}.yaml").read_text("utf-8"))
