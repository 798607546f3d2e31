"""Random systems in which everything happens at once keep the invariants, and end."""

import random

import pytest
from shardwise.simulator.engine.cluster import Cluster
from shardwise.simulator.engine.deployment import Autoscaling, Deployment, Failures, Pool, Speculation
from shardwise.simulator.engine.routers import ROUTERS
from shardwise.simulator.workload.arrival import Arrival

from tests.serving import POLICIES, GrowingSteps, Listed, check_invariants, deployment, spec


def _requests(draw):
    requests, now = [], 0.0
    for _ in range(draw.choice([20, 80])):
        now += draw.expovariate(draw.choice([2, 30]))
        n_blocks, user = draw.randint(0, 8), draw.randint(0, 3)
        hashes = tuple(100 * user + block for block in range(n_blocks))
        requests.append(
            Arrival(
                arrival_s=now,
                input_tokens=64 * n_blocks + draw.randint(1, 64),
                output_tokens=draw.randint(1, 120),
                block_hashes=hashes,
                block_tokens=64 if hashes else 0,
                priority=draw.randint(0, 2),
            )
        )
    return Listed(tuple(requests))


def _system(draw):
    n_stages = draw.choice([1, 1, 2, 3])
    replica = spec(
        GrowingSteps(stage_shares=(1 / n_stages,) * n_stages),
        n_pages=draw.choice([60, 100, 400]),
        max_sequences=draw.choice([3, 8, 16]),
        token_budget=draw.choice([64, 256, 2048]),
    )
    options = {
        "preemption": draw.choice(["swap", "recompute"]),
        "prefix_caching": draw.random() < 0.8,
        "ttft_limit_s": 0.5,
    }
    if draw.random() < 0.3:
        options["speculation"] = Speculation(draft_tokens=draw.choice([1, 4]), acceptance=draw.random())
    if draw.random() < 0.4:
        options["failures"] = Failures(
            chip_mtbf_s=draw.choice([2.0, 10.0]), repair_s=draw.choice([0.0, 1.0]), retries=draw.random() < 0.5
        )
    scheduler = draw.choice(POLICIES)
    made = deployment(scheduler, replica, draw.choice([1, 2, 3]), router=draw.choice(sorted(ROUTERS)), **options)
    if scheduler == "disaggregated" or draw.random() > 0.3:
        return made
    scaling = Autoscaling(least=1, most=3, target_outstanding=4, startup_s=1.0, interval_s=0.5)
    pool = Pool(replica=replica, n_replicas=1, autoscaling=scaling)
    return Deployment(pools=(pool,), options=made.options, router=made.router, failures=made.failures)


def _check(seed):
    draw = random.Random(seed)
    cluster = Cluster(_system(draw), seed)
    assert cluster.run(_requests(draw))
    check_invariants(cluster)
    assert all(until >= since for since, until in cluster.paid_s)


@pytest.mark.parametrize("seed", range(60))
def test_everything_at_once_keeps_the_invariants(seed):
    _check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(60, 660, 50))
def test_it_does_for_many_more(first):
    for seed in range(first, first + 50):
        _check(seed)
