"""One rank's run of a sharded program: every step on real tensors, in the forms the program says."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ...models.program import (
    Append,
    Attention,
    Collective,
    Exchange,
    Experts,
    Index,
    LatentAttention,
    Matmul,
    Pointwise,
    Scan,
    SendRecv,
    Step,
)
from .cache import LayerState
from .exchange import exchange
from .local import Local
from .steps import attention, ends, experts, latent, recurrent
from .steps.matmul import matmul
from .steps.pointwise import know, pointwise
from .value import Pass, Value


@dataclass(slots=True, kw_only=True)
class Layer:
    """One layer on one chip: the kind of its block, and its local weights by name."""

    kind: str
    weights: dict[str, Value]


@dataclass(slots=True, kw_only=True)
class Stage:
    """What one rank holds of a model for one program.

    Parameters
    ----------
    layers, ends : of this stage, and the weights of the ends it holds
    clock : seconds now; each step's share is added to `seconds` under part and name
    """

    at: Local
    layers: list[Layer]
    ends: dict[str, Value]
    is_first: bool
    is_last: bool
    clock: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, now: Pass, states: Sequence[LayerState]) -> torch.Tensor | None:
        """One pass through this stage; the chosen tokens [B] on the last one, whose logits stay in `now.held`."""
        program = self.at.program
        if self.is_first:
            self._steps("first", program.first, now, self.ends)
            now.held["residual"] = ends.embedded(self.at, now)
        else:
            self._receive(now)
        for layer, state in zip(self.layers, states, strict=True):
            now.held = {"residual": now.held["residual"]}
            now.block, now.state = program.of(layer.kind), state
            part = "block" if len(program.blocks) == 1 else f"block {layer.kind}"
            self._steps(part, now.block.steps, now, layer.weights)
        now.block = None
        if not self.is_last:
            self._steps("handover", program.handover, now, {})
            return None
        now.held = {"residual": now.held["residual"]}
        self._steps("last", program.last, now, self.ends)
        return ends.choose(now)

    def _receive(self, now: Pass) -> None:
        form = self.at.program.residual.form
        like = torch.empty(now.dims.shape(form), dtype=self.at.kernels.dtype, device=now.tokens.device)
        started = self.clock()
        now.held["residual"] = Value(self.at.wires.receive(like), form)
        self._note("handover/send", started)

    def _note(self, key: str, started: float) -> None:
        self.seconds[key] = self.seconds.get(key, 0.0) + self.clock() - started

    def _steps(self, part: str, steps: Sequence[Step], now: Pass, weights: dict[str, Value]) -> None:
        now.held |= weights
        for i, step in enumerate(steps):
            started = self.clock()
            self._run(step, now, steps[i + 1 :])
            self._note(f"{part}/{step.name}", started)

    def _run(self, step: Step, now: Pass, later: Sequence[Step]) -> None:
        at = self.at
        match step:
            case Matmul():
                matmul(at, step, now)
            case Attention():
                attention.attend(at, step, now)
            case LatentAttention():
                latent.attend(at, step, now)
            case Index():
                latent.index(at, step, now)
            case Scan():
                recurrent.scan(at, step, now)
            case Experts():
                experts.experts(at, step, now)
            case Exchange():
                experts.exchange(at, step, now)
            case Append():
                attention.append(at, step, now)
            case Pointwise():
                pointwise(at, step, now)
            case Collective():
                self._collective(step, now, later)
            case SendRecv():
                at.wires.send_on(at.get(step.tensor, now))

    def _collective(self, step: Collective, now: Pass, later: Sequence[Step]) -> None:
        for tensor in step.tensors:
            if tensor.role == "statistic":
                know(self.at, tensor, now, later)
        values = [self.at.get(tensor, now) for tensor in step.tensors]
        if step.looped and self.at.wires.mesh.size(step.axes) > 1 and _is_matmul(step.partner, later):
            for tensor, value in zip(step.tensors, values, strict=True):
                self.at.put(tensor, value, now)
            return  # its shards go round beside the matmul that uses them
        moved = exchange(step, values, now.dims, self.at.wires)
        for tensor, value in zip(step.results, moved, strict=True):
            self.at.put(tensor, value, now)


def _is_matmul(name: str | None, later: Sequence[Step]) -> bool:
    return any(isinstance(step, Matmul) and step.name == name for step in later)
