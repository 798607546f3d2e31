"""Small serving systems, and what must hold after every simulation."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from shardwise.simulator.cost.step_time import Chunk, StepTime
from shardwise.simulator.engine.cluster import Cluster
from shardwise.simulator.engine.deployment import Deployment, EngineOptions, Pool, ReplicaSpec
from shardwise.simulator.engine.policies import SCHEDULERS, get_scheduler
from shardwise.simulator.report import Report
from shardwise.simulator.run import simulate
from shardwise.simulator.types import Slo
from shardwise.simulator.workload.arrival import Arrival, Traffic
from shardwise.simulator.workload.synthetic import ClosedLoop

POLICIES = sorted(SCHEDULERS)
# Schedulers of one pool whose requests leave when they are done.
CONTINUOUS = [name for name in POLICIES if name not in ("static", "disaggregated")]


@dataclass(frozen=True, slots=True)
class GrowingSteps:
    """Steps that take longer with every sequence and with every token they attend to."""

    stage_shares: tuple[float, ...] = (1.0,)

    def decode_s(self, sequences: int, context_tokens: int, steps: int = 1) -> float:
        """Fixed, per sequence and per token."""
        tokens = steps * context_tokens + sequences * steps * (steps - 1) // 2
        return steps * (10e-3 + 1e-4 * sequences) + 1e-6 * tokens

    def pass_s(self, chunks: list[Chunk], sequences: int = 0, context_tokens: int = 0) -> float:
        """A step with the chunks' tokens beside it."""
        read = sum(3e-5 * c.new_tokens + 1e-8 * c.new_tokens * c.past_tokens for c in chunks)
        return (self.decode_s(sequences, context_tokens) if sequences else 10e-3) + read


def spec(steps: StepTime | None = None, **changes: object) -> ReplicaSpec:
    """A replica with a small cache."""
    fields: dict[str, object] = {
        "steps": steps or GrowingSteps(),
        "n_pages": 400,
        "page_tokens": 16,
        "max_sequences": 16,
        "token_budget": 256,
        "kv_bytes_per_token": 1e5,
        "port_bytes_per_s": 1e10,
    }
    return ReplicaSpec(**{**fields, **changes})  # type: ignore[arg-type]


def deployment(
    scheduler: str = "chunked", replica: ReplicaSpec | None = None, n: int = 1, **changes: object
) -> Deployment:
    """Replicas under one scheduler; the disaggregated one gets a pool for each phase."""
    options = {k: changes.pop(k) for k in list(changes) if k in EngineOptions.__dataclass_fields__}
    made = replica or spec()
    pools = (
        (Pool(replica=made, n_replicas=n, role="prefill"), Pool(replica=made, n_replicas=n, role="decode"))
        if scheduler == "disaggregated"
        else (Pool(replica=made, n_replicas=n),)
    )
    engine = EngineOptions(scheduler=get_scheduler(scheduler), **options)  # type: ignore[arg-type]
    return Deployment(pools=pools, options=engine, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Listed:
    """Traffic that is written out."""

    requests: tuple[Arrival, ...]

    @property
    def n_requests(self) -> int:
        """How many there are."""
        return len(self.requests)

    def arrivals(self, seed: np.random.SeedSequence) -> object:
        """As they are written."""
        return iter(self.requests)


def arrivals(*triples: tuple[float, int, int]) -> Listed:
    """Traffic of (arrival, input, output)."""
    return Listed(tuple(Arrival(arrival_s=t, input_tokens=n_in, output_tokens=n_out) for t, n_in, n_out in triples))


def served(made: Deployment, traffic: Traffic | ClosedLoop, *, seed: int = 0, **changes: object) -> Report:
    """Simulate, check what must hold whatever is simulated, and report."""
    cluster = Cluster(made, seed)
    cluster.run(traffic)
    check_invariants(cluster)
    return simulate(made, traffic, seed=seed, slo=Slo(), **changes)  # type: ignore[arg-type]


def check_invariants(cluster: Cluster) -> None:
    """The invariants of docs/invariants.md that every run keeps."""
    rows = cluster.recorder.rows
    n_in = cluster._n_in
    # 1: nobody is lost
    assert sorted(rows.index) == list(range(n_in))
    # 2: pages used and free are the pool's; all are given back
    for replica in cluster.replicas:
        if replica.is_up and not replica.n_outstanding:
            assert replica.pool.used_pages == 0, replica.index
            assert replica.pool.free_pages == replica.pool.n_pages
            assert replica.n_running == 0
        assert replica.peak_pages <= replica.pool.n_pages
    # 3: time runs forwards
    outcome = np.array(rows.outcome)
    done = outcome == 0
    times = [np.array(getattr(rows, name))[done] for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s")]
    for earlier, later in pairwise(times):
        assert np.all(earlier <= later + 1e-9)  # a chunk of rounding when times are sums of steps
    # 4: everybody who is done has all tokens
    assert np.array_equal(np.array(rows.output_done)[done], np.array(rows.output_tokens)[done])
