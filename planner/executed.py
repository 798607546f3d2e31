"""From a plan to what is executed of it here."""

from pathlib import Path
from typing import Literal

from ..hardware_specs.errors import SpecError
from ..models.catalogue import get_model
from ..models.description import Model
from ..simulator.cost.engines import get_engine
from ..validate.execute.arithmetic import NORM_EPS
from ..validate.execute.checkpoint import Settings, read_settings
from ..validate.execute.comm import MeshShape
from ..validate.execute.executable import unexecuted
from ..validate.execute.scale import scaled_model, shrunk_mesh
from ..validate.execute.spec import PhaseSpec, RunSpec
from .result import PhasePlan, Plan, PlanResult

# What one machine runs of a plan unless told otherwise: enough to see every step at work.
_MAX_BATCH, _MAX_INPUT, _MAX_OUTPUT = 64, 16, 32
# Weights in one byte a number are executed, dequantised where they are used; other narrow ones in the activations' format.
_ROUNDED: dict[str, Literal["int8", "fp8"]] = {"int8": "int8", "fp8": "fp8"}
_THETA = 10000.0


def run_spec(
    result: PlanResult,
    rank: int,
    *,
    n_ranks: int | None = None,
    scale: int = 1,
    batch: int | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    kernels: str | None = None,
    is_whole: bool = False,
    checkpoint: Path | None = None,
    n_timed: int = 0,
    seed: int = 0,
) -> tuple[RunSpec, tuple[str, ...]]:
    """The run of one plan, and what was changed to fit it here.

    Parameters
    ----------
    n_ranks : processes at most; the mesh shrinks to them
    scale : divides the model's widths, vocabulary and depth
    is_whole : keep the plan's own sizes where nothing else is asked for
    checkpoint : where the weights come from; random without

    Raises
    ------
    SpecError : a plan that no one mesh runs
    """
    plan = result.of_rank(rank)
    prefill, decode = plan.prefill, plan.decode
    if not plan.shared:
        raise SpecError(
            "prefill and decode have slices of their own; execute a plan that shares one (without --decode-on)"
        )
    mesh = _mesh(decode)
    used = mesh if n_ranks is None else shrunk_mesh(mesh, n_ranks)
    model = scaled_model(get_model(result.model), used, scale)
    work = result.workload
    settings = Settings() if checkpoint is None else read_settings(checkpoint)
    total, passes = _batches(plan, used, batch, is_whole)
    spec = RunSpec(
        model=model,
        mesh=used,
        prefill=_phase(prefill, passes[0]),
        decode=_phase(decode, passes[1]),
        batch=total,
        input_tokens=input_tokens or (work.input_tokens if is_whole else min(work.input_tokens, _MAX_INPUT)),
        output_tokens=output_tokens or (1 if is_whole else max(min(work.output_tokens, _MAX_OUTPUT), 1)),
        page_size=decode.page_size,
        dtype=dtype or ("fp32" if device == "cpu" and not is_whole else _executed_dtype(decode.activations)),
        weights=_ROUNDED.get(decode.weights),
        kv="fp8" if decode.kv_dtype == "fp8" else None,
        checkpoint=None if checkpoint is None else str(checkpoint),
        theta=settings.theta or _THETA,
        norm_eps=settings.norm_eps or NORM_EPS,
        device=device,
        routing="balanced" if "exchange" in (prefill.experts, decode.experts) else "router",
        kernels="triton" if kernels == "triton" or (kernels is None and device == "cuda") else "torch",
        seed=seed,
        n_timed=n_timed,
    )
    return spec, (*_changes(result, rank, spec, mesh), *settings.notes)


def _executed_dtype(name: str) -> str:
    """A format activations can be executed in."""
    return name if name in ("fp32", "bf16", "fp16") else "bf16"


def _batches(plan: Plan, mesh: MeshShape, batch: int | None, is_whole: bool) -> tuple[int, tuple[int, int]]:
    """Sequences of a run, and the passes a replica's go through prefill and decode in.

    The run has as many as the larger of the plan's two batches; the other phase takes them in batches of about its own size,
    one after the other. Each batch goes through pipeline stages in the plan's micro-batches while it divides by them.
    """
    most = max(plan.prefill.batch, plan.decode.batch)
    total = batch or (most if is_whole else _largest_divisor(most, _MAX_BATCH))
    if total % mesh.dp:
        return total, (1, 1)  # which the run refuses
    share, counts = total // mesh.dp, []
    for phase in (plan.prefill, plan.decode):
        size = _largest_divisor(share, max(phase.batch // mesh.dp, 1))
        parts = phase.n_microbatches if mesh.pp > 1 and size % phase.n_microbatches == 0 else 1
        counts.append(share // size * parts)
    few, many = sorted(counts)
    return total, (counts[0], counts[1] if many % few == 0 else counts[0])


def _mesh(phase: PhasePlan) -> MeshShape:
    return MeshShape(axes=phase.mesh.model_dump(), pp=phase.pp, dp=phase.dp)


def _phase(phase: PhasePlan, n_passes: int) -> PhaseSpec:
    return PhaseSpec(
        layout=phase.ffn,
        attention=phase.attention,
        experts=phase.experts,
        head_axes=phase.head_axes,
        looped=get_engine(phase.engine).runs.looped,
        n_passes=n_passes,
    )


def _largest_divisor(n: int, most: int) -> int:
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)


def _changes(result: PlanResult, rank: int, spec: RunSpec, mesh: MeshShape) -> tuple[str, ...]:
    """What differs from the plan, in words."""
    plan, notes = result.of_rank(rank), []
    if spec.mesh != mesh:
        notes.append(f"mesh {_text(mesh)} of the plan shrunk to {_text(spec.mesh)}")
    original = get_model(result.model)
    if spec.model != original:
        notes.append(f"model scaled: {_shrunk(original, spec.model)}")
    pairs = (
        *((f"{phase.phase} batch", phase.batch, _batch_run(spec, phase)) for phase in (plan.prefill, plan.decode)),
        ("input tokens", result.workload.input_tokens, spec.input_tokens),
        ("decode steps", result.workload.output_tokens, spec.output_tokens),
    )
    notes += [f"{name}: {planned} in the plan, {run} here" for name, planned, run in pairs if planned != run]
    notes += [
        f"{phase.phase}: {spec.batch} sequences in {spec.phase(phase.phase).n_passes} passes of {spec.sequences(phase.phase)}"
        for phase in (plan.prefill, plan.decode)
        if spec.phase(phase.phase).n_passes > 1
    ]
    formats = (
        ("weights", plan.decode.weights, spec.weights or spec.dtype),
        ("activations", plan.decode.activations, spec.dtype),
        ("cache", plan.decode.kv_dtype, spec.kv or spec.dtype),
    )
    notes += [
        f"{name}: {planned} in the plan, {run} here; bytes, memory and time are priced as run"
        for name, planned, run in formats
        if planned != run
    ]
    if spec.routing == "balanced":
        notes.append("tokens go to experts in turn, the even share that is priced, weighed by their router")
    if spec.kernels == "triton" and (others := _without_kernels(spec.model)):
        notes.append(f"torch runs what our kernels have not: {', '.join(others)}")
    return tuple(notes)


def _shrunk(original: Model, model: Model) -> str:
    """Sizes before and after, those of blocks by kind."""
    pairs: list[tuple[str, object, object]] = [
        (name, original, model) for name in ("n_layers", "d_model", "d_ff", "d_head", "vocab_size")
    ]
    for kind, block in model.blocks.items():
        parts = ((block.mixer, original.blocks[kind].mixer), (block.ffn, original.blocks[kind].ffn))
        pairs += [
            (name, before, after) for after, before in parts if after is not None for name in type(after).model_fields
        ]
    return ", ".join(dict.fromkeys(_changed(*pair) for pair in pairs if _changed(*pair)))


def _changed(name: str, before: object, after: object) -> str:
    old, new = getattr(before, name), getattr(after, name)
    return f"{name} {old} to {new}" if isinstance(old, int) and old != new else ""


def _without_kernels(model: Model) -> list[str]:
    """What a model has that no kernel of ours computes."""
    return list(dict.fromkeys(found for block in model.kinds.values() if (found := unexecuted(block))))


def _batch_run(spec: RunSpec, phase: PhasePlan) -> int:
    """The batch of a phase as it is run, over all replicas and micro-batches."""
    n_passes = spec.phase(phase.phase).n_passes
    parts = phase.n_microbatches if spec.mesh.pp > 1 and n_passes % phase.n_microbatches == 0 else 1
    return spec.batch // (n_passes // parts)


def _text(mesh: MeshShape) -> str:
    return "x".join(str(n) for n in mesh.axes.values()) + f", pp {mesh.pp}, dp {mesh.dp}"
