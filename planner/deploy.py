"""A plan as something that serves: its replicas with their step times, caches and prices."""

from dataclasses import dataclass, field

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.chip import Chip
from ..hardware_specs.cluster import Mesh, meshes, parse_pool
from ..hardware_specs.dtypes import parse_dtype
from ..hardware_specs.errors import SpecError
from ..hardware_specs.units import parse_quantity
from ..models.catalogue import get_model
from ..models.description import Model
from ..models.formats import Formats
from ..models.params import kv_bytes_per_token
from ..simulator.cost.calibrated import calibration_of
from ..simulator.cost.capacity import cache_pages, fixed_bytes, work_bytes
from ..simulator.cost.machine import make_machine
from ..simulator.cost.phases import PhaseSetting
from ..simulator.cost.step_time import PhasedSteps, PhaseRun, is_one_program
from ..simulator.engine.deployment import Autoscaling, Deployment, EngineOptions, Failures, Pool, ReplicaSpec, Role
from ..simulator.types import Workload
from .request import MAX_BATCH
from .result import PhasePlan, Plan, PlanResult, WorkloadShape

# The paper's decode tier (Pope2022 section 4.4).
_TIER_SEQUENCES = 64
# What vLLM runs at a time unless told otherwise (--max-num-seqs, --max-num-batched-tokens of EngineArgs): more on chips of
# at least so much memory that have 8-bit floats.
_LARGE_BYTES = parse_quantity("70 GiB", "B")
_SEQUENCES, _LARGE_SEQUENCES = 256, 1024
# Of the memory left for what sequences keep, the most that states of a fixed size may take.
_STATE_SHARE = 0.5
_TOKENS, _LARGE_TOKENS = 2048, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How a plan is put to serve.

    Parameters
    ----------
    replicas : copies of the model in place of the plan's; prefill and decode pools have theirs
    max_sequences, token_budget : requests a replica serves at a time, and tokens of a pass; None for what vLLM takes on the
        chip, and no fewer requests than the plan's batch
    step_scale : every step time is multiplied by this
    mask_s_per_element : what the host takes for each element of the vocabulary, a sequence and step
    held_bytes : on each chip, of what the model shares it with: a draft model's weights
    cache_share : part of the cache that is the model's own, beside a draft model's
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    router: str = "least-outstanding"
    replicas: int | None = None
    prefill_replicas: int | None = None
    decode_replicas: int | None = None
    max_sequences: int | None = None
    token_budget: int | None = None
    step_scale: float = 1.0
    mask_s_per_element: float = 0.0
    held_bytes: float = 0.0
    cache_share: float = 1.0
    autoscaling: Autoscaling | None = None
    failures: Failures | None = None

    def __post_init__(self) -> None:
        """Refuse counts that are none."""
        for name in ("replicas", "prefill_replicas", "decode_replicas", "max_sequences", "token_budget"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_BATCH:
                raise SpecError(f"{name.replace('_', ' ')} {value} must lie between 1 and {MAX_BATCH}")
        if not 0.0 < self.step_scale < 1e3:
            raise SpecError(f"step scale {self.step_scale} must lie between 0 and 1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLimits:
    """What a replica takes on.

    Parameters
    ----------
    max_sequences, token_budget : requests at a time, and tokens of a pass
    pass_tokens : tokens of the largest pass there is memory for
    work_bytes, cache_bytes : on each chip, for that pass and for the cache
    page_bytes : of the cache, what grows with the context
    """

    max_sequences: int
    token_budget: int
    pass_tokens: int
    work_bytes: float
    cache_bytes: float
    page_bytes: float


def deploy(result: PlanResult, options: ServingOptions, *, rank: int = 1, model: Model | None = None) -> Deployment:
    """Put one plan of a result to serve.

    Parameters
    ----------
    model : where the plan's model is none of the catalogue

    Raises
    ------
    SpecError : the plan cannot serve that way, with the way out
    """
    return deploy_plan(result.of_rank(rank), model or get_model(result.model), result.workload, options)


def deploy_plan(plan: Plan, model: Model, shape: WorkloadShape, options: ServingOptions) -> Deployment:
    """Put a plan to serve requests; its pass must hold a prompt of `shape` where prompts are read whole."""
    return Deployment(
        pools=_pools(plan, model, shape, options),
        options=options.engine,
        router=options.router,
        failures=options.failures,
    )


def _pools(plan: Plan, model: Model, shape: WorkloadShape, options: ServingOptions) -> tuple[Pool, ...]:
    name = options.engine.scheduler.name
    if plan.shared and name != "disaggregated":
        spec = replica_spec(plan.prefill, plan.decode, model, shape, options)
        n = options.replicas or plan.decode.dp
        return (Pool(replica=spec, n_replicas=n, autoscaling=options.autoscaling),)
    if options.autoscaling is not None:
        raise SpecError("autoscaling is for replicas that serve both phases; leave it out, or plan without --decode-on")
    counts = _split(plan, options)
    roles: tuple[tuple[Role, PhasePlan, int], ...] = (
        ("prefill", plan.prefill, counts[0]),
        ("decode", plan.decode, counts[1]),
    )
    pools = []
    for role, phase, n in roles:
        # a decode replica reads prompts too, where a sequence has to be computed again
        spec = replica_spec(phase, plan.decode if plan.shared or role == "decode" else phase, model, shape, options)
        pools.append(Pool(replica=spec, n_replicas=n, role=role))
    return tuple(pools)


def _split(plan: Plan, options: ServingOptions) -> tuple[int, int]:
    """Replicas for prefill and for decode."""
    given = (options.prefill_replicas, options.decode_replicas)
    if not plan.shared:
        return given[0] or plan.prefill.dp, given[1] or plan.decode.dp
    total = options.replicas or plan.decode.dp
    if given != (None, None):
        prefill = given[0] or max(total - (given[1] or 0), 1)
        return prefill, given[1] or max(total - prefill, 1)
    if total < 2:
        raise SpecError(
            "disaggregated serving needs a pool for each phase, and this plan has one replica; plan with --decode-on or "
            "--dp 2, or say --prefill-replicas and --decode-replicas"
        )
    return total // 2, total - total // 2


def replica_spec(
    prefill: PhasePlan, decode: PhasePlan, model: Model, shape: WorkloadShape, options: ServingOptions
) -> ReplicaSpec:
    """One copy of the model as the engine knows it."""
    reads, writes = phase_run(prefill, model, shape), phase_run(decode, model, shape)
    chip, price = get_chip(decode.chip), decode.price
    n_chips, limits = decode.tp * decode.pp, _limits(reads, writes, prefill, decode, shape, options)
    n_pages = cache_pages(writes, free_bytes=limits.page_bytes, page_tokens=decode.page_size)
    if n_pages < 1:
        raise SpecError(
            f"{limits.pass_tokens} tokens a pass leave no memory for the cache: of {decode.memory.limit:.4g} bytes weights take "
            f"{decode.memory.weights:.4g} and the pass {limits.work_bytes:.4g}{_beside(options)}; take a smaller "
            "--token-budget or more chips"
        )
    return ReplicaSpec(
        steps=PhasedSteps(
            reads,
            writes,
            max_sequences=limits.max_sequences,
            mixes=is_one_program(reads, writes),
            stage_shares=_stage_shares(model.n_layers, decode.pp),
            scale=options.step_scale,
            masking_s=options.mask_s_per_element * model.vocab_size,
        ),
        n_pages=n_pages,
        page_tokens=decode.page_size,
        max_sequences=limits.max_sequences,
        token_budget=limits.token_budget,
        max_context=model.max_context,
        n_chips=n_chips,
        kv_bytes_per_token=kv_bytes_per_token(model, parse_dtype(decode.kv_dtype).bytes_per_element),
        port_bytes_per_s=None if chip.scale_out_bytes_per_s is None else n_chips * chip.scale_out_bytes_per_s.value,
        usd_per_h=None if price is None else n_chips * price.usd_per_h,
        rated_w=None if chip.tdp_w is None else n_chips * chip.tdp_w.value,
        chip_label=f"{decode.chip}:{n_chips}",
    )


def _beside(options: ServingOptions) -> str:
    return f", a draft model {options.held_bytes:.4g}" if options.held_bytes else ""


def replica_limits(
    prefill: PhasePlan, decode: PhasePlan, model: Model, shape: WorkloadShape, options: ServingOptions
) -> ReplicaLimits:
    """What a replica takes on at a time, and the bytes on each of its chips that this leaves for the cache."""
    reads, writes = phase_run(prefill, model, shape), phase_run(decode, model, shape)
    return _limits(reads, writes, prefill, decode, shape, options)


def _limits(
    reads: PhaseRun,
    writes: PhaseRun,
    prefill: PhasePlan,
    decode: PhasePlan,
    shape: WorkloadShape,
    options: ServingOptions,
) -> ReplicaLimits:
    name = options.engine.scheduler.name
    sequences = options.max_sequences or _usual_sequences(name, decode)
    budget = options.token_budget or (_LARGE_TOKENS if _is_large(get_chip(decode.chip)) else _TOKENS)
    tokens = _pass_tokens(prefill, shape, name, budget)
    work = max(work_bytes(reads, tokens=float(tokens)), work_bytes(writes, tokens=float(sequences)))
    free = decode.memory.limit - decode.memory.weights - work - options.held_bytes
    kept = fixed_bytes(writes)
    if sequences * kept > free * _STATE_SHARE:
        sequences = max(int(free * _STATE_SHARE / kept), 1)
    return ReplicaLimits(
        max_sequences=sequences,
        token_budget=budget,
        pass_tokens=tokens,
        work_bytes=work,
        cache_bytes=free,
        page_bytes=(free - sequences * kept) * options.cache_share,
    )


def _is_large(chip: Chip) -> bool:
    return chip.hbm_bytes.value >= _LARGE_BYTES and "fp8" in chip.dense_flop_per_s


def _pass_tokens(prefill: PhasePlan, shape: WorkloadShape, scheduler: str, budget: int) -> int:
    """Tokens of the largest pass there must be memory for: the budget, whole prompts, or a whole batch of them."""
    if scheduler == "static":
        return shape.input_tokens * max(prefill.batch // prefill.dp, 1)
    whole = scheduler in ("orca", "vllm", "two-tier")
    return max(budget, shape.input_tokens) if whole else budget


def _usual_sequences(scheduler: str, decode: PhasePlan) -> int:
    batch = max(decode.batch // decode.dp, 1)
    usual = _LARGE_SEQUENCES if _is_large(get_chip(decode.chip)) else _SEQUENCES
    return {"static": batch, "two-tier": _TIER_SEQUENCES}.get(scheduler, max(batch, usual))


def _stage_shares(n_layers: int, pp: int) -> tuple[float, ...]:
    """Layers of each stage over all layers; the first stages have one more where they do not divide."""
    layers = [n_layers // pp + (stage < n_layers % pp) for stage in range(pp)]
    return tuple(n / n_layers for n in layers)


def check_decodes(model: Model) -> None:
    """Refuse a model that reads its input both ways."""
    if model.encoder is not None or model.bidirectional:
        raise SpecError(
            f"{model.name} reads its input both ways; launches and the serving simulator are of decoders alone: "
            f"plan and estimate price it"
        )


def phase_run(phase: PhasePlan, model: Model, shape: WorkloadShape) -> PhaseRun:
    """A phase of a plan as the cost model prices it: one replica, on the mesh the plan names.

    Raises
    ------
    SpecError : a model that reads its input both ways
    """
    check_decodes(model)
    mesh = _mesh(phase)
    is_bound = all(step.source == "bound" for step in phase.breakdown)
    setting = PhaseSetting(
        model=model,
        phase=phase.phase,
        layout=phase.ffn,
        attention=phase.attention,
        experts=phase.experts,
        formats=Formats(
            weights=parse_dtype(phase.weights),
            own_mixers=parse_dtype(phase.mixer_weights),
            own_experts=parse_dtype(phase.expert_weights),
            own_ends=parse_dtype(phase.end_weights),
            state=parse_dtype(model.state_dtype),
            activations=parse_dtype(phase.activations),
            kv=parse_dtype(phase.kv_dtype),
        ),
        workload=Workload(input_tokens=shape.input_tokens, output_tokens=shape.output_tokens),
        head_axes=phase.head_axes,
        pp=phase.pp,
        page_size=phase.page_size,
    )
    chip = get_chip(phase.chip)
    return PhaseRun(
        setting=setting,
        machine=make_machine(chip, [mesh]),
        sizes=mesh.sizes,
        engine=calibration_of(chip, phase.engine, bound=is_bound).engine,
    )


def _mesh(phase: PhasePlan) -> Mesh:
    """The mesh a plan names, found again on its slice."""
    sizes = (phase.mesh.x, phase.mesh.y, phase.mesh.z)
    for mesh in meshes(parse_pool(phase.slice)[0], phase.pp, phase.dp):
        if mesh.sizes == sizes and mesh.mapping == phase.mapping:
            return mesh
    raise SpecError(f"{phase.slice} has no mesh {sizes} wired as {phase.mapping!r}; make the plan again")
