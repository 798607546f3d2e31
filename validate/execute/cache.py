"""What one layer keeps of its sequences on one chip: a cache that grows with them, contiguous or in pages, or a state."""

from copy import copy
from typing import Self

import torch

from ...models.forms import Form
from .formats import narrowed


class Cache:
    """Numbers of `n_slots` positions of each sequence, in pages of `page_size` dealt out in random order.

    A page size of 1 is one contiguous run a sequence. Where fewer slots than positions are kept, the newest take the place
    of the oldest.

    Parameters
    ----------
    shape : of what one position leaves, behind its `copies`
    is_dealt : other chips hold the positions between
    """

    def __init__(
        self, n_sequences: int, n_slots: int, shape: tuple[int, ...], *, copies: int, page_size: int, dtype: torch.dtype,
        device: torch.device, is_dealt: bool = False,
    ) -> None:  # fmt: skip
        pages = -(-n_slots // page_size)
        self.page_size, self.is_dealt, self.n_slots = page_size, is_dealt, n_slots
        held = (n_sequences, n_slots) if page_size == 1 else (n_sequences * pages, page_size)
        self.memory = torch.zeros((copies, *held, *shape), dtype=dtype, device=device)
        order = torch.randperm(n_sequences * pages, generator=torch.Generator().manual_seed(0))
        self.table = order.view(n_sequences, pages).to(device)

    def part(self, number: int, n_parts: int) -> Self:
        """The same memory, seen by one of equal parts of the sequences."""
        if n_parts == 1:
            return self
        seen = copy(self)
        seen.table = self.table.chunk(n_parts)[number]
        if self.page_size == 1:
            seen.memory = self.memory.chunk(n_parts, 1)[number]
        return seen

    def write(self, new: torch.Tensor, slots: torch.Tensor) -> None:
        """Put `new` [copies, B, L, ...] into `slots` [L] of every sequence."""
        if self.page_size == 1:
            self.memory[:, :, slots] = narrowed(new, self.memory.dtype)
            return
        pages = self.table[:, slots // self.page_size]
        self.memory[:, pages, slots % self.page_size] = narrowed(new, self.memory.dtype)

    def read(self, n_slots: int) -> torch.Tensor:
        """The first `n_slots` positions of every sequence, [copies, B, n_slots, ...]."""
        if self.page_size == 1:
            return self.memory[:, :, :n_slots]
        pages = self.table[:, : -(-n_slots // self.page_size)]
        return self.memory[:, pages].flatten(2, 3)[:, :, :n_slots]


class State:
    """What is kept of each sequence whatever its length, [B, ...]; zeros before its first token."""

    def __init__(self, shape: tuple[int, ...], form: Form, *, dtype: torch.dtype, device: torch.device) -> None:
        self.memory, self.form = torch.zeros(shape, dtype=dtype, device=device), form
        self._rows: torch.Tensor | None = None

    def part(self, rows: torch.Tensor) -> Self:
        """The same memory, seen by some of the sequences this chip has."""
        seen = copy(self)
        seen._rows = rows.to(self.memory.device)
        return seen

    def read(self) -> torch.Tensor:
        """What is kept of these sequences."""
        return self.memory if self._rows is None else self.memory[self._rows]

    def write(self, new: torch.Tensor) -> None:
        """Replace what is kept."""
        if self._rows is None:
            self.memory.copy_(new)
        else:
            self.memory[self._rows] = new.to(self.memory.dtype)


LayerState = dict[str, Cache | State]
