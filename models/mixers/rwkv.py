"""RWKV: a weighted average of values that decays by channel."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT
from .recurrent import Recurrence

# Channels that are cut over chips together: every channel is a head of its own.
_CHANNELS = 64
# What is kept of a channel: the two last tokens (of the mixer and of the feed-forward part), sum, weight and largest exponent.
_KEPT = 5


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
            n_vector_params=3 * d_model + 2 * self.d_inner,
        )
