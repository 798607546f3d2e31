"""From a plan to what is executed of it here."""

from ..hardware_specs.errors import SpecError
from ..models.catalogue import get_model
from ..models.forms import AXES
from ..simulator.cost.engines import get_engine
from ..validate.execute.comm import MeshShape
from ..validate.execute.scale import scaled_model, shrunk_mesh
from ..validate.execute.spec import PhaseSpec, RunSpec
from .result import PhasePlan, PlanResult

# What one machine runs of a plan unless told otherwise: enough to see every step at work.
_MAX_BATCH, _MAX_INPUT, _MAX_OUTPUT = 64, 16, 32


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
    is_trace: bool = False,
    n_timed: int = 0,
    seed: int = 0,
) -> tuple[RunSpec, tuple[str, ...]]:
    """The run of one plan, and what was changed to fit it here.

    Parameters
    ----------
    n_ranks : processes at most; the mesh shrinks to them
    scale : divides the model's widths, vocabulary and depth
    is_trace : keep the plan's own sizes where nothing else is asked for

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
    wanted_batch = batch or (decode.batch if is_trace else _largest_divisor(decode.batch, _MAX_BATCH))
    spec = RunSpec(
        model=model,
        mesh=used,
        prefill=_phase(prefill),
        decode=_phase(decode),
        batch=wanted_batch,
        input_tokens=input_tokens or (work.input_tokens if is_trace else min(work.input_tokens, _MAX_INPUT)),
        output_tokens=output_tokens or (1 if is_trace else max(min(work.output_tokens, _MAX_OUTPUT), 1)),
        n_microbatches=_microbatches(decode, used, wanted_batch),
        page_size=decode.page_size,
        dtype=dtype or ("fp32" if device == "cpu" and not is_trace else decode.activations),
        device=device,
        kernels="triton" if kernels == "triton" or (kernels is None and device == "cuda") else "torch",
        seed=seed,
        n_timed=n_timed,
    )
    return spec, _changes(result, rank, spec, mesh)


def _mesh(phase: PhasePlan) -> MeshShape:
    return MeshShape(axes=phase.mesh.model_dump(), pp=phase.pp, dp=phase.dp)


def _phase(phase: PhasePlan) -> PhaseSpec:
    return PhaseSpec(
        layout=phase.ffn,
        attention=phase.attention,
        head_axes=AXES if phase.head_shards == phase.tp else AXES[1:],
        looped=get_engine(phase.engine).runs.looped,
    )


def _microbatches(phase: PhasePlan, mesh: MeshShape, batch: int) -> int:
    """The plan's, if the batch still divides by them and there are stages to fill."""
    fits = mesh.pp > 1 and batch % (mesh.dp * phase.n_microbatches) == 0
    return phase.n_microbatches if fits else 1


def _largest_divisor(n: int, most: int) -> int:
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)


def _changes(result: PlanResult, rank: int, spec: RunSpec, mesh: MeshShape) -> tuple[str, ...]:
    """What differs from the plan, in words."""
    plan, notes = result.of_rank(rank), []
    if spec.mesh != mesh:
        notes.append(f"mesh {_text(mesh)} of the plan shrunk to {_text(spec.mesh)}")
    original = get_model(result.model)
    if spec.model != original:
        sizes = ("n_layers", "d_model", "d_ff", "d_head", "vocab_size")
        shrunk = ", ".join(f"{name} {getattr(original, name)} to {getattr(spec.model, name)}" for name in sizes)
        notes.append(f"model scaled: {shrunk}")
    pairs = (
        ("prefill batch", plan.prefill.batch, spec.batch),
        ("decode batch", plan.decode.batch, spec.batch),
        ("input tokens", result.workload.input_tokens, spec.input_tokens),
        ("decode steps", result.workload.output_tokens, spec.output_tokens),
    )
    notes += [f"{name}: {planned} in the plan, {run} here" for name, planned, run in pairs if planned != run]
    for phase in (plan.prefill, plan.decode):
        if phase.weights != spec.dtype:
            notes.append(f"{phase.phase} weights: {phase.weights} in the plan, {spec.dtype} here; bytes priced as run")
    return tuple(notes)


def _text(mesh: MeshShape) -> str:
    return "x".join(str(n) for n in mesh.axes.values()) + f", pp {mesh.pp}, dp {mesh.dp}"
