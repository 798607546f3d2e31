"""Run a deployment under traffic."""

import math
import time
from collections.abc import Callable

from .engine.cluster import Cluster
from .engine.deployment import Deployment
from .report import ReplicaUse, Report
from .types import Slo
from .workload.arrival import Traffic
from .workload.synthetic import ClosedLoop
from .workload.traces import Trace


def simulate(
    deployment: Deployment,
    traffic: Traffic | ClosedLoop,
    *,
    seed: int = 0,
    slo: Slo | None = None,
    warmup_requests: int = 0,
    until_s: float | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Report:
    """Serve all of the traffic and report.

    Parameters
    ----------
    seed : the same gives the same report to the last bit
    slo : limits that goodput is counted by
    warmup_requests : requests at the start that the figures leave out
    until_s : stop after so many simulated seconds; the report is marked as partial, as it is after Ctrl-C
    advance : called with the requests that have left the system, now and then
    """
    started = time.perf_counter()
    cluster = Cluster(deployment, seed, warmup_requests=warmup_requests, advance=advance)
    complete = cluster.run(traffic, until_s=until_s)
    return Report(
        rows=cluster.recorder.rows,
        gaps=cluster.gaps,
        series=cluster.recorder.series,
        replicas=_uses(cluster),
        reasons=dict(sorted(cluster.recorder.reasons.items())),
        n_failures=cluster.recorder.n_failures,
        slo=slo or Slo(),
        warmup_requests=warmup_requests,
        wall_s=time.perf_counter() - started,
        seed=seed,
        partial=not complete,
        bad_rows=traffic.n_bad_rows if isinstance(traffic, Trace) else 0,
    )


def _uses(cluster: Cluster) -> list[ReplicaUse]:
    now = cluster.env.now
    return [
        ReplicaUse(
            index=replica.index,
            chip_label=replica.spec.chip_label,
            role=replica.role,
            n_chips=replica.spec.n_chips,
            busy_s=replica.busy_s,
            paid_s=(now if math.isinf(until_s) else until_s) - from_s,
            kv_peak=replica.peak_pages / replica.spec.n_pages,
            usd_per_h=replica.spec.usd_per_h,
            rated_w=replica.spec.rated_w,
        )
        for replica, (from_s, until_s) in zip(cluster.replicas, cluster.paid_s, strict=True)
    ]
