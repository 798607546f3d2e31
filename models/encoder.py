"""What reads the whole input, both ways, before a decoder begins."""

from pydantic import BaseModel, Field

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

    @property
    def layers(self) -> tuple[str, ...]:
        """The kind of every layer, the first one first."""
        return tuple(name for row in self.stack for name in row.blocks * row.repeat)
