"""The KV cache of one layer on one chip, contiguous or in pages."""

from copy import copy
from typing import Self

import torch

from .formats import narrowed


class Cache:
    """Keys and values of `n_slots` positions of each sequence, in pages of `page_size` dealt out in random order.

    A page size of 1 is one contiguous run a sequence. `is_dealt` says that other chips hold the positions between.
    """

    def __init__(
        self, n_sequences: int, n_slots: int, n_heads: int, d_head: int, *, page_size: int, dtype: torch.dtype,
        device: torch.device, is_dealt: bool = False,
    ) -> None:  # fmt: skip
        pages = -(-n_slots // page_size)
        self.page_size, self.is_dealt = page_size, is_dealt
        shape = (2, n_sequences * pages, page_size, n_heads, d_head)
        if page_size == 1:
            shape = (2, n_sequences, n_slots, n_heads, d_head)
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
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
        """Put `new` [2, B, L, K, Q] into `slots` [L] of every sequence."""
        if self.page_size == 1:
            self.memory[:, :, slots] = narrowed(new, self.memory.dtype)
            return
        pages = self.table[:, slots // self.page_size]
        self.memory[:, pages, slots % self.page_size] = narrowed(new, self.memory.dtype)

    def read(self, n_slots: int) -> torch.Tensor:
        """The first `n_slots` positions of every sequence, [2, B, n_slots, K, Q]."""
        if self.page_size == 1:
            return self.memory[:, :, :n_slots]
        pages = self.table[:, : -(-n_slots // self.page_size)]
        return self.memory[:, pages].flatten(2, 3)[:, :, :n_slots]
