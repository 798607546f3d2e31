"""What reads the whole input, both ways, before a decoder begins."""

from collections import Counter

from pydantic import BaseModel, Field, model_validator

from ..hardware_specs.errors import SpecError
from .blocks import Block, Layers
from .strict import STRICT


class Encoder(BaseModel):
    """A stack of blocks as wide as its decoder, on the same embedding.

    Parameters
    ----------
    blocks, stack : as a model's
    n_learned_positions : rows of a learned position table of its own
    embedding_norm, final_norm : norms before and behind the stack
    """

    model_config = STRICT
    blocks: dict[str, Block] = Field(min_length=1)
    stack: tuple[Layers, ...] = Field(min_length=1)
    n_learned_positions: int = Field(default=0, ge=0)
    embedding_norm: bool = False
    final_norm: bool = True

    @model_validator(mode="after")
    def _holds_together(self) -> "Encoder":
        if unknown := sorted(set(self.layers) ^ set(self.blocks)):
            raise SpecError(f"an encoder's stack and its blocks differ: {unknown}")
        return self

    @property
    def layers(self) -> tuple[str, ...]:
        """The kind of every layer, the first one first."""
        return tuple(name for row in self.stack for name in row.blocks * row.repeat)

    @property
    def n_layers_of(self) -> Counter[str]:
        """Layers of each kind."""
        return Counter(self.layers)
