"""What-if as a library call."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.errors import SpecError
from ...hardware_specs.html import html_table
from ...models.catalogue import get_model
from ...models.description import Model
from ...models.hf.sources import holds_config
from ...models.paths import path_of
from ..explain import read_result
from ..result import Objective, PlanResult
from ..version import __version__
from .answers import Cell, as_frame
from .evaluate import evaluate
from .question import Question, check_complete, freed, question_of_plan, questions
from .vary import Axis, n_points, parse_vary

if TYPE_CHECKING:
    import pandas as pd

# More points than this are answered once the user says so.
MANY_POINTS = 10_000
# What a notebook shows of each point, and of how many.
_SHOWN = ("n_chips", "prefill_layout", "decode_layout", "ttft_s", "tpot_s", "usd_per_mtok_output", "reason")
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Answers to a question with some of its figures varied, a row a point, the last axis running fastest.

    `columns` has the varied keys as they were written, then `answers.COLUMNS`; `digest` is a hash of all inputs.
    """

    question: Question
    objective: Objective
    axes: tuple[Axis, ...]
    columns: dict[str, list[Cell]]
    version: str
    digest: str
    wall_s: float

    @property
    def n_points(self) -> int:
        """Rows."""
        return len(self.columns["fits"])

    @property
    def n_fitting(self) -> int:
        """Rows that have a plan."""
        return sum(bool(fits) for fits in self.columns["fits"])

    def to_pandas(self) -> "pd.DataFrame":
        """One row a point."""
        return as_frame(self.columns)

    def _repr_html_(self) -> str:
        names = [*(axis.key for axis in self.axes), *_SHOWN]
        shown = list(zip(*(self.columns[name][:_MOST_SHOWN] for name in names), strict=True))
        rows = [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in shown]
        rest = f"; the first {_MOST_SHOWN}" if self.n_points > _MOST_SHOWN else ""
        return html_table(names, rows, f"{self.n_fitting:,} of {self.n_points:,} points have a plan{rest}")

    def rows(self) -> list[dict[str, Cell]]:
        """One mapping a point."""
        names = list(self.columns)
        return [dict(zip(names, cells, strict=True)) for cells in zip(*self.columns.values(), strict=True)]

    def document(self) -> dict[str, Any]:
        """Everything as JSON has it, in SI units."""
        return {
            "version": self.version,
            "digest": self.digest,
            "objective": self.objective,
            "question": plain_question(self.question),
            "axes": {axis.key: [value.text for value in axis.values] for axis in self.axes},
            "n_points": self.n_points,
            "n_fitting": self.n_fitting,
            "wall_s": self.wall_s,
            "rows": self.rows(),
        }


def what_if(
    base: str | Path | Model | PlanResult | Question,
    on: str | None = None,
    *,
    vary: Sequence[str],
    rank: int = 1,
    objective: Objective | None = None,
    yes: bool = False,
    **given: Any,
) -> WhatIf:
    """Ask one question again and again, and answer every variation.

    Parameters
    ----------
    base : model or its name, a plan or the file it was written to, or a whole `Question`
    on : pool, where `base` is a model
    vary : ``KEY=VALUE,...`` each; see `keys.KEYS`
    rank : which plan of a file
    objective : what the plan of each point is best at; ``cost`` with a limit, else ``latency``, as with a rate
    yes : answer more than `MANY_POINTS` points
    given : fields of `Question` that take the place of the base's

    Raises
    ------
    SpecError : what does not parse or is missing, and too many points
    """
    started = time.perf_counter()
    axes = parse_vary(vary)
    count = n_points(axes)
    if count > MANY_POINTS and not yes:
        factors = " x ".join(f"{len(axis.values):,} {axis.key}" for axis in axes)
        raise SpecError(f"{factors} = {count:,} points, more than {MANY_POINTS:,}; vary less, or pass --yes")
    question = freed(base_question(base, on, rank, given), axes)
    check_complete(question, axes)
    chosen = objective or _usual_objective(question, axes)
    asked = list(questions(question, axes))
    table = evaluate(asked, chosen)
    return WhatIf(
        question=question,
        objective=chosen,
        axes=axes,
        columns=_joined(_varied(axes, count), table.lists()),
        version=__version__,
        digest=_digest(question, axes, chosen),
        wall_s=time.perf_counter() - started,
    )


def base_question(
    base: str | Path | Model | PlanResult | Question, on: str | None, rank: int, given: Mapping[str, Any]
) -> Question:
    """What is varied: parameters as of `what_if`; fields given as None are the base's.

    Raises
    ------
    SpecError : no such model, file, plan or chip
    """
    if isinstance(base, Question):
        made = base
    elif isinstance(base, Model):
        made = Question(model=base)
    elif isinstance(base, PlanResult):
        made = question_of_plan(base, rank)
    elif is_file(base):
        made = question_of_plan(read_result(Path(base)), rank)
    else:
        found = get_model(str(base))
        made = Question(model=found.name if path_of(str(base)) is None else found)
    changes = {name: value for name, value in given.items() if value is not None}
    if on is not None:
        chip, _, shape = on.partition(":")
        changes |= {"hardware": get_chip(chip).name, "chips": shape.strip() or None}
    return replace(made, **changes)


def is_file(base: str | Path) -> bool:
    """Whether a what-if starts from a plan's file; those of models are none."""
    path = Path(base)
    if path.suffix in (".yaml", ".yml") or holds_config(path):
        return False
    return isinstance(base, Path) or base.endswith(".json") or path.is_file()


def _usual_objective(question: Question, axes: Sequence[Axis]) -> Objective:
    """Cost where a limit is given; with a rate all plans cost the same, so the quickest that carries it."""
    varied = {field for axis in axes for field in axis.values[0].sets}

    def has(field: str) -> bool:
        return field in varied or getattr(question, field) is not None

    return "cost" if (has("ttft_s") or has("tpot_s")) and not has("rate_per_s") else "latency"


def _varied(axes: Sequence[Axis], count: int) -> dict[str, list[Cell]]:
    """The varied keys as columns, the last axis running fastest."""
    columns: dict[str, list[Cell]] = {}
    before, after = 1, count
    for axis in axes:
        after //= len(axis.values)
        once: list[Cell] = [value.plain for value in axis.values for _ in range(after)]
        columns[axis.column] = once * before
        before *= len(axis.values)
    return columns


def _joined(varied: dict[str, list[Cell]], answers: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    """Varied keys first; an answer that only says what was asked is left out."""
    return varied | {name: column for name, column in answers.items() if name not in varied}


def plain_question(question: Question) -> dict[str, Any]:
    """A question as JSON has it, without what is left open."""
    said = {name: value for name, value in asdict(question).items() if value is not None and value is not False}
    return said | {"model": question.described.name}


def _digest(question: Question, axes: Sequence[Axis], objective: Objective) -> str:
    """A hash of everything the answers depend on but the package itself."""
    inputs = {
        "version": __version__,
        "objective": objective,
        "question": plain_question(question) | {"model": question.described.model_dump(mode="json")},
        "axes": [[axis.key, [value.text for value in axis.values]] for axis in axes],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]
