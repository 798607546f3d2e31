"""A measured run beside its prediction: the figures, and what to calibrate where they part."""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict

from .result import PhasePlan

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
# Two times that are off by factors within this part of each other are off by one factor.
_ALIKE = 0.15


class CheckedFigure(BaseModel):
    """One figure, measured and predicted.

    `low` and `high` are the predicted interval, `high` None where the plan is a bound; seconds or per second. `judged` says
    whether it counts: rates of open traffic are the traffic's own, and far percentiles of few requests are chance.
    """

    model_config = _STRICT
    name: str
    statistic: str
    word: str
    definition: str
    measured: float
    predicted: float
    low: float
    high: float | None
    judged: bool

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted

    @property
    def is_inside(self) -> bool:
        """Whether the measured figure lies in the interval."""
        return self.low <= self.measured and (self.high is None or self.measured <= self.high)


class CheckedRun(BaseModel):
    """A measured run beside its prediction.

    `traffic` says what was simulated, `advice` what to calibrate and how.
    """

    model_config = _STRICT
    tool: str
    version: str | None
    model: str | None
    requests: int
    traffic: str
    figures: tuple[CheckedFigure, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_inside(self) -> bool:
        """Whether every judged figure lies in its interval."""
        return all(figure.is_inside for figure in self.figures if figure.judged)

    @property
    def mean_error(self) -> float | None:
        """Mean of abs(predicted / measured - 1) over the judged figures; None where none is."""
        errors = [abs(1.0 / figure.ratio - 1.0) for figure in self.figures if figure.judged]
        return sum(errors) / len(errors) if errors else None

    def document(self) -> dict[str, Any]:
        """As JSON has it, with what follows from the fields."""
        made: dict[str, Any] = self.model_dump()
        for row, figure in zip(made["figures"], self.figures, strict=True):
            row |= {"ratio": figure.ratio, "inside": figure.is_inside}
        return made | {"inside": self.is_inside, "mean_error": self.mean_error}


def advice(figures: tuple[CheckedFigure, ...], phases: tuple[PhasePlan, ...], *, can_replay: bool) -> tuple[str, ...]:
    """What to calibrate, in sentences that name the command; none where every judged figure lies inside."""
    outside = [figure for figure in figures if figure.judged and not figure.is_inside]
    if not outside:
        return ()
    ratios = {figure.name: figure.ratio for figure in figures if figure.statistic == "mean"}
    decode = next((ratios[name] for name in ("tpot", "itl", "ntpot") if name in ratios), None)
    prefill, said = ratios.get("ttft"), []
    names = {figure.name for figure in outside}
    chip, engine = phases[-1].chip, phases[-1].engine
    if (
        prefill is not None
        and decode is not None
        and (prefill - 1.0) * (decode - 1.0) < 0
        and names & {"ttft", "tpot", "itl"}
    ):
        said.append(
            f"TTFT is {prefill:.2f} and the time a token {decode:.2f} times the prediction: errors of opposite sign, so an e2e "
            "that looks right says nothing"
        )
    decodes = bool(names & {"tpot", "itl", "ntpot"})
    alike = prefill is not None and decode is not None and abs(math.log(prefill / decode)) < _ALIKE
    if decode is not None and alike and decodes and "ttft" in names:
        said.append(_one_factor(decode, engine, can_replay=can_replay))
    elif names <= {"ttft"}:
        said.append(
            "only TTFT is off: prompts wait or are read in other passes than simulated; compare "
            "--max-num-batched-tokens and the scheduler with the plan's, then prefill attention and matmuls of the fit"
        )
    elif decodes and "ttft" not in names:
        said.append(f"decode is off: attention over the cache, small matmuls, or the host time a pass of {engine}")
    sources = {step.source for phase in phases for step in phase.breakdown}
    if "extrapolated" in sources and all(phase.users_own is None for phase in phases):
        said.append(
            f"part of the prediction is borrowed from other chips or engines: `shardwise calibrate --device cuda` on one {chip} "
            "measures its kernels, and later plans use them"
        )
    said.append(
        f"engines are fitted to tables of runs: add this one and `shardwise calibrate --from engines` fits {engine} anew"
    )
    return tuple(said)


def _one_factor(factor: float, engine: str, *, can_replay: bool) -> str:
    how = (
        "`shardwise simulate PLAN.json --trace RESULTS --fit-steps` fits it to the requests"
        if can_replay
        else f"`shardwise simulate PLAN.json --step-scale {factor:.3g}` simulates with it"
    )
    return f"every pass of {engine} takes about {factor:.2f} times what is predicted, one factor: {how}"
