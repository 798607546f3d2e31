"""Feed-forward parts of a block, as data: dense, and mixtures of experts."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ..hardware_specs.errors import SpecError
from .strict import STRICT

Activation = Literal["gelu", "relu", "silu", "relu2"]


class DenseFfn(BaseModel):
    """Two matrices and an activation function between them, or three where one of them gates.

    Parameters
    ----------
    activation : `relu2` is the square of relu
    receptance : a square matrix gates what comes out, as in RWKV's channel mixing
    """

    model_config = STRICT
    kind: Literal["dense"] = "dense"
    d_ff: int = Field(gt=0)
    gated: bool
    activation: Activation
    receptance: bool = False


class ExpertsFfn(BaseModel):
    """A mixture of experts: each token goes through `n_experts_per_token` of them, and through the shared ones.

    Parameters
    ----------
    d_ff : of one expert; `d_ff_shared` of all shared experts together, 0 without
    d_latent : width the routed experts work in, between two projections all of them share; None for d_model
    shared_gate : a learned number scales what the shared experts give
    router_bias : one learned number an expert, added when they are chosen
    expert_bias : every expert's matrices add a bias
    capacity_factor : an expert takes this many times its even share of the tokens, the rest is dropped; None drops none

    References
    ----------
    [Fedus2021] section 2 (capacity), [Dai2024] shared and fine-grained experts.
    """

    model_config = STRICT
    kind: Literal["experts"] = "experts"
    n_experts: int = Field(gt=0)
    n_experts_per_token: int = Field(gt=0)
    d_ff: int = Field(gt=0)
    gated: bool
    activation: Activation
    d_ff_shared: int = Field(default=0, ge=0)
    d_latent: int | None = Field(default=None, gt=0)
    shared_gate: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    capacity_factor: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _enough_experts(self) -> "ExpertsFfn":
        if self.n_experts_per_token > self.n_experts:
            raise SpecError(f"n_experts_per_token={self.n_experts_per_token} is more than n_experts={self.n_experts}")
        return self


Ffn = DenseFfn | ExpertsFfn
