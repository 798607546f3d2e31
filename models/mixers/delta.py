"""Gated DeltaNet: a matrix a head, corrected by the error of its own prediction."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ...hardware_specs.errors import SpecError
from ..strict import STRICT
from .recurrent import Recurrence, Vector


class DeltaMixer(BaseModel):
    """Gated DeltaNet with more value heads than key heads.

    Parameters
    ----------
    n_heads, d_value : value heads
    n_key_heads, d_key : key heads, each of which serves several value heads
    d_squeezed : width that a decay a channel, and the output gate, are made through (Kimi Linear); 0 where a head has one decay
    wide_gate : the gate is projected at once all the same

    References
    ----------
    [Yang2024] section 3.
    """

    model_config = STRICT
    kind: Literal["delta"] = "delta"
    n_heads: int = Field(gt=0)
    d_value: int = Field(gt=0)
    n_key_heads: int = Field(gt=0)
    d_key: int = Field(gt=0)
    d_conv: int = Field(default=4, gt=0)
    d_squeezed: int = Field(default=0, ge=0)
    wide_gate: bool = False

    @model_validator(mode="after")
    def _a_decay_a_channel(self) -> "DeltaMixer":
        if self.d_squeezed and self.d_key != self.d_value:
            raise SpecError(
                f"a decay a channel is as wide as key and value, not d_key={self.d_key}, d_value={self.d_value}"
            )
        return self

    def recurrence(self, d_model: int) -> Recurrence:
        """Value, gate, write strength and decay a value head; query and key a key head; decay and its bias are vectors."""
        at_once = self.wide_gate or not self.d_squeezed
        gate_and_decay = at_once * self.d_value + (0 if self.d_squeezed else 1)
        return Recurrence(
            n_heads=self.n_heads,
            d_value=self.d_value,
            d_state=self.d_key,
            per_head=self.d_value + 1 + gate_and_decay,
            n_groups=self.n_key_heads,
            per_group=2 * self.d_key,
            squeezed=(1 if at_once else 2) * self.d_squeezed,
            convolved_per_head=self.d_value,
            convolved_per_group=2 * self.d_key,
            d_conv=self.d_conv,
            vectors=(
                Vector(name="convolution", size=self.d_value * self.d_conv, per="H"),
                Vector(name="convolution of groups", size=2 * self.d_key * self.d_conv, per="K"),
                Vector(name="decay", size=1, per="H"),
                Vector(name="bias of step", size=self.d_value if self.d_squeezed else 1, per="H"),
                Vector(name="norm of out", size=self.d_value),
            ),
        )
