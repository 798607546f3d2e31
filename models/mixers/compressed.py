"""Attention over a window of tokens and over compressed entries, each of which stands for several tokens."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT
from .latent import Indexer


class CompressedMixer(BaseModel):
    """One key-value vector a token, kept for a window; beyond it, one entry for every `ratio` tokens.

    Parameters
    ----------
    d_head : of one query head, and of the one vector that is key and value
    q_rank : width of the compressed query
    o_groups, o_rank : what comes out is squeezed to `o_rank` numbers a group of heads before it is projected
    window : tokens whose own vectors a query meets
    ratio : tokens an entry stands for; None where there is the window alone
    overlapping : an entry also weighs the tokens of the entry before it, through projections twice as wide
    indexer : picks the entries a query meets; None for all

    References
    ----------
    [Transformers2026] models/deepseek_v4.
    """

    model_config = STRICT
    kind: Literal["compressed"] = "compressed"
    n_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    q_rank: int = Field(gt=0)
    o_groups: int = Field(gt=0)
    o_rank: int = Field(gt=0)
    window: int = Field(gt=0)
    ratio: int | None = Field(default=None, gt=0)
    overlapping: bool = False
    indexer: Indexer | None = None

    def cached_elements(self, past_tokens: float) -> float:
        """Numbers one token more leaves in the cache: its own vector until the window is full, and its part of an entry."""
        own = self.d_head if past_tokens < self.window else 0
        return own if self.ratio is None else own + self.d_head / self.ratio

    @property
    def index_elements(self) -> float:
        """Numbers one token leaves in the cache of the indexer."""
        return self.indexer.d_head / self.ratio if self.indexer and self.ratio else 0.0

    def _wide(self, width: int) -> int:
        """What an entry is made through."""
        return width * (2 if self.overlapping else 1)

    def _compressor_vectors(self, width: int) -> int:
        """An offset a place of an entry, and a norm."""
        return (self.ratio or 0) * self._wide(width) + width

    @property
    def n_vector_params(self) -> int:
        """Norms of query and key-value vector, sinks, offsets and norms of what compresses."""
        total = self.q_rank + self.d_head + self.n_heads
        if self.ratio is not None:
            total += self._compressor_vectors(self.d_head)
        return total + (self._compressor_vectors(self.indexer.d_head) if self.indexer else 0)

    def n_params(self, d_model: int) -> int:
        """Elements of all projections, norms, sinks, and of what compresses and picks."""
        out = self.n_heads * self.d_head
        total = self.q_rank * (d_model + out) + self.d_head * d_model
        total += out * self.o_rank + self.o_groups * self.o_rank * d_model
        if self.ratio is not None:
            total += 2 * d_model * self._wide(self.d_head)
        if self.indexer is not None:
            picked = self.indexer
            total += 2 * d_model * self._wide(picked.d_head)
            total += picked.n_heads * (self.q_rank * picked.d_head + d_model)
        return total + self.n_vector_params
