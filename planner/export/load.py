"""Load generators: the command that sends a plan's own traffic, so that what it measures can be laid beside the prediction."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...hardware_specs.errors import SpecError
from .flags import FlagTable, Value
from .launch import Launch
from .manifest import dump
from .script import command, script

# What is sent unless said: so many seconds of open traffic, so many times all users, and no fewer requests than this.
_SECONDS, _ROUNDS, _FEWEST = 120.0, 10, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Traffic to send; open at a rate or closed with so many users, never both.

    Parameters
    ----------
    url : where the server listens
    file : what the results are written to
    """

    url: str
    rate_per_s: float | None
    concurrency: int | None
    n_requests: int
    file: str


def make_load(
    launch: Launch,
    *,
    url: str,
    rate_per_s: float | None,
    concurrency: int | None,
    n_requests: int | None,
    file: str,
) -> Load:
    """Traffic as the user says, else that of the plan: its rate, or as many users as its decode batch.

    Raises
    ------
    SpecError : a rate and a concurrency at once, or a number that is none
    """
    if rate_per_s is not None and concurrency is not None:
        raise SpecError("--rate sends open traffic and --concurrency closed traffic; give one of them")
    if rate_per_s is not None and not 0.0 < rate_per_s < math.inf:
        raise SpecError(f"--rate {rate_per_s} must be a positive number of requests a second")
    if (concurrency is not None and concurrency < 1) or (n_requests is not None and n_requests < 1):
        raise SpecError("--concurrency and --requests must be at least 1")
    if rate_per_s is None and concurrency is None:
        load = launch.under_load
        rate_per_s = None if load is None else load.rate_per_s
        concurrency = launch.decode.batch if load is None else None
    usual = rate_per_s * _SECONDS if rate_per_s is not None else _ROUNDS * (concurrency or 1)
    return Load(
        url=url,
        rate_per_s=rate_per_s,
        concurrency=concurrency,
        n_requests=n_requests or max(math.ceil(usual), _FEWEST),
        file=file,
    )


def load_script(name: str, launch: Launch, load: Load, table: FlagTable, comments: Sequence[str]) -> str:
    """The script of a load generator by name."""
    return script(comments, LOADS[name](launch, load, table))


def _vllm_bench(launch: Launch, load: Load, table: FlagTable) -> list[str]:
    limits = [
        f"{name}:{value * 1e3:.6g}" for name, value in (("ttft", launch.ttft_s), ("tpot", launch.tpot_s)) if value
    ]
    pairs: list[tuple[str, Value]] = [
        ("backend", "openai"),
        ("url", load.url),
        ("model", launch.checkpoint),
        ("data", "random"),
        ("input_tokens", launch.work.input_tokens),
        ("output_tokens", launch.work.output_tokens),
        ("spread", "0"),
        ("requests", load.n_requests),
        ("rate", load.rate_per_s),
        ("concurrency", load.concurrency),
        ("ignore_eos", True),
        ("times", "ttft,tpot,itl,e2el"),
        ("percentiles", "50,90,95,99"),
        ("seed", "0"),
        ("save", True),
        ("save_requests", True),
        ("file", load.file),
        *((("limits", limits[0]),) if limits else ()),
    ]
    return command([*table.command, *table.words(pairs), *limits[1:]])


def _guidellm(launch: Launch, load: Load, table: FlagTable) -> list[str]:
    work = launch.work
    profile = (
        f"kind=poisson,rate={load.rate_per_s:.6g}" if load.rate_per_s else f"kind=concurrent,streams={load.concurrency}"
    )
    slo = [f"slo.ttft_ms={launch.ttft_s * 1e3:.6g}"] if launch.ttft_s else []
    slo += [f"slo.tpot_ms={launch.tpot_s * 1e3:.6g}"] if launch.tpot_s else []
    pairs: list[tuple[str, Value]] = [
        ("backend", f"kind=openai_http,target={load.url},model={launch.checkpoint},request_format=/v1/completions"),
        ("profile", profile),
        ("constraint", f"kind=max_requests,count={load.n_requests}"),
        ("data", f"kind=synthetic_text,prompt_tokens={work.input_tokens},output_tokens={work.output_tokens}"),
        ("metrics", ",".join(["kind=generative", *slo]) if slo else None),
        ("seed", "kind=static,value=0"),
        ("output", f"kind=json,path={load.file}"),
    ]
    return command([*table.command, *table.words(pairs)])


def _inference_perf(launch: Launch, load: Load, table: FlagTable) -> list[str]:
    name = "inference-perf.yaml"
    lines = [
        f"cat > {name} <<'YAML'",
        *dump(table.checked(perf_configuration(launch, load))).rstrip("\n").split("\n"),
        "YAML",
    ]
    return [*lines, *command([*table.command, *table.words([("config", name)])])]


def perf_configuration(launch: Launch, load: Load) -> dict[str, Any]:
    """The configuration file of inference-perf; its limits are in seconds."""
    stages: dict[str, Any]
    if load.rate_per_s is not None:
        seconds = math.ceil(load.n_requests / load.rate_per_s)
        stages = {"type": "poisson", "stages": [{"rate": load.rate_per_s, "duration": seconds}]}
    else:
        stage = {"num_requests": load.n_requests, "concurrency_level": load.concurrency}
        stages = {"type": "concurrent", "stages": [stage]}
    limits = {name: value for name, value in (("ttft", launch.ttft_s), ("tpot", launch.tpot_s)) if value}
    report: dict[str, Any] = {"request_lifecycle": {"summary": True, "per_stage": True, "per_request": True}}
    if limits:
        report["goodput"] = {"constraints": limits}
    return {
        "api": {"type": "completion", "streaming": True},
        "data": {
            "type": "random",
            "input_distribution": _fixed(launch.work.input_tokens, load.n_requests),
            "output_distribution": _fixed(launch.work.output_tokens, load.n_requests),
        },
        "load": stages,
        "server": {"type": "vllm", "model_name": launch.checkpoint, "base_url": load.url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": launch.checkpoint},
        "report": report,
        "storage": {"local_storage": {"path": load.file.removesuffix(".json")}},
    }


def _fixed(n: int, count: int) -> dict[str, Any]:
    return {"type": "fixed", "min": n, "max": n, "mean": n, "std_dev": 0, "total_count": count}


LOADS: dict[str, Callable[[Launch, Load, FlagTable], list[str]]] = {
    "vllm-bench": _vllm_bench,
    "guidellm": _guidellm,
    "inference-perf": _inference_perf,
}
