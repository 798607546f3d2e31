"""Check a plan against its own numbers, knowing nothing of the search.

Bytes are counted again, tensor by tensor and chip by chip in whole numbers from the plan's own fields; limits are
compared with what the plan predicts.
"""

import math

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.cluster import parse_pool
from ..hardware_specs.dtypes import parse_dtype
from ..models.blocks import Block
from ..models.description import Model
from ..models.lower import lower
from ..models.params import held_positions
from ..models.program import EncoderProgram, Tensor
from ..models.sizes import batch_axes, block_dims
from .request import PlanRequest
from .result import PhasePlan, Plan

# The search adds floats, this adds whole numbers.
_ROUNDING = 1e-9


class CertificateError(AssertionError):
    """A plan does not keep what it says: a fault of ours, not of the user's."""


def check_plan(request: PlanRequest, plan: Plan) -> None:
    """Raise unless both phases fit in memory, keep their limits, and use chips the pool has."""
    for phase in (plan.prefill, plan.decode):
        _check_slice(request, phase)
        _check_bytes(request, phase)
    _check_limits(request, plan)
    if plan.n_chips > request.max_chips:
        _fail(f"{plan.n_chips} chips of a pool of {request.max_chips}")
    if plan.shared:
        _check_shared(plan)


def _fail(what: str) -> None:
    raise CertificateError(f"plan breaks its certificate: {what}")


def _check_slice(request: PlanRequest, phase: PhasePlan) -> None:
    allowed = request.slices if phase.phase == "prefill" else request.decode_slices
    if phase.slice not in {str(slice_) for slice_ in allowed}:
        _fail(f"{phase.slice} is not in the pool {request.on}")
    chips = {s.n_chips for s in parse_pool(phase.slice)}
    used = phase.mesh.x * phase.mesh.y * phase.mesh.z * phase.pp * phase.dp
    if chips != {phase.n_chips} or used != phase.n_chips or phase.tp != used // (phase.pp * phase.dp):
        _fail(f"{phase.phase} uses {used} chips of {phase.slice}")


def _check_bytes(request: PlanRequest, phase: PhasePlan) -> None:
    """Weights and cache must be what the forms say; with the activations they must lie below the limit."""
    sequences = _ceil(_ceil(phase.batch, phase.dp), phase.n_microbatches)
    sizes = (phase.mesh.x, phase.mesh.y, phase.mesh.z)
    program = lower(
        request.model,
        phase.ffn,
        phase.attention,
        experts=phase.experts,
        batch_axes=batch_axes(sizes, sequences),
        head_axes=phase.head_axes,
    )
    work = request.workload
    # behind an encoder a sequence begins at one start token, and the input lies in a cache of its own
    tokens = work.context_tokens if program.encoder is None else 1 + work.output_tokens
    context, read = (_ceil(n, phase.page_size) * phase.page_size for n in (tokens, work.input_tokens))
    others = {"O": request.model.n_other_params}
    ends = max(_bytes(request, phase, held, others, sizes) for held in program.end_weights(pp=phase.pp))
    ends += _encoder_bytes(request, phase, program.encoder, sizes)
    blocks, caches = {}, {}
    for block in program.blocks:
        dims = _dims(request, phase, block.block, sequences, context)
        if block.block.cross is not None:
            dims["T"] = read
        blocks[block.kind] = _bytes(request, phase, block.weights, dims, sizes)
        caches[block.kind] = _bytes(request, phase, block.state, dims, sizes)
    weights = ends + _fullest(request.model, blocks, phase.pp)
    cache = _fullest(request.model, caches, phase.pp) * phase.n_microbatches
    for name, counted, stated in (("weights", weights, phase.memory.weights), ("cache", cache, phase.memory.kv_cache)):
        if not math.isclose(counted, stated, rel_tol=_ROUNDING):
            _fail(f"{phase.phase} {name}: {counted:.6g} bytes counted, {stated:.6g} stated")
    limit = get_chip(phase.chip).hbm_bytes.value * request.memory_share
    if (phase.memory.limit, phase.hbm_bytes_per_chip) != (limit, phase.memory.total):
        _fail(f"{phase.phase} states a limit or a total that its parts do not give")
    if phase.memory.total > limit:
        _fail(f"{phase.phase} needs {phase.memory.total:.6g} bytes of {limit:.6g}")


def _encoder_bytes(
    request: PlanRequest, phase: PhasePlan, program: EncoderProgram | None, sizes: tuple[int, int, int]
) -> float:
    """Weights of an encoder; 0 without."""
    encoder = request.model.encoder
    if program is None or encoder is None:
        return 0.0
    total = _bytes(request, phase, program.weights, {"P": encoder.n_learned_positions}, sizes)
    for block in program.blocks:
        dims = _dims(request, phase, block.block, 0, 0)
        total += block.n_layers * _bytes(request, phase, block.weights, dims, sizes)
    return total


def _ceil(n: int, parts: int) -> int:
    return -(-n // parts)


def _fullest(model: Model, bytes_of: dict[str, float], pp: int) -> float:
    """Bytes of the fullest stage's layers: the first stages have one layer more where they do not divide."""
    whole, more = divmod(len(model.layers), pp)
    starts = [i * whole + min(i, more) for i in range(pp + 1)]
    return max(sum(bytes_of[kind] for kind in model.layers[starts[i] : starts[i + 1]]) for i in range(pp))


def _bytes(
    request: PlanRequest,
    phase: PhasePlan,
    tensors: tuple[Tensor, ...],
    dims: dict[str, int],
    sizes: tuple[int, int, int],
) -> float:
    """Bytes of tensors on one chip, each in its own format."""
    model = request.model
    ends = {"E": model.d_model, "V": model.vocab_size, "P": model.n_learned_positions}
    ends |= {} if dims else {"O": model.n_other_params}
    formats = {
        "weight": phase.weights,
        "mixer": phase.mixer_weights,
        "expert": phase.expert_weights,
        "end": phase.end_weights,
        "kv": phase.kv_dtype,
        "state": model.state_dtype,
        "activation": phase.activations,
    }
    return sum(_elements(t, ends | dims, sizes) * parse_dtype(formats[t.role]).bytes_per_element for t in tensors)


def _dims(request: PlanRequest, phase: PhasePlan, block: Block, sequences: int, context: int) -> dict[str, int]:
    """Whole numbers of every dimension a block's weights and states have."""
    shards = math.prod(phase.mesh.model_dump()[axis] for axis in phase.head_axes)
    lasting = {"B": sequences, "S": math.ceil(float(held_positions(block, float(context))))}
    sized = block_dims(request.model, block, float(shards))
    return lasting | {dim: int(size) for dim, size in sized.items()}


def _elements(tensor: Tensor, dims: dict[str, int], sizes: tuple[int, int, int]) -> int:
    """Elements of a tensor on one chip, in whole numbers."""
    size = dict(zip("xyz", sizes, strict=True))
    total = tensor.copies
    for dim, axes in tensor.form.dims:
        total *= _ceil(dims[dim], math.prod(size[axis] for axis in axes))
    return total


def _check_limits(request: PlanRequest, plan: Plan) -> None:
    for name, limit, value in (
        ("TTFT", request.slo.ttft_s, plan.prefill.step_s),
        ("TPOT", request.slo.tpot_s, plan.decode.step_s),
    ):
        if limit is not None and value > limit:
            _fail(f"{name} {value:.6g} s is over {limit:.6g} s")


def _check_shared(plan: Plan) -> None:
    """Phases that take turns hold one copy of the weights, and the decode cache stays while prompts are read."""
    p, d = plan.prefill, plan.decode
    if (p.slice, p.mapping, p.pp, p.dp, p.weights, p.memory.weights) != (
        d.slice,
        d.mapping,
        d.pp,
        d.dp,
        d.weights,
        d.memory.weights,
    ):
        _fail("phases on one slice disagree on how the weights lie")
    cache = max(p.memory.kv_cache, d.memory.kv_cache)
    work = max(part.memory.activations + part.memory.gathered for part in (p, d))
    if not math.isclose(plan.hbm_bytes_per_chip, p.memory.weights + cache + work, rel_tol=_ROUNDING):
        _fail(f"{plan.hbm_bytes_per_chip:.6g} bytes a chip stated, {p.memory.weights + cache + work:.6g} counted")
    if plan.hbm_bytes_per_chip > p.memory.limit:
        _fail("phases on one slice do not fit together")
