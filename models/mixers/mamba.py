"""Selective state spaces: Mamba and Mamba-2."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT
from .recurrent import Recurrence

# Channels that are cut over chips together, where every channel is a head of its own.
_CHANNELS = 64


class MambaMixer(BaseModel):
    """Mamba: every channel has a state of `d_state` numbers; step size, B and C come from the token.

    Parameters
    ----------
    dt_rank : width the step size is made through
    inner_norms : norms on step size, B and C (Jamba)

    References
    ----------
    [Gu2023] section 3.
    """

    model_config = STRICT
    kind: Literal["mamba"] = "mamba"
    d_inner: int = Field(gt=0, multiple_of=_CHANNELS)
    d_state: int = Field(gt=0)
    dt_rank: int = Field(gt=0)
    d_conv: int = Field(default=4, gt=0)
    conv_bias: bool = True
    proj_bias: bool = False
    inner_norms: bool = False

    def recurrence(self, d_model: int) -> Recurrence:
        """Input and gate a channel; step size (its bias too), decay a state, skip a channel."""
        vectors = self.d_inner * (self.d_conv + self.conv_bias + 1 + self.d_state + 1)
        vectors += self.proj_bias * (2 * self.d_inner + d_model)
        vectors += self.inner_norms * (self.dt_rank + 2 * self.d_state)
        return Recurrence(
            n_heads=self.d_inner // _CHANNELS,
            d_value=_CHANNELS,
            d_state=self.d_state,
            per_head=2 * _CHANNELS,
            low_rank=self.dt_rank + 2 * self.d_state,
            widened=self.dt_rank,
            n_convolved=self.d_inner,
            d_conv=self.d_conv,
            n_vector_params=vectors,
        )


class Mamba2Mixer(BaseModel):
    """Mamba-2: heads share one decay; B and C are shared by groups of heads.

    References
    ----------
    [Dao2024] section 7.
    """

    model_config = STRICT
    kind: Literal["mamba2"] = "mamba2"
    n_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    d_state: int = Field(gt=0)
    n_groups: int = Field(gt=0)
    d_conv: int = Field(default=4, gt=0)
    conv_bias: bool = True
    proj_bias: bool = False

    def recurrence(self, d_model: int) -> Recurrence:
        """Input, gate and step size a head; B and C a group; decay, skip and step bias a head; a norm before the way out."""
        inner, grouped = self.n_heads * self.d_head, 2 * self.n_groups * self.d_state
        vectors = (inner + grouped) * (self.d_conv + self.conv_bias) + 3 * self.n_heads + inner
        vectors += self.proj_bias * (2 * inner + grouped + self.n_heads + d_model)
        return Recurrence(
            n_heads=self.n_heads,
            d_value=self.d_head,
            d_state=self.d_state,
            per_head=2 * self.d_head + 1,
            n_groups=self.n_groups,
            per_group=2 * self.d_state,
            n_convolved=inner + grouped,
            d_conv=self.d_conv,
            n_vector_params=vectors,
        )
