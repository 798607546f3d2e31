"""Selective state spaces: Mamba and Mamba-2."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT
from .recurrent import Recurrence, Vector

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
        vectors = [Vector(name="convolution", size=_CHANNELS * self.d_conv, per="H")]
        if self.conv_bias:
            vectors.append(Vector(name="bias of convolution", size=_CHANNELS, per="H"))
        vectors += [
            Vector(name="bias of step", size=_CHANNELS, per="H"),
            Vector(name="decay", size=_CHANNELS * self.d_state, per="H"),
            Vector(name="skip", size=_CHANNELS, per="H"),
        ]
        if self.proj_bias:
            vectors += [
                Vector(name="bias of heads", size=2 * _CHANNELS, per="H"),
                Vector(name="bias of o", size=d_model),
            ]
        if self.inner_norms:
            vectors += [
                Vector(name="norm of step", size=self.dt_rank),
                Vector(name="norm of select", size=2 * self.d_state),
            ]
        return Recurrence(
            n_heads=self.d_inner // _CHANNELS,
            d_value=_CHANNELS,
            d_state=self.d_state,
            per_head=2 * _CHANNELS,
            low_rank=self.dt_rank + 2 * self.d_state,
            widened=self.dt_rank,
            convolved_per_head=_CHANNELS,
            d_conv=self.d_conv,
            vectors=tuple(vectors),
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
        vectors = [
            Vector(name="convolution", size=self.d_head * self.d_conv, per="H"),
            Vector(name="convolution of groups", size=2 * self.d_state * self.d_conv, per="K"),
        ]
        if self.conv_bias:
            vectors.append(Vector(name="bias of convolution", size=self.d_head, per="H"))
            vectors.append(Vector(name="bias of convolution of groups", size=2 * self.d_state, per="K"))
        vectors += [Vector(name=name, size=1, per="H") for name in ("bias of step", "decay", "skip")]
        vectors.append(Vector(name="norm of out", size=self.d_head, per="H"))
        if self.proj_bias:
            vectors += [
                Vector(name="bias of heads", size=2 * self.d_head + 1, per="H"),
                Vector(name="bias of groups", size=2 * self.d_state, per="K"),
                Vector(name="bias of o", size=d_model),
            ]
        return Recurrence(
            n_heads=self.n_heads,
            d_value=self.d_head,
            d_state=self.d_state,
            per_head=2 * self.d_head + 1,
            n_groups=self.n_groups,
            per_group=2 * self.d_state,
            convolved_per_head=self.d_head,
            convolved_per_group=2 * self.d_state,
            d_conv=self.d_conv,
            vectors=tuple(vectors),
        )
