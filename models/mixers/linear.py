"""Attention without a softmax: queries and keys pass a feature map, so that the past is one matrix a head."""

from typing import Literal

from pydantic import BaseModel, Field

from ..strict import STRICT
from .recurrent import Recurrence, Vector


class LinearMixer(BaseModel):
    """Linear attention.

    Parameters
    ----------
    d_feature : numbers a query or key becomes; `d_head` for an elementwise map, more for random features

    References
    ----------
    [Katharopoulos2020] section 3.2; [Choromanski2020] random features.
    """

    model_config = STRICT
    kind: Literal["linear"] = "linear"
    n_heads: int = Field(gt=0)
    d_head: int = Field(gt=0)
    d_feature: int = Field(gt=0)
    bias: bool = False

    def recurrence(self, d_model: int) -> Recurrence:
        """Query, key and value a head; the state has one row a feature, and the sum of the keys as one column more."""
        return Recurrence(
            n_heads=self.n_heads,
            d_value=self.d_head,
            d_state=self.d_feature,
            per_head=3 * self.d_head,
            keeps_sums=True,
            vectors=self.bias
            * (Vector(name="bias of heads", size=3 * self.d_head, per="H"), Vector(name="bias of o", size=d_model)),
        )
