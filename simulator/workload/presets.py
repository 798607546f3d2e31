"""Workloads by name: what one task of an application asks of a model, and the requests it becomes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ...hardware_specs.documents import read_yaml
from ...hardware_specs.errors import UnknownNameError
from .arrival import Arrival
from .gaps import ArrivalProcess
from .lengths import Lengths, LogNormal
from .synthetic import children_of, pairs_of

# Tokens of a block of a prompt that others may share.
_BLOCK = 16
# Of a full context, the part that stays when the rest is evicted (Packer2023 section 2.2).
_KEPT = 0.5


class Preset(BaseModel):
    """A kind of application.

    `branches` requests of a task are sent at once and share its prompt, `stages` of them follow each other, each with the
    answers before it in its prompt and `grows_by_tokens` more. The first `common_tokens` of every prompt are those of all
    tasks. What is retrieved comes first and is shared by branches unless each reads its own. A context of
    `window_tokens` loses half of what is not common when it is full.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    says: str
    source: str
    mean_input_tokens: float | None = Field(default=None, ge=1)
    mean_output_tokens: float | None = Field(default=None, ge=1)
    input_cv: float = Field(default=0.0, ge=0)
    output_cv: float = Field(default=0.0, ge=0)
    common_tokens: int = Field(default=0, ge=0)
    retrieved_tokens: int = Field(default=0, ge=0)
    shares_retrieved: bool = True
    encoder: str | None = None
    encoder_tokens: int = Field(default=0, ge=0)
    branches: int = Field(default=1, ge=1)
    stages: int = Field(default=1, ge=1)
    grows_by_tokens: int = Field(default=0, ge=0)
    window_tokens: int | None = Field(default=None, ge=1)
    unconditional: bool = False
    mask_s_per_element: float = Field(default=0.0, ge=0)

    @property
    def lengths(self) -> Lengths | None:
        """Lengths of a task's prompt and answer; None for those of the plan."""
        if self.mean_input_tokens is None or self.mean_output_tokens is None:
            return None
        return LogNormal(
            input_mean=self.mean_input_tokens,
            output_mean=self.mean_output_tokens,
            input_cv=self.input_cv,
            output_cv=self.output_cv,
        )

    @property
    def n_requests(self) -> int:
        """Requests that a task becomes."""
        return self.branches * self.stages * (2 if self.unconditional else 1)


@cache
def load_presets() -> dict[str, Preset]:
    """Every preset by its name."""
    text = (files(__package__) / "data" / "presets.yaml").read_text("utf-8")
    return {preset.name: preset for preset in TypeAdapter(tuple[Preset, ...]).validate_python(read_yaml(text))}


def get_preset(name: str) -> Preset:
    """Find a preset by name.

    Raises
    ------
    UnknownNameError : no such workload
    """
    if name not in load_presets():
        raise UnknownNameError("workload", name, load_presets())
    return load_presets()[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTraffic:
    """Tasks that come when they come, each as the requests it becomes.

    Parameters
    ----------
    n_tasks : of all requests, those of one task have its number
    delay_s : from a task to its first request: what an encoder takes
    """

    process: ArrivalProcess
    preset: Preset
    lengths: Lengths
    n_tasks: int
    delay_s: float = 0.0

    @property
    def n_requests(self) -> int:
        """Requests of all tasks."""
        return self.n_tasks * self.preset.n_requests

    def arrivals(self, seed: np.random.SeedSequence) -> Iterator[Arrival]:
        """The requests of one task after those of another, later stages right behind the first."""
        when, how_long = (np.random.default_rng(child) for child in children_of(seed, 2))
        times = islice(self.process.times_s(when), self.n_tasks)
        for task, (time_s, (n_in, n_out)) in enumerate(zip(times, pairs_of(self.lengths, how_long), strict=False)):
            yield from requests_of(self.preset, task, time_s, n_in, n_out, delay_s=self.delay_s)


def requests_of(
    preset: Preset, task: int, time_s: float, n_in: int, n_out: int, *, delay_s: float = 0.0
) -> Iterator[Arrival]:
    """The requests of one task of `n_in` tokens whose answers have `n_out` each."""
    prompt, epoch = n_in + preset.retrieved_tokens, 0
    for stage in range(preset.stages):
        waits_s = delay_s if stage == 0 else 0.0
        if preset.window_tokens is not None and prompt + n_out > preset.window_tokens:
            own = max(prompt - preset.common_tokens, 0)
            prompt, epoch = preset.common_tokens + max(round(own * _KEPT), 1), epoch + 1
        for branch in range(preset.branches):
            one_prompt = n_in + preset.retrieved_tokens if preset.shares_retrieved and not epoch else 0
            yield Arrival(
                arrival_s=time_s,
                input_tokens=prompt,
                output_tokens=n_out,
                block_hashes=_blocks(prompt, preset.common_tokens, one_prompt, (task, branch, epoch)),
                block_tokens=_BLOCK,
                task=task,
                stage=stage,
                delay_s=waits_s,
            )
            if preset.unconditional:
                yield Arrival(
                    arrival_s=time_s,
                    input_tokens=1,
                    output_tokens=n_out,
                    task=task,
                    stage=stage,
                    delay_s=waits_s,
                )
        prompt += n_out + preset.grows_by_tokens


def _blocks(prompt: int, common: int, one_prompt: int, key: tuple[int, int, int]) -> tuple[int, ...]:
    """Hashes of a prompt's whole blocks: those of all tasks, those of all branches of one, its own."""
    task, branch, epoch = key
    n, n_common, n_shared = prompt // _BLOCK, min(common, prompt) // _BLOCK, min(one_prompt, prompt) // _BLOCK
    of_task = (task + 1) << 40
    own = of_task + ((branch + 1) << 30) + (epoch << 24)
    return (
        *range(n_common),
        *(of_task + i for i in range(n_common, n_shared)),
        *(own + i for i in range(max(n_common, n_shared), n)),
    )
