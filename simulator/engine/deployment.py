"""What is simulated: replicas, pools of them, and how their engine is set."""

from dataclasses import dataclass, field
from typing import Literal

from ...hardware_specs.errors import SpecError
from ..cost.step_time import StepTime
from .policies import UNLIMITED, Scheduler, get_scheduler

Role = Literal["both", "prefill", "decode"]
Preemption = Literal["recompute", "swap"]

# PCIe 4.0 x16, one direction: what a cache is swapped to host memory over unless said otherwise.
PCIE_4_BYTES_PER_S = 31.5e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """A draft model writes `draft_tokens`, the model checks them in one step.

    Parameters
    ----------
    acceptance : chance that a draft token is kept where all before it were
    draft_cost : a step of the draft model over a decode step of the model

    References
    ----------
    [Leviathan2023]
    """

    draft_tokens: int
    acceptance: float
    draft_cost: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no speculation."""
        if self.draft_tokens < 1 or not 0.0 <= self.acceptance <= 1.0 or not self.draft_cost >= 0.0:
            raise SpecError(
                f"speculation of {self.draft_tokens} draft tokens, acceptance {self.acceptance}, draft cost {self.draft_cost}: "
                "at least one token, an acceptance in [0, 1] and a cost of at least 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How the engine of every replica is set.

    Parameters
    ----------
    scheduler : see `policies.SCHEDULERS`
    prefix_caching : blocks of prompts are kept and shared by their hashes
    preemption : a sequence that gives way is computed again, or goes to host memory and back
    host_bytes_per_s : rate to host memory, all chips of a replica together
    ttft_limit_s : what a deadline is counted by
    most_steps : decode steps that are simulated as one at most; 1 does them one by one
    """

    scheduler: Scheduler = field(default_factory=lambda: get_scheduler("chunked"))
    prefix_caching: bool = True
    preemption: Preemption = "recompute"
    host_bytes_per_s: float = PCIE_4_BYTES_PER_S
    speculation: Speculation | None = None
    ttft_limit_s: float | None = None
    most_steps: int = UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """One copy of the model on its chips.

    Parameters
    ----------
    steps : seconds of its passes
    n_pages, page_tokens : its KV cache
    max_sequences : requests that read or write at a time
    token_budget : tokens of a pass, where the scheduler keeps a budget
    max_context : positions of the model, None for no limit
    kv_bytes_per_token : of all its chips together
    port_bytes_per_s : its network ports together, None where it claims none
    usd_per_h, rated_w : of all its chips, None where unknown
    chip_label : how reports name it
    """

    steps: StepTime
    n_pages: int
    page_tokens: int
    max_sequences: int
    token_budget: int = 2048
    max_context: int | None = None
    n_chips: int = 1
    kv_bytes_per_token: float = 0.0
    port_bytes_per_s: float | None = None
    usd_per_h: float | None = None
    rated_w: float | None = None
    chip_label: str = ""

    def __post_init__(self) -> None:
        """Refuse a replica that can serve nothing."""
        for name in ("n_pages", "page_tokens", "max_sequences", "token_budget", "n_chips"):
            if getattr(self, name) < 1:
                raise SpecError(f"a replica needs {name} of at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """Replicas come and go with the load.

    Parameters
    ----------
    least, most : replicas of the pool
    target_outstanding : requests a replica should have; more start another, fewer than half on average stop one
    startup_s : from the decision until a replica serves; its chips are paid for meanwhile
    interval_s : how often it is decided
    """

    least: int
    most: int
    target_outstanding: float
    startup_s: float
    interval_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be kept."""
        if not 1 <= self.least <= self.most:
            raise SpecError(
                f"autoscaling between {self.least} and {self.most} replicas: at least 1, and no more than the most"
            )
        if not (self.target_outstanding > 0 and self.startup_s >= 0 and self.interval_s > 0):
            raise SpecError("autoscaling needs a target and an interval above 0, and a start-up delay of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Chips die, and their replica with them.

    Parameters
    ----------
    chip_mtbf_s : mean time between failures of one chip; a replica fails with any of its chips
    repair_s : until it serves again
    retries : requests in flight begin anew elsewhere; else they are lost
    """

    chip_mtbf_s: float
    repair_s: float
    retries: bool = True

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        if not (self.chip_mtbf_s > 0 and self.repair_s >= 0):
            raise SpecError(
                f"failures need an MTBF above 0 and a repair of at least 0 s, not {self.chip_mtbf_s} and {self.repair_s}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Replicas that are alike and do the same work."""

    replica: ReplicaSpec
    n_replicas: int
    role: Role = "both"
    autoscaling: Autoscaling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that serves: pools, router, engine, and how often chips fail.

    Prefill and decode lie in one pool of role ``both``, or in pools of their own.
    """

    pools: tuple[Pool, ...]
    options: EngineOptions = field(default_factory=EngineOptions)
    router: str = "least-outstanding"
    failures: Failures | None = None

    def __post_init__(self) -> None:
        """Refuse pools that together serve no request."""
        roles = sorted(pool.role for pool in self.pools)
        if roles not in (["both"], ["decode", "prefill"]):
            raise SpecError(f"pools of roles {roles}: there is one that serves both phases, or one for each of them")
        if any(pool.n_replicas < 1 for pool in self.pools):
            raise SpecError("a pool needs at least one replica")
