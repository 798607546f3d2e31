"""Execute a spec and lay what happened beside what was priced."""

import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch

from ...hardware_specs.chip import Chip
from ...hardware_specs.errors import SpecError
from ...hardware_specs.units import format_seconds
from ...models.feed_forward import ExpertsFfn
from .formats import DTYPES, RoundedWeights
from .priced import predicted_alone_s, predicted_memory_bytes, predicted_step_s, priced_bytes
from .ranks import run_ranks, start_together
from .reference.model import Reference
from .result import BytesPair, ExecuteResult, MemoryPair, StepPair
from .share import run_share, steps_on_wires
from .spec import RunSpec
from .trace import trace_ranks
from .worker import RankReport, prompts, weights_of

# Largest relative error of the logits that rounding explains: each is a chain of sums, and sums of parts round otherwise.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
# A cache in fewer bits than its activations: a number on the brink of two of its steps may fall to either side.
_CACHE_TOLERANCE = {"fp16": 1e-3, "bf16": 1e-2, "fp8": 1e-1}

_BF16_SINCE = (8, 0)
_PROBE_S = 60.0
_FP32_BYTES = 4


def tolerance(spec: RunSpec) -> float:
    """Largest relative error of the logits of a run. Rounded weights add nothing: the unsharded model has them too."""
    return max(TOLERANCE[spec.dtype], _CACHE_TOLERANCE[spec.kv] if spec.kv else 0.0)


def execute(spec: RunSpec, chip: Chip, engine: str, *, limit_s: float, notes: Sequence[str] = ()) -> ExecuteResult:
    """Run a spec on real ranks and compare with the unsharded model and with the prices.

    Parameters
    ----------
    chip, engine : what the predicted times are priced with
    limit_s : seconds all ranks have together before the run is ended

    Raises
    ------
    SpecError : a shape that does not divide, or more memory than there is
    RankFailedError : a rank died, hung or raised
    """
    _check(spec)
    weights_of(spec)  # a checkpoint that does not fit is refused here, not by every rank
    if spec.device == "cuda":
        check_gpus(spec, n_ranks=spec.mesh.n_ranks)
    else:
        _check_memory(spec)
    (reports,) = run_ranks([spec], limit_s=limit_s)
    error, equal = compare(spec, reports)
    notes = (*notes, *_by_the_clock(spec, reports))
    return _result(spec, "run", chip, engine, _counted(reports), notes).model_copy(
        update={
            "max_relative_error": error,
            "tokens_equal": equal,
            "memory": MemoryPair(
                priced=predicted_memory_bytes(spec), measured=float(max(report.peak_bytes for report in reports))
            ),
            "steps": _steps(predicted_step_s(spec, chip, engine), measured_step_s(spec, reports)),
        }
    )


def trace(spec: RunSpec, chip: Chip, engine: str, *, limit_s: float, notes: Sequence[str] = ()) -> ExecuteResult:
    """Record the collectives of a spec at full size, without its memory: one chip of each stage speaks for all."""
    _check(spec)
    chips = spec.mesh.tp * spec.mesh.dp
    sent = [
        {phase: {axes: n * chips for axes, n in by_axes.items()} for phase, by_axes in stage.items()}
        for stage in trace_ranks(spec, limit_s=limit_s)
    ]
    return _result(spec, "trace", chip, engine, _added(sent), notes)


def share(
    spec: RunSpec, chips: tuple[Chip, Chip], engine: str, *, limit_s: float, notes: Sequence[str] = ()
) -> ExecuteResult:
    """Run one chip's share of a spec alone; its collectives come from the price.

    Parameters
    ----------
    chips : what runs here, which prices the steps that are measured, and the plan's own, which prices its collectives
    """
    _check(spec)
    if spec.device == "cuda":
        check_gpus(spec, n_ranks=1)
    else:
        _check_room(predicted_memory_bytes(spec), "one chip's share needs")
    reports = run_share(spec, limit_s=limit_s)
    wires = steps_on_wires(spec)
    here, there = (predicted_step_s(spec, chip, engine) for chip in chips)
    alone = predicted_alone_s(spec, chips[0], engine)
    predicted = {
        key: there.get(key) if key in wires else here.get(key, alone.get(key)) for key in {**here, **alone, **there}
    }
    measured = {key: s for key, s in measured_step_s(spec, reports, n_chips=1).items() if key not in wires}
    steps = tuple(
        step.model_copy(update={"taken_from": "price" if step.step in wires else "measured"})
        for step in _steps(predicted, measured)
    )
    peak = float(max(report.peak_bytes for report in reports))
    says = f"one chip of each stage ran alone, on made-up numbers; what crosses chips is as priced on {chips[1].name}"
    return _result(spec, "share", chips[1], engine, {}, (*notes, says)).model_copy(
        update={
            "bytes": {},
            "memory": MemoryPair(priced=predicted_memory_bytes(spec), measured=peak),
            "steps": steps,
        }
    )


def _check(spec: RunSpec) -> None:
    for phase in ("prefill", "decode"):
        spec.check_shards(phase)


def _result(
    spec: RunSpec, mode: str, chip: Chip, engine: str, counted: Mapping[str, float], notes: Sequence[str]
) -> ExecuteResult:
    priced = _added([priced_bytes(spec)])
    return ExecuteResult.model_validate(
        {
            "mode": mode,
            "model": spec.model.name,
            "device": spec.device,
            "dtype": spec.dtype,
            "weights": spec.weights or spec.dtype,
            "kv_dtype": spec.kv or spec.dtype,
            "n_ranks": spec.mesh.n_ranks,
            "mesh": dict(spec.mesh.axes) | {"pp": spec.mesh.pp, "dp": spec.mesh.dp},
            "prefill": _layout(spec, "prefill"),
            "decode": _layout(spec, "decode"),
            "batch": spec.batch,
            "input_tokens": spec.input_tokens,
            "output_tokens": spec.output_tokens,
            "max_relative_error": None,
            "tokens_equal": None,
            "bytes": {
                axes: BytesPair(priced=priced.get(axes, 0.0), counted=counted.get(axes, 0.0))
                for axes in sorted({*priced, *counted})
            },
            "memory": MemoryPair(priced=predicted_memory_bytes(spec), measured=None),
            "steps": _steps(predicted_step_s(spec, chip, engine), {}),
            "notes": tuple(notes),
        }
    )


def _layout(spec: RunSpec, name: str) -> str:
    """A phase's layout as a plan names it, experts too where there are any."""
    phase = spec.phase(name)
    has_experts = any(isinstance(block.ffn, ExpertsFfn) for block in spec.model.kinds.values())
    return "/".join([phase.layout, phase.attention, *([phase.experts] if has_experts else [])])


def compare(spec: RunSpec, reports: Sequence[RankReport]) -> tuple[float, bool]:
    """Largest relative error of all logits, and whether all tokens are those of the unsharded model."""
    with torch.inference_mode():
        logits, tokens = _unsharded(spec)
    largest, error, equal = float(np.abs(logits).max()), 0.0, True
    share = spec.batch // spec.mesh.dp
    for report in reports:
        if report.logits is None or report.vocabulary is None:
            continue
        first = spec.mesh.place(report.rank)["dp"] * share
        real = report.vocabulary >= 0
        wanted = logits[:, first : first + share][:, :, report.vocabulary[real]]
        error = max(error, float(np.abs(report.logits[:, :, real] - wanted).max()) / largest)
        equal &= np.array_equal(np.array(report.tokens), tokens[:, first : first + share])
    return error, equal


def _unsharded(spec: RunSpec) -> tuple[np.ndarray, np.ndarray]:
    """Logits [passes, B, V] and tokens [passes, B] of the model on one chip."""
    weights, dtype = weights_of(spec), DTYPES[spec.dtype]
    if spec.weights is not None:
        weights = RoundedWeights(weights, spec.weight_plan(), spec.weights, dtype)
    model, chosen = Reference(spec, weights), prompts(spec)
    found = [model(chosen, 0)]
    for i in range(spec.output_tokens):
        found.append(model(found[-1].argmax(-1)[:, None], spec.input_tokens + i))
    logits = torch.stack(found).float().numpy()
    return logits, logits.argmax(-1)


def measured_step_s(spec: RunSpec, reports: Sequence[RankReport], n_chips: int | None = None) -> dict[str, float]:
    """Seconds of each step: the mean over a stage's `n_chips`, summed over stages, the median over timed runs."""
    per_stage = n_chips or spec.mesh.tp * spec.mesh.dp
    runs: list[dict[str, float]] = []
    for i in range(spec.n_timed):
        total: dict[str, float] = defaultdict(float)
        for report in reports:
            for step, seconds in report.step_s[i].items():
                total[step] += seconds / per_stage
        runs.append(total)
    return {step: statistics.median(run[step] for run in runs) for step in (runs[0] if runs else {})}


def _by_the_clock(spec: RunSpec, reports: Sequence[RankReport]) -> tuple[str, ...]:
    """Where steps are timed in CPU time, what the phases took by the clock: the slowest rank, the median over timed runs."""
    if spec.device != "cpu" or not spec.n_timed:
        return ()
    prefill, decode = (
        statistics.median(max(report.wall_s[i][phase] for report in reports) for i in range(spec.n_timed))
        for phase in ("prefill", "decode")
    )
    return (
        f"measured steps are a rank's CPU time, without waiting; by the clock all prefill passes took {format_seconds(prefill)} "
        f"and those of a decode step {format_seconds(decode)}",
    )


def _counted(reports: Sequence[RankReport]) -> dict[str, float]:
    return _added([report.sent_bytes for report in reports])


def _added(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """By axes, over all phases and ranks."""
    total: dict[str, float] = defaultdict(float)
    for by_phase in found:
        for by_axes in by_phase.values():
            for axes, n_bytes in by_axes.items():
                total[axes] += n_bytes
    return dict(total)


def _steps(predicted: Mapping[str, float | None], measured: Mapping[str, float]) -> tuple[StepPair, ...]:
    names = dict.fromkeys((*predicted, *measured))
    return tuple(StepPair(step=name, predicted_s=predicted.get(name), measured_s=measured.get(name)) for name in names)


def _check_memory(spec: RunSpec) -> None:
    """All ranks, each with the largest whole tensor in hand as it cuts its part, and the unsharded model, unrounded."""
    ranks, per_rank = spec.mesh.n_ranks, predicted_memory_bytes(spec)
    plan = spec.weight_plan()
    in_hand = max(prod(plan.shape(kind, name)) for kind, held in plan.tensors.items() for name in held) * _FP32_BYTES
    whole = predicted_memory_bytes(replace(spec, weights=None, kv=None)) * spec.mesh.tp * spec.mesh.pp
    needed = (per_rank + in_hand) * ranks + whole
    _check_room(
        needed, f"{ranks} ranks of {per_rank / 1e9:.3g} GB, their largest tensor whole, and the unsharded model need"
    )


def _check_room(needed: float, who: str) -> None:
    """Refuse before anything is allocated what this machine cannot hold."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise SpecError(
            f"{who} {needed / 1e9:.3g} GB, this machine has {free / 1e9:.3g} GB free; "
            f"shrink the model with --scale-model, or --trace the collectives"
        )


def check_gpus(spec: RunSpec, *, n_ranks: int) -> None:
    """A rank has a GPU of its own, which knows the run's format and has room for it."""
    n_gpus = torch.cuda.device_count()
    if n_gpus < n_ranks:
        raise SpecError(
            f"{n_ranks} ranks need as many GPUs, torch sees {n_gpus}; shrink the mesh with --ranks, or run on --device cpu"
        )
    needed = predicted_memory_bytes(spec)
    # asked in processes of their own: once this one has opened a GPU, ranks can no longer be forked from it
    for gpu, (free, capability) in enumerate(start_together(n_ranks, _PROBE_S, _probe)):
        if spec.dtype == "bf16" and capability < _BF16_SINCE:
            raise SpecError(f"GPU {gpu} (sm_{capability[0]}{capability[1]}) has no bf16; execute with --dtype fp16")
        if needed > free:
            raise SpecError(
                f"a rank needs {needed / 1e9:.3g} GB, GPU {gpu} has {free / 1e9:.3g} GB free; "
                f"shrink the model with --scale-model, or --trace the collectives"
            )


def _probe(gpu: int) -> tuple[int, tuple[int, int]]:
    """Free bytes of a GPU, and its compute capability."""
    return torch.cuda.mem_get_info(gpu)[0], torch.cuda.get_device_capability(gpu)
