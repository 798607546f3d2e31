"""Score the public tables of measurements and write docs/accuracy.md, with docs/accuracy.html beside it on demand.

The tables are not part of the project: they lie in ``../shared/measured`` or where ``--measured`` says; without them nothing is
done. Rows whose quality is C or D (ambiguous, known bad) are predicted and not judged. What a person has to say about a group
stands in docs/accuracy_notes.yaml and is shown beside it.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import ablation
import numpy as np
import yaml
from shardwise.planner.predict_row import predict_row
from shardwise.simulator.cost.kernel_fit import is_held_out
from shardwise.simulator.cost.kernel_forms import passes_of
from shardwise.validate.decisions import DecisionScore, decision_score, find_tasks, scores_by_model
from shardwise.validate.kernel_cases import (
    AttentionKernel,
    CollectiveKernel,
    MatmulKernel,
    StreamKernel,
    parse_kernel_case,
)
from shardwise.validate.measured_csv import read_measured
from shardwise.validate.score import ScoredRow, score, source_of
from shardwise.validate.score_groups import GroupScore, group_scores, total_score
from shardwise.validate.score_jobs import Predictor

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "accuracy.md"
NOTES = DOCS / "accuracy_notes.yaml"
MEASURED = DOCS.parent.parent / "shared" / "measured"
TABLES = (
    "pope_tpu_v4",
    "fastertransformer_a100",
    "gpt_fast_a100",
    "splitwise_phase_latency",
    "trtllm_perf",
    "argonne_llm_inference_bench",
    "mlperf_inference",
    "inferencex_silicon",
    "misc_e2e",
    "tpu_e2e",
)
# Kernels by themselves; the fits of kernels were made of rows of this source's database.
KERNEL_TABLES = ("kernel_compute", "kernel_comm")
_FITTED_SOURCE = "aiconfigurator"
_JUDGED = ("", "A", "B")
_N_WORST = 25
_NOMINAL = 0.9
_WHOLE = "all of it"


@dataclass(frozen=True, slots=True)
class Goal:
    """Rows that are judged together, and the median error they may have."""

    name: str
    table: str
    metric: str
    limit: float
    model: str = ""
    source: str = ""

    def covers(self, table: str, row: Mapping[str, str]) -> bool:
        """Whether a row of a table is one of them."""
        return table == self.table and all(
            re.search(pattern, text)
            for pattern, text in (
                (self.metric, row["metric"]),
                (self.model, row["model"]),
                (self.source, row["source"]),
            )
        )


_DENSE = r"(?i)llama|qwen3-32b"
_STATIC = r"(?i)^(?!.*(LLMServingSim|DeepSeek|LMSYS|InferSim))"
GOALS = (
    Goal("Pope2022 on TPU v4", "pope_tpu_v4", "latency", 0.10),
    Goal("FasterTransformer", "fastertransformer_a100", "e2e_latency", 0.12),
    Goal("gpt-fast", "gpt_fast_a100", "decode_tokens_per_s", 0.08),
    Goal("Splitwise, prompt", "splitwise_phase_latency", "prompt_phase_latency", 0.08),
    Goal("Splitwise, token", "splitwise_phase_latency", "mean_token_time", 0.08),
    Goal("TensorRT-LLM, most output tokens/s", "trtllm_perf", "^max_output_throughput", 0.12),
    Goal("Argonne", "argonne_llm_inference_bench", "latency", 0.20),
    Goal("MLPerf Offline", "mlperf_inference", "throughput_offline", 0.12),
    Goal("MLPerf Server, TTFT", "mlperf_inference", "ttft", 0.20),
    Goal("MLPerf Server, TPOT", "mlperf_inference", "tpot", 0.10),
    Goal("InferenceX and in-house, dense, TPOT", "inferencex_silicon", "tpot", 0.08, _DENSE),
    Goal("InferenceX and in-house, dense, TTFT", "inferencex_silicon", "ttft", 0.20, _DENSE),
    Goal("static batches and serving sweeps of TensorRT-LLM", "trtllm_perf", "^(?!max_output)", 0.15),
    Goal("sweeps of other engines", "misc_e2e", "", 0.15, "", _STATIC),
)
# AIConfigurator on its own sample, dense models: what it predicts of those, and how it decides.
_BAR = DecisionScore(tasks=0, decisions=0, same_tp=0.78, same_point=0.67, missed=0.10, reached=0.94)

Tables = Mapping[str, Sequence[ScoredRow]]


@dataclass(frozen=True, slots=True)
class Note:
    """Why a group is missed, or the cases of it that `case` fits: patterns of its source and its metric, and the words."""

    source: str
    metric: str
    text: str
    case: str = ""

    def fits(self, source: str, metric: str, case: str) -> bool:
        """Whether it is about a group (then `case` is empty), or about a case of it."""
        named = re.search(self.source, source) and re.fullmatch(self.metric, metric)
        return bool(named) and (not self.case or bool(re.search(self.case, case)))


def read_notes(path: Path = NOTES) -> list[Note]:
    """The notes, the first that fits a group first."""
    return [Note(**entry) for entry in yaml.safe_load(path.read_text("utf-8"))]


def note_on(notes: Iterable[Note], source: str, metric: str, case: str = "") -> str:
    """What a person has said about a group or a case; empty where nobody has."""
    return " ".join(next((note.text for note in notes if note.fits(source, metric, case)), "").split())


def score_tables(
    folder: Path, predictor: Predictor, jobs: int, names: Sequence[str] = TABLES
) -> dict[str, list[ScoredRow]]:
    """Every table that is there, scored; judged rows only."""
    found = {}
    for name in names:
        if (path := folder / f"{name}.csv").is_file():
            sys.stderr.write(f"scoring {name}\n")
            scored = score(read_measured(path).rows, predictor, jobs=jobs)
            found[name] = [row for row in scored if row.row.get("quality", "").strip() in _JUDGED]
    return found


# Text


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else "open" if math.isinf(value) else format(value, form)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 1) -> str:
    """A table of Markdown; the first `n_text` columns are text, the others numbers."""
    marks = ["---" if i < n_text else "---:" for i in range(len(columns))]
    lines = [columns, marks, *([cell.replace("|", "/") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _short(source: str) -> str:
    """A source without the submitter of a benchmark's result."""
    return re.sub(r"(MLPerf Inference v[\d.]+) .*", r"\1", source)


def _figures(group: GroupScore) -> list[str]:
    return [
        str(group.rows),
        str(group.predicted),
        _number(group.median_abs_error),
        _number(group.mean_abs_error),
        _number(group.bias, "+.3f"),
        _number(group.inside, ".2f"),
        _number(group.width, ".2f"),
        _number(group.rank, ".2f"),
    ]


_FIGURES = ("rows", "predicted", "median", "mean", "bias", "inside", "width", "rank")


def _verdict(error: float | None, limit: float) -> str:
    return "no prediction" if error is None else "met" if error <= limit else "missed"


def goals(tables: Tables) -> str:
    """The groups that have a goal, in the order of the goals."""
    rows = []
    for goal in GOALS:
        covered = [row for row in tables.get(goal.table, ()) if goal.covers(goal.table, row.row)]
        if covered:
            group = total_score(covered)
            verdict = _verdict(group.median_abs_error, goal.limit)
            rows.append([goal.name, f"{goal.limit:.2f}", verdict, *_figures(group)])
    return _table(("group", "goal", "verdict", *_FIGURES), rows)


def _rows(tables: Tables) -> list[ScoredRow]:
    """All rows, by their short source."""
    rows = (item for table in tables.values() for item in table)
    return [replace(item, row={**item.row, "source": _short(source_of(item.row))}) for item in rows]


def groups(tables: Tables, notes: Sequence[Note]) -> str:
    """Errors by source and metric, the worst first, and what is known about them."""
    made = [
        [group.names["source"], group.names["metric"], *_figures(group)]
        for group in group_scores(_rows(tables), ("source", "metric"))
        if group.predicted
    ]
    rows = ([source, metric, note_on(notes, source, metric), *rest] for source, metric, *rest in made)
    return _table(("source", "metric", "why", *_FIGURES), rows, n_text=3)


def worst(tables: Tables, notes: Sequence[Note]) -> str:
    """The worst row of each source, model, chip and metric; the worst of those first."""
    rows: dict[tuple[str, ...], ScoredRow] = {}
    for item in _rows(tables):
        key = tuple(item.row[name] for name in ("source", "model", "hardware", "metric"))
        if item.error is not None and (key not in rows or _factor(item) > _factor(rows[key])):
            rows[key] = item
    ordered = sorted(rows.values(), key=_factor, reverse=True)[:_N_WORST]
    return _table(
        ("source", "case", "why", "measured", "predicted", "error"),
        ([row.row["source"], _case(row), _note(notes, row), *_compared(row)] for row in ordered),
        n_text=3,
    )


def _note(notes: Iterable[Note], item: ScoredRow) -> str:
    return note_on(notes, item.row["source"], item.row["metric"], _case(item))


def _factor(item: ScoredRow) -> float:
    """How many times too much or too little."""
    ratio = 1.0 + (item.error or 0.0)
    return max(ratio, 1.0 / ratio) if ratio > 0 else float("inf")


def _case(item: ScoredRow) -> str:
    row = item.row
    parts = [row["model"].rpartition("/")[2], f"{row['n_chips'] or '?'} x {row['hardware']}"]
    parts += [f"{name}{row[name]}" for name in ("tp", "pp", "dp", "ep") if row[name] not in ("", "0", "1")]
    parts += [f"{row['input_len']} in", f"{row['output_len']} out"]
    parts += [f"{name} {row[name]}" for name in ("batch", "concurrency", "qps") if row[name]]
    return f"{row['metric']}: {', '.join(part for part in parts if part.strip())}"


def _compared(item: ScoredRow) -> list[str]:
    made, unit = item.prediction, item.row["unit"]
    assert made is not None
    return [f"{item.value:.4g} {unit}", f"{made.predicted:.4g} {unit}", f"{item.error:+.2f}"]


def intervals(tables: Tables) -> str:
    """Share of rows inside their interval, and its width, by source; the farthest from nine in ten first."""
    sources = [group for group in group_scores(_rows(tables), ("source",)) if group.inside is not None]
    sources.sort(key=lambda group: -abs((group.inside or 0.0) - _NOMINAL))
    made = [*((group.names["source"], group) for group in sources), ("all", total_score(_rows(tables)))]
    rows = ([name, str(g.predicted), _number(g.inside, ".2f"), _number(g.width, ".2f")] for name, g in made)
    return _table(("source", "predicted", "inside", "median width"), rows)


def decisions(tables: Tables) -> str:
    """Decision quality by source and model, beside what AIConfigurator reaches on its own sample."""
    tasks = [task for table in tables.values() for task in find_tasks(table)]
    rows = [
        ["AIConfigurator on its sample", "-", "-", *_shares(_BAR)],
        ["all", *_counts(decision_score(tasks)), *_shares(decision_score(tasks))],
    ]
    for (source, model), found in scores_by_model(tasks).items():
        rows.append([f"{model}: {source}", *_counts(found), *_shares(found)])
    return _table(("configurations of", "tasks", "choices", "same TP", "same point", "limit missed", "reached"), rows)


def _counts(found: DecisionScore) -> list[str]:
    return [str(found.tasks), str(found.decisions)]


def _shares(found: DecisionScore) -> list[str]:
    return [_number(share, ".2f") for share in (found.same_tp, found.same_point, found.missed, found.reached)]


def ablation_table(by_predictor: Mapping[str, Tables]) -> str:
    """Median error of every goal's rows by each of the predictors."""
    names = list(by_predictor)
    rows = []
    for goal in GOALS:
        errors = [_median_error(goal, tables) for tables in by_predictor.values()]
        if any(error is not None for error in errors):
            rows.append([goal.name, *(_number(error) for error in errors)])
    return _table(("group", *names), rows)


def _median_error(goal: Goal, tables: Tables) -> float | None:
    rows = (row for row in tables.get(goal.table, ()) if goal.covers(goal.table, row.row))
    errors = [abs(row.error) for row in rows if row.error is not None]
    return median(errors) if errors else None


def unpredicted(tables: Tables, n_reasons: int = 12) -> str:
    """The commonest reasons of rows without a prediction."""
    counts: dict[str, int] = {}
    for item in (item for table in tables.values() for item in table if item.prediction is None):
        reason = re.sub(r"\d[\d.,]*", "N", item.reason)
        counts[reason] = counts.get(reason, 0) + 1
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])[:n_reasons]
    return _table(("reason (numbers left out)", "rows"), ([reason, str(count)] for reason, count in ordered))


def kernels(rows: Sequence[ScoredRow]) -> str:
    """Errors of kernels by op, chip and framework, of all rows and of those that no fit has seen; the worst of those first."""
    found: dict[tuple[str, ...], list[ScoredRow]] = {}
    for item in rows:
        if item.error is not None:
            found.setdefault((_op(item), item.row["hardware"], item.row["framework"]), []).append(item)
    made = [(key, total_score(all_), total_score([*filter(_is_unseen, all_)])) for key, all_ in found.items()]
    made.sort(key=lambda one: -1.0 if one[2].median_abs_error is None else one[2].median_abs_error, reverse=True)
    made.append((("all", "", ""), total_score(rows), total_score([*filter(_is_unseen, rows)])))
    return _table(
        ("op", "chip", "framework", "rows", "median", "unseen", "median", "mean", "bias", "inside", "width"),
        ([*key, str(all_.predicted), _number(all_.median_abs_error), *_unseen(unseen)] for key, all_, unseen in made),
        n_text=3,
    )


def _unseen(group: GroupScore) -> list[str]:
    _, predicted, *errors, inside, width, _ = _figures(group)
    return [predicted, *errors, inside, width]


def _op(item: ScoredRow) -> str:
    """What a kernel does and computes in, without its sizes."""
    match parse_kernel_case(item.row).kernel:
        case MatmulKernel(dtype=dtype, groups=groups):
            return f"{dtype} matmul{'s in groups' if groups > 1 else ''}"
        case CollectiveKernel(kind=kind):
            return kind
        case AttentionKernel(dtype=dtype):
            return f"{dtype} attention"
        case StreamKernel():
            return "stream"


def _is_unseen(item: ScoredRow) -> bool:
    """Whether no fit was made on a row: it is of another source, or held out by its shape."""
    if _FITTED_SOURCE not in source_of(item.row):
        return True
    kernel = parse_kernel_case(item.row).kernel
    if isinstance(kernel, CollectiveKernel):
        shape = {"bytes": kernel.n_bytes, "chips": kernel.n_chips, "passes": passes_of(kernel.kind)}
    elif isinstance(kernel, MatmulKernel):
        shape = {"m": kernel.m, "n": kernel.n, "k": kernel.k}
    else:
        return True
    return bool(is_held_out({name: np.array([float(size)]) for name, size in shape.items()})[0])


_KERNEL_WORDS = """\
Single kernels by the fits of kernels alone. Most of these rows come from the database that the fits were made of (in the same
or another version of the software): where a row's shape is among those fitted, to predict it is no test. `unseen` are the rows
that no fit was made on, those of other sources and the third that a hash of the shape holds out; the figures after it are
theirs. An all_reduce of vLLM was launched eagerly or in a graph, which no column says: the graph is predicted, and the interval
spans both."""

_INTRO = """\
# How accurate it is

Made by `make accuracy`, which predicts {n_rows:,} measurements that others published ({n_predicted:,} of them can be
predicted) and compares. Errors are predicted / measured - 1: `median` and `mean` of their sizes, `bias` the median with its
sign. `inside` is the share of measurements inside the 90 % interval of their prediction, `width` the median of
(high - low) / predicted, `rank` Spearman's correlation over the configurations measured for a task. Rows that are ambiguous or
known to be bad are left out. `shardwise score TABLE.csv` prints the same of any table.

"""


def page(by_predictor: Mapping[str, Tables], notes: Sequence[Note], kernel_rows: Sequence[ScoredRow] = ()) -> str:
    """The whole text."""
    tables = next(iter(by_predictor.values()))
    total = total_score([row for table in tables.values() for row in table])
    sections: list[tuple[str, str, Callable[[], str]]] = [
        ("Goals", "The median error of a group against what it may be.", lambda: goals(tables)),
        ("Worst cases", "The worst row of a source, model, chip and metric.", lambda: worst(tables, notes)),
        ("By source and metric", "The worst group first.", lambda: groups(tables, notes)),
        ("Intervals", "Nominal: 0.90 inside.", lambda: intervals(tables)),
        (
            "Decisions",
            "Of the configurations measured for a task, we choose by prediction the one of highest throughput a chip under a "
            "limit on TPOT (at the quarters of what was measured). Does it have the degree of tensor parallelism of the best "
            "one, is it the best one, is the limit really kept, and what part of the best throughput is reached where it is?",
            lambda: decisions(tables),
        ),
        (
            "What buys how much",
            "Median errors with a part of the model left out.",
            lambda: ablation_table(by_predictor),
        ),
        ("Not predicted", "The commonest reasons.", lambda: unpredicted(tables)),
    ]
    if kernel_rows:
        sections.insert(-2, ("Kernels", _KERNEL_WORDS, lambda: kernels(kernel_rows)))
    text = "".join(f"## {title}\n\n{words}\n\n{make()}\n" for title, words, make in sections)
    return (_INTRO.format(n_rows=total.rows, n_predicted=total.predicted) + text).rstrip("\n") + "\n"


def main() -> None:
    """Write the page, or say that there is nothing to score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, default=MEASURED, help="folder of the tables")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--output", type=Path, default=PAGE, help="file to write")
    given = parser.parse_args()
    if not any((given.measured / f"{name}.csv").is_file() for name in TABLES):
        sys.stderr.write(f"no measured tables in {given.measured}; {given.output} stays as it is\n")
        return
    scored = {_WHOLE: score_tables(given.measured, predict_row, given.jobs)}
    for name, made in ablation.PREDICTORS.items():
        sys.stderr.write(f"ablation: {name}\n")
        scored[name] = score_tables(given.measured, made, given.jobs, ablation.TABLES)
    timed = score_tables(given.measured, predict_row, given.jobs, KERNEL_TABLES)
    rows = [row for table in timed.values() for row in table]
    given.output.write_text(page(scored, read_notes(), rows), "utf-8")
    sys.stderr.write(f"wrote {given.output}\n")


if __name__ == "__main__":
    main()
