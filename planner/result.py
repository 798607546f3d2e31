"""Plans as the user gets them: typed, frozen, and the same in JSON."""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..hardware_specs.errors import SpecError
from ..hardware_specs.prices import ChipPrice
from ..models.forms import AXES
from ..models.layouts import LAYOUTS, AttentionSharding, ExpertSharding, layout_text
from ..simulator.cost.roofline import step_time_s
from .notebook import cost_html, phase_html, plan_html, result_html

if TYPE_CHECKING:
    import pandas as pd

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Bound = Literal["compute", "hbm", "links", "latency"]
Source = Literal["bound", "fitted", "extrapolated"]
Objective = Literal["latency", "cost", "throughput"]
# What keeps a pool from carrying a rate.
Binds = Literal["memory", "saturation", "TTFT", "TPOT"]


class MeshSizes(BaseModel):
    """Chips along the logical axes."""

    model_config = _STRICT
    x: int
    y: int
    z: int


class StepShare(BaseModel):
    """Seconds of one step over a whole pass; the pass is the sum of max(compute, memory) + comm + overhead."""

    model_config = _STRICT
    step: str
    compute_s: float
    memory_s: float
    comm_s: float
    overhead_s: float
    source: Source

    @property
    def total_s(self) -> float:
        """What the step adds to the pass."""
        return float(step_time_s(self.compute_s, self.memory_s, self.comm_s, self.overhead_s))


class MemoryShare(BaseModel):
    """Bytes on the fullest chip."""

    model_config = _STRICT
    weights: float
    kv_cache: float
    activations: float
    gathered: float
    limit: float

    @property
    def total(self) -> float:
        """Everything together."""
        return self.weights + self.kv_cache + self.activations + self.gathered


class PhasePlan(BaseModel):
    """One phase on one slice.

    `latency_s` is the whole prefill batch, or all output tokens; `step_s` one pass. Costs are per input token in
    prefill and per output token in decode. `batch` counts sequences over all replicas. `users_own` names the user's own
    measurements where they price the kernels in place of those that ship. `price` is what a chip-hour is paid with.
    """

    model_config = _STRICT
    phase: Literal["prefill", "decode"]
    chip: str
    n_chips: int
    slice: str
    mesh: MeshSizes
    mapping: str
    tp: int
    pp: int
    dp: int
    ep: int = 1
    replicas: int
    batch: int
    n_microbatches: int
    ffn: str
    attention: AttentionSharding
    experts: ExpertSharding = "tensor"
    head_shards: int
    n_heads_padded: int
    weights: str
    mixer_weights: str
    expert_weights: str
    end_weights: str
    activations: str
    kv_dtype: str
    page_size: int
    engine: str
    users_own: str | None = None
    latency_s: float
    latency_low_s: float
    latency_high_s: float | None
    step_s: float
    mfu: float
    hfu: float
    cost_chip_s_per_token: float | None
    price: ChipPrice | None = None
    usd_per_mtok: float | None
    hbm_bytes_per_chip: float
    memory: MemoryShare
    bound: Bound
    breakdown: tuple[StepShare, ...]

    @property
    def head_axes(self) -> tuple[str, ...]:
        """The mesh axes its heads are cut over."""
        data = LAYOUTS[self.ffn].data_axes
        if data:
            return tuple(axis for axis in AXES if axis not in data)
        return AXES if self.head_shards == self.tp else AXES[1:]

    @property
    def layout(self) -> str:
        """Feed-forward layout, attention sharding, and how experts are cut if not like all else, as the command line has it."""
        return layout_text(self.ffn, self.attention, self.experts)

    def _repr_html_(self) -> str:
        return phase_html(self)


class LoadEnd(BaseModel):
    """A plan under traffic where every step takes `step_scale` times its predicted time; 1 is the prediction itself.

    `within_slo` is the share of requests that keep every limit; `highest_rate_per_s` the highest rate at which the share asked
    for still does.
    """

    model_config = _STRICT
    step_scale: float
    within_slo: float
    is_met: bool
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    highest_rate_per_s: float


class UnderLoad(LoadEnd):
    """A plan under traffic at the rate asked for, as the serving simulator has it.

    `saturation_per_s` is what the pool answers when all requests wait. `quick` and `slow` are the same where every step takes
    the low and the high end of its 90 % interval; they are made for the first plan, and `slow` where there is a high end.
    """

    rate_per_s: float
    goodput_per_s: float
    saturation_per_s: float
    usd_per_mtok: float | None
    quick: LoadEnd | None = None
    slow: LoadEnd | None = None


class TriedSize(BaseModel):
    """A pool of so many chips at the rate, by its best candidate; `binds` is None where it carries it."""

    model_config = _STRICT
    n_chips: int
    binds: Binds | None
    within_slo: float | None
    saturation_per_s: float | None


class PoolSize(BaseModel):
    """The fewest chips that carry the rate, and how sure that is.

    `n_chips_low` and `n_chips_high` are the fewest where every step takes the low or the high end of its 90 % interval;
    `n_chips_high` is None where the pool has not that many, or where the interval has no high end. `tried` are the sizes that
    were simulated on the way.
    """

    model_config = _STRICT
    n_chips: int
    n_chips_low: int
    n_chips_high: int | None
    why_not_fewer: str
    tried: tuple[TriedSize, ...] = ()


class PlanCost(BaseModel):
    """What a plan costs to keep, and what of it falls on a request and on a token; None where a figure is unknown.

    `requests_per_s` is what the pool really serves on the mean: `utilization` of the rate it was planned for, or of its full
    throughput where no rate was said. `input_share` is the part of a request's dollars and joules that reading its prompt
    takes: prefill's part of the chip time, or of the price where it has chips of its own. `usd_per_mtok_input` and
    `usd_per_mtok_output` split the cost so; `usd_per_mtok` is the same over all tokens. Power is the chips' rated one unless
    said, all the time they are paid for: an upper end, of the chips alone. CO2e is that times `pue` and the grid's intensity.
    """

    model_config = _STRICT
    requests_per_s: float
    utilization: float
    input_share: float
    usd_per_h: float | None
    usd_per_month: float | None
    usd_per_request: float | None
    usd_per_mtok: float | None
    usd_per_mtok_input: float | None
    usd_per_mtok_output: float | None
    power_w: float | None
    power_is_rated: bool
    energy_j_per_request: float | None
    energy_j_per_input_token: float | None
    energy_j_per_output_token: float | None
    grid_g_per_kwh: float | None
    pue: float
    co2e_g_per_request: float | None
    co2e_g_per_mtok_input: float | None
    co2e_g_per_mtok_output: float | None

    def _repr_html_(self) -> str:
        return cost_html(self)


class Plan(BaseModel):
    """A prefill and a decode phase that serve one request after the other.

    `request_latency_s` is TTFT plus all output tokens; `chip_s_per_request` counts both phases and `shared` says whether
    they take turns on one slice with one copy of the weights. `handoff_s` is the cache's way from one slice to the other,
    None where the chips claim no network between slices. `usd_per_mtok_output` lays everything on the output tokens; `cost`
    splits it. Under load a phase's `batch` is the one the traffic makes.
    """

    model_config = _STRICT
    rank: int
    n_chips: int
    shared: bool
    handoff_s: float | None
    request_latency_s: float
    chip_s_per_request: float
    output_tokens_per_s: float
    hbm_bytes_per_chip: float
    usd_per_mtok_output: float | None
    prefill: PhasePlan
    decode: PhasePlan
    under_load: UnderLoad | None = None
    cost: PlanCost | None = None

    def _repr_html_(self) -> str:
        return plan_html(self)


class WorkloadShape(BaseModel):
    """What every request looks like."""

    model_config = _STRICT
    input_tokens: int
    output_tokens: int


class PlanResult(BaseModel):
    """Ranked plans, the frontier, and what was refused and why."""

    model_config = _STRICT
    version: str
    model: str
    on: str
    workload: WorkloadShape
    objective: Objective
    ttft_s: float | None
    tpot_s: float | None
    rate_per_s: float | None = None
    attainment: float | None = None
    pool_size: PoolSize | None = None
    plans: tuple[Plan, ...]
    frontier: tuple[Plan, ...] = ()
    rejected: dict[str, int] = Field(default_factory=dict)
    nearest_miss: str | None = None
    n_candidates: int
    wall_s: float

    @property
    def best(self) -> Plan:
        """The plan the objective ranks first."""
        if not self.plans:
            raise LookupError(f"no plan is feasible: {self.nearest_miss}")
        return self.plans[0]

    def of_rank(self, rank: int) -> Plan:
        """The plan of a rank.

        Raises
        ------
        SpecError : there is none
        """
        plans = {plan.rank: plan for plan in self.plans}
        if rank not in plans:
            raise SpecError(f"no plan of rank {rank}; the file has {sorted(plans) or 'none'}")
        return plans[rank]

    def to_pandas(self) -> "pd.DataFrame":
        """One row a plan and phase."""
        import pandas as pd

        rows = []
        for plan in self.plans:
            for phase in (plan.prefill, plan.decode):
                row = phase.model_dump(exclude={"breakdown", "memory", "mesh"})
                rows.append({"rank": plan.rank} | row | phase.mesh.model_dump())
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return result_html(self)
