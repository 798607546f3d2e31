"""Execute a spec and lay what happened beside what was priced."""

import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...hardware_specs.chip import Chip
from ...hardware_specs.errors import SpecError
from .priced import predicted_memory_bytes, predicted_step_s, priced_bytes
from .ranks import run_ranks
from .reference import Reference
from .result import BytesPair, ExecuteResult, MemoryPair, StepPair
from .spec import RunSpec
from .trace import trace_ranks
from .worker import RankReport, prompts, weights_of

# Largest relative error of the logits that rounding explains: each is a chain of sums, and sums of parts round otherwise.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}


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
    for phase in ("prefill", "decode"):
        spec.check_shards(phase)
    if spec.device == "cuda":
        _check_gpus(spec)
    else:
        _check_memory(spec)
    (reports,) = run_ranks([spec], limit_s=limit_s)
    error, equal = compare(spec, reports)
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
    for phase in ("prefill", "decode"):
        spec.check_shards(phase)
    chips = spec.mesh.tp * spec.mesh.dp
    sent = [
        {phase: {axes: n * chips for axes, n in by_axes.items()} for phase, by_axes in stage.items()}
        for stage in trace_ranks(spec, limit_s=limit_s)
    ]
    return _result(spec, "trace", chip, engine, _added(sent), notes)


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
            "n_ranks": spec.mesh.n_ranks,
            "mesh": dict(spec.mesh.axes) | {"pp": spec.mesh.pp, "dp": spec.mesh.dp},
            "prefill": f"{spec.prefill.layout}/{spec.prefill.attention}",
            "decode": f"{spec.decode.layout}/{spec.decode.attention}",
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
    model, chosen = Reference(spec.model, weights_of(spec), theta=spec.theta), prompts(spec)
    found = [model(chosen, 0)]
    for i in range(spec.output_tokens):
        found.append(model(found[-1].argmax(-1)[:, None], spec.input_tokens + i))
    logits = torch.stack(found).float().numpy()
    return logits, logits.argmax(-1)


def measured_step_s(spec: RunSpec, reports: Sequence[RankReport]) -> dict[str, float]:
    """Seconds of each step: the mean over the ranks of its stage, summed over stages, the median over timed runs."""
    runs: list[dict[str, float]] = []
    for i in range(spec.n_timed):
        total: dict[str, float] = defaultdict(float)
        for report in reports:
            for step, seconds in report.step_s[i].items():
                total[step] += seconds / (spec.mesh.tp * spec.mesh.dp)
        runs.append(total)
    return {step: statistics.median(run[step] for run in runs) for step in (runs[0] if runs else {})}


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


def _steps(predicted: Mapping[str, float], measured: Mapping[str, float]) -> tuple[StepPair, ...]:
    names = dict.fromkeys((*predicted, *measured))
    return tuple(StepPair(step=name, predicted_s=predicted.get(name), measured_s=measured.get(name)) for name in names)


def _check_gpus(spec: RunSpec) -> None:
    """A rank has a GPU of its own."""
    n_gpus = torch.cuda.device_count()
    if n_gpus < spec.mesh.n_ranks:
        raise SpecError(
            f"{spec.mesh.n_ranks} ranks need as many GPUs, torch sees {n_gpus}; shrink the mesh with --ranks, "
            f"or run on --device cpu"
        )


def _check_memory(spec: RunSpec) -> None:
    """Refuse before anything is allocated what this machine cannot hold: all ranks, and the unsharded model."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    per_rank = predicted_memory_bytes(spec)
    needed = per_rank * (spec.mesh.n_ranks + spec.mesh.tp * spec.mesh.pp)
    if needed > free:
        raise SpecError(
            f"{spec.mesh.n_ranks} ranks of {per_rank / 1e9:.3g} GB and the unsharded model need {needed / 1e9:.3g} GB, "
            f"this machine has {free / 1e9:.3g} GB free; shrink the model with --scale-model, or --trace the collectives"
        )
