"""Which measured runs each engine's fit is made of, and which of its constants they can tell apart."""

import csv
from functools import cache
from importlib.resources import files

from ..hardware_specs.errors import UnknownNameError
from ..models.catalogue import get_model
from ..simulator.cost.calibrated import Fit
from .engine_fit import EngineRows, engine_rows, fit_engine

_KERNELS = ("matmul_slowdown", "attention_slowdown", "collective_slowdown", "pointwise_slowdown")
_HOST = ("pass_s", "sequence_s", "dispatch_s")
# Where a graph launches all kernels at once, each costs only part of the fixed time it was measured with alone.
_GRAPH = ("pass_s", "sequence_s", "launch_share")
_FREE: dict[str, tuple[str, ...]] = {
    "vllm": (*_GRAPH, *_KERNELS),
    "vllm-v0": (*_HOST, *_KERNELS),
    "vllm-eager": (*_HOST, *_KERNELS),
    "vllm-rocm": (
        "sequence_s",
        "matmul_slowdown",
        "attention_slowdown",
    ),  # full queues alone: they say nothing of a pass
    "vllm-rocm-v0": (*_HOST, *_KERNELS),
    "sglang": (*_GRAPH, *_KERNELS),
    "trtllm": (*_GRAPH, *_KERNELS),
    "trtllm-cpp": (*_GRAPH, *_KERNELS),
    "trtllm-static": (*_HOST, *_KERNELS),
    "deepspeed": (*_HOST, *_KERNELS),
    "gpt-fast": ("pass_s", "matmul_slowdown"),
    "vllm-async": (*_GRAPH, *_KERNELS, "experts_slowdown", "latent_slowdown"),
    "sglang-moe": (*_GRAPH, *_KERNELS, "experts_slowdown", "latent_slowdown", "scan_slowdown"),
    "trtllm-moe": (*_GRAPH, *_KERNELS, "experts_slowdown"),
}
# What runs of models with experts tell, once dense ones have settled the rest.
_FREE_WITH_EXPERTS = ("experts_slowdown",)
_EXPERTS_ON_TOP = ("vllm", "vllm-v0", "vllm-rocm-v0", "trtllm-cpp", "deepspeed", "gpt-fast")
ENGINE_COMMAND = "shardwise calibrate --from engines"


@cache
def published_rows() -> tuple[dict[str, str], ...]:
    """Measured runs of engines with their sources, as tables of measured cases write them; `engine` names the profile."""
    text = (files(__package__) / "data" / "engine_rows.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def engine_names() -> tuple[str, ...]:
    """Engines whose runs ship."""
    return tuple(_FREE)


def rows_of(engine: str, *, experts: bool | None = None) -> EngineRows:
    """The rows of one engine, priced and ready to be fitted.

    Parameters
    ----------
    experts : of models that have experts alone, or of those that have none; None for both
    """
    if engine not in _FREE:
        raise UnknownNameError("fitted engine", engine, _FREE)
    rows = [row for row in published_rows() if row["engine"] == engine]
    if experts is not None:
        rows = [row for row in rows if get_model(row["model"]).has_experts == experts]
    return engine_rows(rows, engine)


def fit_published(engine: str) -> Fit:
    """Fit one engine to the runs that ship: dense models, then what experts take on top of them."""
    if engine not in _EXPERTS_ON_TOP:
        return fit_engine(rows_of(engine), _FREE[engine], command=ENGINE_COMMAND)
    dense = fit_engine(rows_of(engine, experts=False), _FREE[engine], command=ENGINE_COMMAND)
    return fit_engine(rows_of(engine, experts=True), _FREE_WITH_EXPERTS, command=ENGINE_COMMAND, after=dense)
