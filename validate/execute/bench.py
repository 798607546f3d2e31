"""Time the executor's own steps where they run: small models through prefill and decode, as measured rows.

What a step takes alone in a loop, its operands in the cache and its code just run, is not what it takes inside a model: so
every step is timed in its place, in the CPU time of its rank. The models are of other sizes than those whose times are to be
predicted; one rank gives the steps of a chip, two give collectives.
"""

import datetime
import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...hardware_specs.documents import write_atomically
from ...hardware_specs.measurement import Measurement, dump_measurements, read_measurements
from ...kernels.bench import commit_now, device_name
from ...models.description import Model
from ...models.mixer_work import attention_shapes
from ...models.program import Append, Attention, Collective, Matmul, Pointwise, Step
from ...models.sizes import Sizes
from ...models.work import product_shapes, step_work
from ...simulator.cost.kernel_forms import passes_of
from .comm import MeshShape
from .priced import formats_of, token_group
from .ranks import run_ranks
from .spec import PhaseSpec, RunSpec
from .worker import PASS, RankReport

COMMAND = "shardwise calibrate --device cpu"
STACK = "shardwise"
IDLE, REST, WHOLE = "idle step", "rest of a pass", "pass"
GLOO = "gloo"
_LIMIT_S = 600.0
_N_ROUNDS = 2
_N_TIMED = 3
_OUTPUT = 8
# d_model, d_ff, heads, K/V heads, d_head, layers, vocabulary
_MODELS = (
    (128, 384, 4, 2, 32, 8, 2048),
    (192, 512, 6, 6, 32, 8, 3072),
    (320, 896, 10, 2, 32, 6, 5120),
    (384, 1024, 6, 2, 64, 6, 6144),
    (640, 1792, 10, 10, 64, 5, 10240),
    (768, 2048, 12, 4, 64, 4, 12288),
    (896, 2304, 14, 2, 64, 4, 6144),
    (1152, 3072, 18, 6, 64, 3, 18432),
    (1280, 3584, 10, 2, 128, 3, 4096),
)
# sequences and prompt tokens, of which large models take fewer: every number of sequences, the rows of a decode step's
# matmuls, is timed at every width, as libraries have kernels of their own for each of the smallest
_BATCHES = ((1, 20), (2, 40), (8, 12), (3, 72), (6, 30), (4, 90), (12, 28), (1, 48), (5, 112), (24, 20), (16, 48))
_MOST_TOKENS_TIMES_WIDTH = 320_000
# by the number that rows call them
_LAYOUTS = {1: "ws-1d-allreduce", 2: "ws-1d-sequence"}
_PAIR_BATCHES = ((1, 24), (2, 36), (7, 16), (3, 60), (10, 32))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRun:
    """A run that is timed, and what tells it from the others in a row."""

    spec: RunSpec
    words: str


def llama(
    name: str, d_model: int, d_ff: int, n_heads: int, n_kv_heads: int, d_head: int, n_layers: int, vocab_size: int
) -> Model:
    """A model built as Llama is."""
    return Model(
        name=name, source="made up", n_layers=n_layers, d_model=d_model, d_ff=d_ff, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_head=d_head, vocab_size=vocab_size, gated=True, activation="silu", block="serial", norm="rmsnorm",
        n_norms_per_block=2, positions="rope", tied_embeddings=False,
    )  # fmt: skip


def small_run(
    model: Model, *, tp: int, layout: str, batch: int, input_tokens: int, output_tokens: int, n_timed: int
) -> RunSpec:
    """A run of a small model over `tp` ranks, both phases in one layout with heads cut over the ranks."""
    phase = PhaseSpec(layout=layout, attention="heads")
    return RunSpec(
        model=model, mesh=MeshShape(axes={"x": 1, "y": tp, "z": 1}), prefill=phase, decode=phase, batch=batch,
        input_tokens=input_tokens, output_tokens=output_tokens, n_timed=n_timed,
    )  # fmt: skip


def timed_runs() -> Iterator[TimedRun]:
    """All runs of the bench, those of one rank first."""
    pairs = [(1, 1, batches) for batches in _BATCHES]
    pairs += [(2, layout, batches) for layout in _LAYOUTS for batches in _PAIR_BATCHES]
    for tp, layout, (batch, tokens) in pairs:
        for number, sizes in enumerate(_MODELS):
            # lengths that differ a little give collectives of more sizes
            wished = tokens + 2 * number if tp > 1 else tokens
            length = min(wished, _MOST_TOKENS_TIMES_WIDTH // (batch * sizes[0] * tp) * tp)
            model = llama(f"llama-{sizes[0]}", *sizes)
            spec = small_run(
                model,
                tp=tp,
                layout=_LAYOUTS[layout],
                batch=batch,
                input_tokens=length,
                output_tokens=_OUTPUT,
                n_timed=_N_TIMED,
            )
            words = f"d_model={sizes[0]} batch={batch} new={length} tp={tp} layout={layout}"
            yield TimedRun(spec=spec, words=words)


def measure(target: Path, chip: str, tell: Callable[[str], None] = lambda _: None) -> None:
    """Time every run as often as the file still lacks rows of it; the file is whole after each.

    A machine that others work on is slower for minutes and then is not, so the runs of one kind lie far apart.

    Raises
    ------
    RankFailedError : a run failed
    """
    rows = list(read_measurements(target.read_text("utf-8").splitlines(), str(target))) if target.exists() else []
    known = Counter(row.shape for row in rows if row.chip == chip and row.quantity == f"{WHOLE} by {STACK}")
    wanted = [run for i in range(_N_ROUNDS) for run in timed_runs() if known[f"{run.words} phase=decode"] <= i]
    for number, run in enumerate(wanted, 1):
        rows += measured_rows(run, chip)
        write_atomically(target, dump_measurements(rows))
        tell(f"{number} of {len(wanted)}: {run.words}")


def merged(rows: Sequence[Measurement]) -> list[Measurement]:
    """One row of each quantity and shape: the medians over the runs it was found in."""
    found: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        found[row.chip, row.quantity, row.shape].append(row)
    return [
        several[-1].model_copy(
            update={
                name: float(f"{statistics.median(getattr(row, name) for row in several):.6g}")
                for name in ("p20", "p50", "p80")
            }
            | {"n_repeats": sum(row.n_repeats for row in several)}
        )
        for several in found.values()
    ]


def measured_rows(run: TimedRun, chip: str) -> list[Measurement]:
    """Time one run."""
    (reports,) = run_ranks([run.spec], limit_s=_LIMIT_S)
    return [row for phase in ("prefill", "decode") for row in phase_rows(run, chip, phase, phase_s(reports, phase))]


def phase_rows(run: TimedRun, chip: str, phase: str, seconds: Mapping[str, Sequence[float]]) -> list[Measurement]:
    """Rows of one phase of a run, from the seconds of each step in every timed run."""
    found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for key, step, count in steps_of(run.spec, phase):
        # after a prompt the last steps find nothing in the caches, in a decode step, which is priced alike, they do
        name = None if phase == "prefill" and key.startswith("last") else _row_of(run.spec, phase, step)
        if name is not None:
            found[name].append([s / count for s in seconds[key]])
    found[REST, f"{run.words} phase={phase}"].append(list(seconds[PASS]))
    found[WHOLE, f"{run.words} phase={phase}"].append([sum(s) for s in zip(*seconds.values(), strict=True)])
    return [
        _measurement(chip, op, shape, [statistics.mean(s) for s in zip(*several, strict=True)])
        for (op, shape), several in found.items()
    ]


def phase_s(reports: Sequence[RankReport], phase: str) -> dict[str, list[float]]:
    """Seconds of each step of a phase in every timed run, the mean over ranks."""
    first = reports[0].step_s[0]
    return {
        key.removeprefix(f"{phase}/"): [
            statistics.mean(report.step_s[i][key] for report in reports) for i in range(len(reports[0].step_s))
        ]
        for key in first
        if key.startswith(f"{phase}/")
    }


def steps_of(spec: RunSpec, phase: str) -> Iterator[tuple[str, Step, float]]:
    """Key, step, and how often it is run in a pass."""
    program = spec.program(phase)
    parts = (
        ("first", program.first, 1.0),
        ("block", program.only.steps, float(spec.model.n_layers)),
        ("last", program.last, 1.0),
    )
    for part, steps, count in parts:
        for step in steps:
            yield f"{part}/{step.name}", step, count


def _row_of(spec: RunSpec, phase: str, step: Step) -> tuple[str, str] | None:
    """The op and the shape that a step is priced by; None for what is priced by several kernels, or timed on one rank."""
    sizes, formats = spec.sizes(phase, token_group(spec, phase)), formats_of(spec)
    if isinstance(step, Collective):
        return _collective(spec, phase, step, sizes)
    if spec.mesh.tp > 1:
        return None
    work = step_work(step, sizes, formats)
    match step:
        case Matmul():
            shape, *others = product_shapes(step, sizes)
            return None if others else (f"{spec.dtype} matmul", _words({"m": work.n_rows} | shape))
        case Attention():
            (shape,) = attention_shapes(step, sizes)
            decodes = phase == "decode"
            names = ("batch", "context") if decodes else ("batch", "new", "past")
            sized = {name: shape[name] for name in (*names, "heads", "kv_heads", "d_head", "window")}
            return f"{spec.dtype} {phase} attention", f"{_words(sized)} kv={spec.dtype}"
        case Pointwise() | Append():
            name = "append" if isinstance(step, Append) else step.op
            return f"{spec.dtype} pointwise", f"{_words({'bytes': work.hbm_bytes, 'rows': work.n_rows})} mode={name}"
    return None


def _collective(spec: RunSpec, phase: str, step: Collective, sizes: Sizes) -> tuple[str, str] | None:
    """A collective, or what a step costs that has nothing to do."""
    chips = spec.mesh.size(step.axes)
    if chips == 1:
        return (IDLE, f"n=1 phase={phase}") if spec.mesh.tp == 1 else None
    n_bytes = step_work(step, sizes, formats_of(spec)).full_bytes / passes_of(step.kind)
    return step.kind, f"{_words({'bytes': n_bytes, 'chips': chips})} mode={GLOO}"


def _words(shape: Mapping[str, object]) -> str:
    return " ".join(f"{name}={float(value):.12g}" for name, value in shape.items())  # type: ignore[arg-type]


def _measurement(chip: str, op: str, shape: str, seconds: Sequence[float]) -> Measurement:
    quantiles = torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor([0.2, 0.5, 0.8]).double())
    p20, p50, p80 = (float(f"{value:.6g}") for value in quantiles.tolist())
    return Measurement(
        chip=chip, quantity=f"{op} by {STACK}", unit="s", shape=shape, p20=p20, p50=p50, p80=p80, n_repeats=len(seconds),
        device=f"{device_name('cpu')}, one thread a rank, CPU time, in its place in a model",
        software=f"{STACK} 0, torch {torch.__version__}, python {platform.python_version()}", command=COMMAND,
        commit=commit_now(), date=datetime.date.today().isoformat(),
    )  # fmt: skip
