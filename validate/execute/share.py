"""One chip's share of a plan, alone on one device: what the other chips would send has the right shape and no meaning."""

import torch

from ...models.program import Collective, Exchange, SendRecv
from .comm import STAGES, MeshShape, Request
from .ranks import start_together
from .spec import RunSpec
from .worker import Rank, RankReport, TellTokens


class LoneWires:
    """Collectives that leave this chip with tensors of the shape it would have; nothing is sent."""

    def __init__(self, mesh: MeshShape, rank: int) -> None:
        self.mesh, self.place = mesh, mesh.place(rank)
        self.names: dict[str, str] = {}

    def all_gather(self, axes: tuple[str, ...], value: torch.Tensor) -> torch.Tensor:
        """See `Wires`: its own part again and again."""
        return value.repeat(self.mesh.size(axes), *(1 for _ in value.shape))

    def reduce_scatter(self, axes: tuple[str, ...], stacked: torch.Tensor) -> torch.Tensor:
        """See `Wires`: its own piece."""
        return stacked[self.mesh.index(self.place, axes)].clone()

    def all_reduce(self, axes: tuple[str, ...], value: torch.Tensor) -> torch.Tensor:
        """See `Wires`: its own part."""
        return value.clone()

    def all_to_all(self, axes: tuple[str, ...], stacked: torch.Tensor) -> torch.Tensor:
        """See `Wires`: what it would have sent."""
        return stacked.contiguous()

    def all_to_all_rows(
        self, axes: tuple[str, ...], rows: torch.Tensor, sent: list[int], got: list[int]
    ) -> torch.Tensor:
        """See `Wires`: what it would have sent, as often as it takes."""
        return rows[torch.arange(sum(got), device=rows.device) % max(len(rows), 1)]

    def shift(self, axes: tuple[str, ...], value: torch.Tensor) -> tuple[torch.Tensor, tuple[Request, ...]]:
        """See `Wires`: its own shard."""
        return value.clone(), ()

    def send_on(self, value: torch.Tensor) -> None:
        """See `Wires`: to nobody."""

    def receive(self, like: torch.Tensor) -> torch.Tensor:
        """See `Wires`: rows of about the size a norm leaves them."""
        return like.normal_()


def run_share(spec: RunSpec, *, limit_s: float) -> list[RankReport]:
    """The first chip of each stage, one after the other, in a process that ends after `limit_s`.

    Raises
    ------
    RankFailedError : the share failed, or was not done in time
    """
    (reports,) = start_together(1, limit_s, lambda _rank: _run_stages(spec))
    return list(reports)


def _run_stages(spec: RunSpec) -> list[RankReport]:
    torch.set_num_threads(1)
    device = torch.device(spec.device)
    reports = []
    for stage in range(spec.mesh.pp):
        rank = spec.mesh.rank({"dp": 0, STAGES: stage} | dict.fromkeys(spec.mesh.axes, 0))
        report = RankReport(rank=rank)
        with torch.inference_mode():
            Rank(spec, LoneWires(spec.mesh, rank), any_tokens(spec), device, None).run(report)
        report.logits = None
        reports.append(report)
    return reports


def any_tokens(spec: RunSpec) -> TellTokens:
    """Tokens where there is no last stage to choose them."""
    tokens = torch.zeros(spec.batch // spec.mesh.dp, dtype=torch.int64)
    return lambda _step, _chosen: tokens


def steps_on_wires(spec: RunSpec) -> set[str]:
    """Keys of the steps that need other chips, whose seconds no single chip can tell."""
    found = set()
    for phase in ("prefill", "decode"):
        program = spec.program(phase)
        parts = {
            "first": program.first,
            **{f"block {block.kind}" if len(program.blocks) > 1 else "block": block.steps for block in program.blocks},
            "last": program.last,
            "handover": program.handover,
        }
        for part, steps in parts.items():
            found |= {f"{phase}/{part}/{step.name}" for step in steps if _leaves(step, spec)}
    return found


def _leaves(step: object, spec: RunSpec) -> bool:
    return isinstance(step, SendRecv) or (isinstance(step, Collective | Exchange) and spec.mesh.size(step.axes) > 1)
