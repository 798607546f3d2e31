"""A crossover as values: curves, and published claims beside what is predicted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...models.description import Model
from ...validate.published import CrossoverClaim, load_crossover_claims
from ..api import estimate
from ..result import PhasePlan

Judgement = Literal["holds", "order only", "differs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A published claim and what is predicted of it.

    Parameters
    ----------
    ours : the number the claim gives, by our count; or what its order is judged by, as its `measure` says
    judgement : whether it is the claim's; ``order only`` where what is larger is, by another factor
    """

    claim: CrossoverClaim
    ours: float
    judgement: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """Curves over one quantity.

    Parameters
    ----------
    x, y : what the axes show, with units
    curves : by name, y by x; a point that does not fit is missing
    setting : chips, batch, formats, and how it was priced
    """

    name: str
    title: str
    setting: str
    x: str
    y: str
    curves: Mapping[str, Mapping[float, float]]
    checks: tuple[Check, ...]


def check(claim_id: str, ours: float, *, tolerance: float = 0.0, order: bool | None = None) -> Check:
    """A claim judged by its own number, `tolerance` of it to either side, else by whether the `order` is as it says."""
    claim = load_crossover_claims()[claim_id]
    judgement: Judgement = "holds" if order else "differs"
    if claim.low is not None and claim.high is not None:
        near = claim.low * (1.0 - tolerance) <= ours <= claim.high * (1.0 + tolerance)
        judgement = "holds" if near else "order only" if order else "differs"
    return Check(claim=claim, ours=ours, judgement=judgement)


def decode_phase(
    model: str | Model,
    on: str,
    *,
    batch: int,
    context: int,
    weights: str | None = None,
    layout: str | None = None,
    bound: bool = True,
) -> PhasePlan | None:
    """A decode step at a context, in one layout or the best; None where it does not fit."""
    result = estimate(
        model,
        on,
        input_tokens=context,
        output_tokens=1,
        prefill_batch=1,
        decode_batch=batch,
        prefill=layout,
        decode=layout,
        weights=weights,
        bound=bound,
    )
    return result.plans[0].decode if result.plans else None
