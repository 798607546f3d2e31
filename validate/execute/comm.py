"""The wires of one rank: process groups along mesh axes, whatever backend carries them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from typing import Protocol

import torch
import torch.distributed as dist

from ...models.forms import AXES

STAGES = "pp"
# torch 2.13 renamed them; older ones know the old names alone
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshShape:
    """Replicas, pipeline stages, and the axes x, y, z of a stage; ranks are numbered in this order, z fastest."""

    axes: Mapping[str, int]
    pp: int = 1
    dp: int = 1

    @property
    def tp(self) -> int:
        """Chips of one stage."""
        return prod(self.axes.values())

    @property
    def n_ranks(self) -> int:
        """All chips."""
        return self.dp * self.pp * self.tp

    def place(self, rank: int) -> dict[str, int]:
        """Coordinates of a rank, by axis, with its stage and its replica."""
        found = {}
        for name, size in reversed(list(self._sizes().items())):
            rank, found[name] = divmod(rank, size)
        return found

    def rank(self, place: Mapping[str, int]) -> int:
        """The rank at some coordinates."""
        number = 0
        for name, size in self._sizes().items():
            number = number * size + place[name]
        return number

    def size(self, axes: tuple[str, ...]) -> int:
        """Chips along some axes of a stage."""
        return prod(self.axes[axis] for axis in axes)

    def index(self, place: Mapping[str, int], axes: tuple[str, ...]) -> int:
        """Where the chip at `place` stands among those along `axes`."""
        number = 0
        for axis in axes:
            number = number * self.axes[axis] + place[axis]
        return number

    def _sizes(self) -> dict[str, int]:
        return {"dp": self.dp, STAGES: self.pp} | {axis: self.axes[axis] for axis in AXES}


class Request(Protocol):
    """Something on its way."""

    def wait(self) -> object:
        """Until it is there."""
        ...


class Wires(Protocol):
    """Collectives of one rank over groups of mesh axes; axes in the order x, y, z."""

    mesh: MeshShape
    place: dict[str, int]
    names: dict[str, str]

    def all_gather(self, axes: tuple[str, ...], value: torch.Tensor) -> torch.Tensor:
        """[n] of every chip, stacked: [group, n]."""
        ...

    def reduce_scatter(self, axes: tuple[str, ...], stacked: torch.Tensor) -> torch.Tensor:
        """The sum over the group of each chip's piece: [group, n] -> [n]."""
        ...

    def all_reduce(self, axes: tuple[str, ...], value: torch.Tensor) -> torch.Tensor:
        """The sum over the group."""
        ...

    def all_to_all(self, axes: tuple[str, ...], stacked: torch.Tensor) -> torch.Tensor:
        """Piece i goes to chip i: [group, n] -> [group, n] by sender."""
        ...

    def all_to_all_rows(
        self, axes: tuple[str, ...], rows: torch.Tensor, sent: list[int], got: list[int]
    ) -> torch.Tensor:
        """The next `sent` rows go to each chip, `got` come from each: [n, ...] -> [m, ...]."""
        ...

    def shift(self, axes: tuple[str, ...], value: torch.Tensor) -> tuple[torch.Tensor, Sequence[Request]]:
        """Start to hand `value` to the chip before in the ring along `axes` and to take that of the one after."""
        ...

    def send_on(self, value: torch.Tensor) -> None:
        """Hand a tensor to the next pipeline stage."""
        ...

    def receive(self, like: torch.Tensor) -> torch.Tensor:
        """Take a tensor from the stage before."""
        ...


class GroupWires:
    """Wires of torch's process groups.

    Every chip has one group for each set of axes; those of one chip are left out, as nothing crosses them.
    """

    def __init__(self, mesh: MeshShape, rank: int) -> None:
        self.mesh, self.rank, self.place = mesh, rank, mesh.place(rank)
        self._groups: dict[tuple[str, ...], dist.ProcessGroup] = {}
        self.names: dict[str, str] = {}
        for n in range(1, len(AXES) + 1):
            for axes in combinations(AXES, n):
                self._make_groups(axes)

    def all_gather(self, axes: tuple[str, ...], value: torch.Tensor) -> torch.Tensor:
        """See `Wires`."""
        found = value.new_empty((self.mesh.size(axes), *value.shape))
        _all_gather(found.flatten(0, 1), value.contiguous(), group=self._groups[axes])
        return found

    def reduce_scatter(self, axes: tuple[str, ...], stacked: torch.Tensor) -> torch.Tensor:
        """See `Wires`."""
        found = stacked.new_empty(stacked.shape[1:])
        _reduce_scatter(found, stacked.contiguous().flatten(0, 1), group=self._groups[axes])
        return found

    def all_reduce(self, axes: tuple[str, ...], value: torch.Tensor) -> torch.Tensor:
        """See `Wires`."""
        found = value.clone()
        dist.all_reduce(found, group=self._groups[axes])
        return found

    def all_to_all(self, axes: tuple[str, ...], stacked: torch.Tensor) -> torch.Tensor:
        """See `Wires`."""
        found = torch.empty_like(stacked, memory_format=torch.contiguous_format)
        dist.all_to_all_single(found, stacked.contiguous(), group=self._groups[axes])
        return found

    def all_to_all_rows(
        self, axes: tuple[str, ...], rows: torch.Tensor, sent: list[int], got: list[int]
    ) -> torch.Tensor:
        """See `Wires`."""
        found = rows.new_empty((sum(got), *rows.shape[1:]))
        dist.all_to_all_single(found, rows.contiguous(), got, sent, group=self._groups[axes])
        return found

    def shift(self, axes: tuple[str, ...], value: torch.Tensor) -> tuple[torch.Tensor, Sequence[Request]]:
        """See `Wires`."""
        found, group = torch.empty_like(value), self._groups[axes]
        n, me = self.mesh.size(axes), self.mesh.index(self.place, axes)
        before, after = (dist.get_global_rank(group, (me + step) % n) for step in (-1, 1))
        if value.device.type != "cuda":
            sent, got = dist.isend(value, before, group), dist.irecv(found, after, group)
            return found, [request for request in (sent, got) if request is not None]
        # NCCL hangs where a ring's sends and receives do not start together
        requests = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, value, before, group), dist.P2POp(dist.irecv, found, after, group)]
        )
        return found, requests

    def send_on(self, value: torch.Tensor) -> None:
        """See `Wires`."""
        dist.send(value.contiguous(), self._neighbour(+1))

    def receive(self, like: torch.Tensor) -> torch.Tensor:
        """See `Wires`."""
        dist.recv(like, self._neighbour(-1))
        return like

    def _neighbour(self, step: int) -> int:
        return self.mesh.rank(self.place | {STAGES: self.place[STAGES] + step})

    def _make_groups(self, axes: tuple[str, ...]) -> None:
        """All chips make all groups, in one order; each keeps its own."""
        if self.mesh.size(axes) == 1:
            return
        fixed = [name for name in ("dp", STAGES, *AXES) if name not in axes]
        sizes = {"dp": self.mesh.dp, STAGES: self.mesh.pp} | dict(self.mesh.axes)
        for outside in product(*(range(sizes[name]) for name in fixed)):
            ranks = [
                self.mesh.rank(dict(zip(fixed, outside, strict=True)) | dict(zip(axes, inside, strict=True)))
                for inside in product(*(range(sizes[axis]) for axis in axes))
            ]
            group = dist.new_group(ranks)
            if self.rank in ranks:
                self._groups[axes] = group
                self.names[group.group_name] = "".join(axes)
