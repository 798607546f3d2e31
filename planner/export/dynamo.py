"""NVIDIA Dynamo: a request for a deployment within the plan's chips, traffic and limits, and the plan's own workers."""

from collections.abc import Sequence
from typing import Any

from ..result import PhasePlan
from . import sglang, vllm
from .cut import sglang_cut, trtllm_cut, vllm_cut
from .flags import FlagTable, Value
from .launch import Launch, data
from .manifest import manifest
from .script import command

_API = "nvidia.com/v1beta1"


def backend(launch: Launch) -> str:
    """The engine a plan is priced for, of those Dynamo knows."""
    engine = launch.decode.engine
    return "sglang" if engine == "sglang" else "trtllm" if engine.startswith("trtllm") else "vllm"


def dynamo_request(launch: Launch, table: FlagTable, comments: Sequence[str]) -> str:
    """A request Dynamo answers with a deployment to look at, not to apply by itself; the plan's own workers as comments."""
    spec: dict[str, Any] = {
        "model": launch.checkpoint,
        "backend": table.engine,
        "hardware": _hardware(launch),
        "workload": _workload(launch),
        "sla": _limits(launch),
        "searchStrategy": "rapid",
        "autoApply": False,
    }
    request = {
        "apiVersion": _API,
        "kind": "DynamoGraphDeploymentRequest",
        "metadata": {"name": launch.slug},
        "spec": spec,
    }
    has_limits = launch.ttft_s is not None and launch.tpot_s is not None
    says = [] if has_limits else ["# sla: where the plan has no limit, the upper end of what is predicted"]
    return manifest([*comments, *_workers(launch, table), *says], request)


def _hardware(launch: Launch) -> dict[str, Any]:
    known = data("kubernetes")["gpu_skus"]
    made: dict[str, Any] = {"gpuSku": known[launch.decode.chip]} if launch.decode.chip in known else {}
    return made | {"totalGpus": launch.plan.n_chips, "numGpusPerNode": launch.servers[-1].host_chips}


def _workload(launch: Launch) -> dict[str, Any]:
    made: dict[str, Any] = {"isl": launch.work.input_tokens, "osl": launch.work.output_tokens}
    load = launch.under_load
    return made | ({"concurrency": launch.decode.batch} if load is None else {"requestRate": load.rate_per_s})


def _limits(launch: Launch) -> dict[str, Any]:
    """The plan's limits in milliseconds; where it has none, what it predicts with its interval, for Dynamo's own are others."""
    plan = launch.plan
    ttft, itl = launch.ttft_s or _upper(plan.prefill), launch.tpot_s or _upper(plan.decode)
    return {"ttft": round(ttft * 1e3, 3), "itl": round(itl * 1e3, 3)}


def _upper(phase: PhasePlan) -> float:
    """The upper end of a pass, or the pass where it has none."""
    high = phase.latency_high_s
    return phase.step_s * (high / phase.latency_s if high and phase.latency_s else 1.0)


def _workers(launch: Launch, table: FlagTable) -> list[str]:
    """Comments: the workers of the plan itself, each with its role."""
    lines = ["# Dynamo looks for a cut of its own; the workers of this plan are:"]
    for servers in launch.servers:
        role = [] if servers.role == "both" else ["--disaggregation-mode", servers.role]
        if table.engine == "sglang":
            s_cut = sglang_cut(launch, servers)
            n, words = s_cut.n_servers, sglang.arguments(launch, table, servers, s_cut, with_role=False)
        elif table.engine == "trtllm":
            t_cut = trtllm_cut(launch, servers)
            pairs: list[tuple[str, Value]] = [("tensor_parallel", t_cut.tensor), ("pipeline_parallel", t_cut.pipeline)]
            n, words = t_cut.n_servers, ["--model-path", launch.checkpoint, *table.words(pairs)]
        else:
            v_cut = vllm_cut(launch, servers)
            n = v_cut.n_servers
            words = ["--model", launch.checkpoint, *vllm.arguments(launch, table, servers, v_cut)]
        start = ["python", "-m", f"dynamo.{table.engine}"]
        lines.append(f"# {n} x")
        lines += [f"#   {line}" for line in command([*start, *words, *role], first=len(start))]
    return lines
