"""The collectives of a program at full size without its memory: tensors of torch's meta device handed to a fake process group."""

import importlib

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from .comm import STAGES, GroupWires
from .ranks import start_together
from .share import any_tokens
from .spec import RunSpec
from .worker import Rank, RankReport


def trace_ranks(spec: RunSpec, *, limit_s: float) -> list[dict[str, dict[str, int]]]:
    """Bytes sent by the first chip of each stage, by phase and axes."""
    firsts = [
        spec.mesh.rank({"dp": 0, STAGES: stage} | dict.fromkeys(spec.mesh.axes, 0)) for stage in range(spec.mesh.pp)
    ]
    # what torch knows of shapes without data loads its whole compiler: once here, not in every process
    importlib.import_module("torch._dynamo")
    return start_together(spec.mesh.pp, limit_s, lambda stage: _trace(spec, firsts[stage]))


def _trace(spec: RunSpec, rank: int) -> dict[str, dict[str, int]]:
    torch.set_num_threads(1)
    dist.init_process_group("fake", rank=rank, world_size=spec.mesh.n_ranks, store=FakeStore())
    report = RankReport(rank=rank)
    with torch.inference_mode():
        Rank(spec, GroupWires(spec.mesh, rank), any_tokens(spec), torch.device("meta"), None).trace(report)
    return report.sent_bytes
