"""What a rank has in hand during a pass: local tensors with their forms, and where it is in the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...models.forms import Form
from ...models.program import BlockProgram
from .cache import LayerState
from .shards import Dimensions


@dataclass(slots=True)
class Value:
    """A local tensor and how it lies; copies lead its dimensions."""

    data: torch.Tensor
    form: Form


@dataclass(slots=True, kw_only=True)
class Routing:
    """Which experts each local token goes to, and how much each counts: [B, L, experts a token]."""

    experts: torch.Tensor
    weights: torch.Tensor


@dataclass(slots=True, kw_only=True)
class Dispatched:
    """Rows that came from other chips for this chip's experts, and how to send back what becomes of them.

    Parameters
    ----------
    rows : [n, E], by sender and then by expert
    counts : [senders, local experts] rows of each
    order : which copy of a token each row that was sent is
    sent, got : rows sent to each chip, and got from each
    """

    rows: torch.Tensor
    counts: torch.Tensor
    order: torch.Tensor
    sent: list[int]
    got: list[int]


@dataclass(slots=True, kw_only=True)
class Pass:
    """One forward pass of a micro-batch.

    Parameters
    ----------
    tokens : [B, L] of the whole micro-batch
    sequences : [B] their places in the run's whole batch
    past : tokens already in the cache
    dims_of : lengths and digits in each kind of block; at the ends under no name
    dims, block, state : of the block that runs now; no block at the ends
    scores, least : [B, L, local slots] of an indexer's keys, and [B, L, 1] the least that is read; of the last indexer, for
        layers that have none of their own, too
    """

    tokens: torch.Tensor
    sequences: torch.Tensor
    past: int
    dims_of: Mapping[str, Dimensions]
    held: dict[str, Value] = field(default_factory=dict)
    block: BlockProgram | None = None
    state: LayerState = field(default_factory=dict)
    routing: Routing | None = None
    dispatched: Dispatched | None = None
    scores: torch.Tensor | None = None
    least: torch.Tensor | None = None

    @property
    def dims(self) -> Dimensions:
        """Of what runs now."""
        return self.dims_of[self.block.kind if self.block else ""]

    @property
    def running(self) -> BlockProgram:
        """The block that runs now."""
        assert self.block is not None
        return self.block

    @property
    def stop(self) -> int:
        """Tokens of each sequence once the pass is over."""
        return self.past + self.tokens.shape[1]

    @property
    def positions(self) -> torch.Tensor:
        """Positions of the new tokens."""
        return torch.arange(self.past, self.stop, device=self.tokens.device)
