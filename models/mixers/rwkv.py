"""RWKV: a weighted average of values that decays by channel."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT
from .recurrent import Recurrence, Vector

# Channels that are cut over chips together: every channel is a head of its own.
_CHANNELS = 64
# What is kept of a channel: weighted sum, sum of the weights, largest exponent.
_KEPT = 3


class RwkvMixer(BaseModel):
    """The time mixing of RWKV-4.

    References
    ----------
    [Peng2023] section 3.
    """

    model_config = STRICT
    kind: Literal["rwkv"] = "rwkv"
    d_inner: int = Field(gt=0, multiple_of=_CHANNELS)

    def recurrence(self, d_model: int) -> Recurrence:
        """Receptance, key and value; mixing weights of the three with the last token, decay and first-token bonus."""
        return Recurrence(
            n_heads=self.d_inner // _CHANNELS,
            d_value=_CHANNELS,
            d_state=_KEPT,
            per_head=3 * _CHANNELS,
            last_token=d_model,
            vectors=(
                Vector(name="token mixing", size=3 * d_model),
                Vector(name="decay", size=_CHANNELS, per="H"),
                Vector(name="first", size=_CHANNELS, per="H"),
            ),
        )
