"""Which figure of the hardware, the workload or the model moves an answer most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..models.description import Model
from .result import PlanResult
from .whatif.evaluate import evaluate
from .whatif.keys import Change
from .whatif.question import Question, question_of_plan

LESS, MORE = 0.8, 1.25
_HARDWARE = {
    "flops": "dense peak",
    "hbm_bandwidth": "HBM bandwidth",
    "link": "links in the domain",
    "network": "network between nodes",
}
_WORKLOAD = {"input_tokens": "input tokens", "output_tokens": "output tokens"}
_MODEL = {"n_layers": "layers", "d_ff": "d_ff", "vocab_size": "vocabulary"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """A figure and the answer with less and with more of it; None where nothing fits then.

    `less` and `more` say what the figure was taken to be.
    """

    figure: str
    kind: str
    less: str
    more: str
    less_value: float | None
    more_value: float | None

    def reach(self, base: float) -> float:
        """How far the answer moves, either way."""
        return max((abs(v - base) for v in (self.less_value, self.more_value) if v is not None), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivities:
    """The answer as it stands, and what moves it, most first."""

    base: float
    measure: str
    rows: tuple[Sensitivity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One figure turned down and up: words and questions of both."""

    figure: str
    kind: str
    words: tuple[str, str]
    asked: tuple[Question, Question]


def sensitivities(
    result: PlanResult, model: Model, *, rank: int = 1, measure: str = "request_latency_s"
) -> Sensitivities:
    """Turn every figure down to `LESS` and up to `MORE` of itself, all else as the plan has it.

    Parameters
    ----------
    measure : a column of what-if answers

    Notes
    -----
    The mesh is chosen anew at each; layouts, stages, replicas and batches stay the plan's. Sizes of the model are rounded
    to what can be cut.
    """
    base = replace(question_of_plan(result, rank), model=model)
    turns = [turn for turn in _turns(base, model)]
    asked = [base, *(question for turn in turns for question in turn.asked)]
    values = evaluate(asked, result.objective).columns[measure].tolist()
    rows = [
        Sensitivity(
            figure=turn.figure,
            kind=turn.kind,
            less=turn.words[0],
            more=turn.words[1],
            less_value=values[1 + 2 * i],
            more_value=values[2 + 2 * i],
        )
        for i, turn in enumerate(turns)
    ]
    first = float(values[0])
    moved = [row for row in rows if row.reach(first) > 0.0 or None in (row.less_value, row.more_value)]
    return Sensitivities(base=first, measure=measure, rows=tuple(sorted(moved, key=lambda row: -row.reach(first))))


def _turns(base: Question, model: Model) -> Iterator[_Turn]:
    for field, says in _HARDWARE.items():
        words = (f"x{LESS:g}", f"x{MORE:g}")
        asked = (replace(base, **{field: Change(factor=LESS)}), replace(base, **{field: Change(factor=MORE)}))  # type: ignore[arg-type]
        yield _Turn(figure=says, kind="hardware", words=words, asked=asked)
    for field, says in _WORKLOAD.items():
        sizes = _around(getattr(base, field) or 0, 1)
        if sizes is not None:
            yield _Turn(figure=says, kind="workload", words=_words(sizes), asked=_each(base, field, sizes))
    for field, says in _MODEL.items():
        sizes = _around(getattr(model, field), 1 if field == "n_layers" else 256)
        if sizes is not None and not model.stack:
            varied = [replace(base, model=_changed(model, field, size)) for size in sizes]
            yield _Turn(figure=says, kind="model", words=_words(sizes), asked=(varied[0], varied[1]))
    if 1 < model.n_kv_heads < model.n_heads and not model.stack:
        heads = (model.n_kv_heads // 2, min(2 * model.n_kv_heads, model.n_heads))
        varied = [replace(base, model=_changed(model, "n_kv_heads", n)) for n in heads]
        yield _Turn(figure="K/V heads", kind="model", words=_words(heads), asked=(varied[0], varied[1]))


def _changed(model: Model, field: str, size: int) -> Model:
    return model.model_copy(update={field: size, "name": f"{model.name} ({field}={size})", "n_params_nominal": None})


def _words(sizes: Sequence[int]) -> tuple[str, str]:
    return f"{sizes[0]:,}", f"{sizes[1]:,}"


def _each(base: Question, field: str, sizes: tuple[int, int]) -> tuple[Question, Question]:
    less, more = (replace(base, **{field: size}) for size in sizes)  # type: ignore[arg-type]
    return less, more


def _around(size: int, multiple: int) -> tuple[int, int] | None:
    """Less and more of a size in multiples; None where rounding leaves it as it is."""
    less, more = (max(multiple, multiple * round(factor * size / multiple)) for factor in (LESS, MORE))
    return (less, more) if less < size < more else None
