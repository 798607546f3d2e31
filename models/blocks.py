"""A block: a mixer and a feed-forward part, either of which may be missing; and how blocks follow each other."""

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from ..hardware_specs.errors import SpecError
from .feed_forward import DenseFfn, ExpertsFfn
from .mixers.attention import AttentionMixer
from .mixers.compressed import CompressedMixer
from .mixers.delta import DeltaMixer
from .mixers.latent import LatentMixer
from .mixers.linear import LinearMixer
from .mixers.mamba import Mamba2Mixer, MambaMixer
from .mixers.rwkv import RwkvMixer
from .strict import STRICT

RecurrentMixer = MambaMixer | Mamba2Mixer | DeltaMixer | LinearMixer | RwkvMixer
Mixer = AttentionMixer | LatentMixer | CompressedMixer | RecurrentMixer
RECURRENT = (MambaMixer, Mamba2Mixer, DeltaMixer, LinearMixer, RwkvMixer)


class Block(BaseModel):
    """One kind of block.

    Parameters
    ----------
    mixer, ffn : None where the block has none
    cross : attention over what an encoder read, between the two
    n_norms : norm layers that read d_model; None for as many as its model has in a block
    share : of the tokens of a pass that reach it, where those before it are pooled or dropped on the way
    n_other_params : that every token passes beside all of these: mixing of several residuals, per-layer embeddings, scales
    """

    model_config = STRICT
    mixer: Annotated[Mixer, Field(discriminator="kind")] | None = None
    ffn: Annotated[DenseFfn | ExpertsFfn, Field(discriminator="kind")] | None = None
    cross: AttentionMixer | None = None
    n_norms: int | None = Field(default=None, ge=0)
    share: float = Field(default=1.0, gt=0, le=1)
    n_other_params: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _does_something(self) -> "Block":
        if self.mixer is None and self.ffn is None:
            raise SpecError("a block needs a mixer or a feed-forward part")
        return self


class Layers(BaseModel):
    """Blocks one after the other by the names of their kinds, the whole row `repeat` times."""

    model_config = STRICT
    repeat: int = Field(default=1, gt=0)
    blocks: tuple[str, ...] = Field(min_length=1)
