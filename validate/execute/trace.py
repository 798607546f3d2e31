"""The collectives of a program at full size without its memory: fake tensors handed to a fake process group."""

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from .comm import STAGES, Wires
from .ranks import start_together
from .spec import RunSpec
from .worker import Rank, RankReport


def trace_ranks(spec: RunSpec, *, limit_s: float) -> list[dict[str, dict[str, int]]]:
    """Bytes sent by the first chip of each stage, by phase and axes."""
    firsts = [
        spec.mesh.rank({"dp": 0, STAGES: stage} | dict.fromkeys(spec.mesh.axes, 0)) for stage in range(spec.mesh.pp)
    ]
    return start_together(spec.mesh.pp, limit_s, lambda stage: _trace(spec, firsts[stage]))


def _trace(spec: RunSpec, rank: int) -> dict[str, dict[str, int]]:
    torch.set_num_threads(1)
    dist.init_process_group("fake", rank=rank, world_size=spec.mesh.n_ranks, store=FakeStore())
    wires = Wires(spec.mesh, rank)
    share = spec.batch // spec.mesh.dp
    with FakeTensorMode(allow_non_fake_inputs=True):
        report = RankReport(rank=rank)
        Rank(spec, wires, lambda _i, _chosen: torch.zeros(share, dtype=torch.int64), torch.device("cpu")).trace(report)
    return report.sent_bytes
