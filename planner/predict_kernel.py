"""A measured kernel predicted by the fits of kernels: those of its chip and of the software its row names, or the nearest."""

import math
from dataclasses import dataclass
from functools import cache

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.chip import Switch
from ..hardware_specs.cluster import meshes, parse_pool
from ..hardware_specs.errors import SpecError
from ..hardware_specs.kernel_formats import KERNEL_DTYPES
from ..simulator.cost.calibrated import BORROWED_LOG, calibration_of, kernels_of
from ..simulator.cost.collectives import collective_time_s
from ..simulator.cost.kernel_forms import Op, Shape, Widths, passes_of
from ..simulator.cost.kernel_times import KernelFamily, KernelTimes, computing_format
from ..simulator.cost.machine import make_machine
from ..validate.kernel_cases import (
    AttentionKernel,
    CollectiveKernel,
    KernelCase,
    KernelSeconds,
    MatmulKernel,
    StreamKernel,
)

# Whose kernels a framework runs; an empty name is taken for NCCL where chips talk.
_STACKS = {
    "tensorrt-llm": "trtllm",
    "trtllm": "trtllm",
    "trtllm custom allreduce": "trtllm",
    "vllm": "vllm",
    "vllm custom allreduce": "vllm",
    "sglang": "sglang",
}
_LIBRARY = "nccl"
# Kernels that ran outside any stack (torch, DeepGEMM, FlashAttention, CUDA) are timed by the stack that was timed with least
# around them: TensorRT-LLM's matmuls come without quantisation of what they read, SGLang runs FlashAttention-3.
_BARE: dict[Op, str] = {
    "matmul": "trtllm", "prefill attention": "sglang", "decode attention": "vllm", "collective": "vllm",
}  # fmt: skip
# Ways a stack's own collective is launched, the usual one first; a row does not say which it was.
_MODES = ("graph", "eager")
# Attention of an earlier generation, which no measured stack runs where this chip's fits stand for a chip.
_EARLIER_ATTENTION = ("flashattention-2", "triton tutorial")
_EARLIER_CHIP = "a100-80gb-sxm"
# A chip without a relative among the fits takes its corrections from this one.
_NEWEST_CHIP = "h200-sxm"

# Half widths that are added, as independent errors, to that of a family's own rows; logarithms that nine of ten keep.
# Matmuls of one shape by vLLM, TensorRT-LLM and SGLang on one chip: 0.06 to 0.12 in 16 bits, up to 0.3 in blocks of 8.
_OTHER_SOFTWARE_LOG = 0.3
# The same stack or library in another version than was measured.
_OTHER_VERSION_LOG = 0.2
# A chip that is neither measured nor of a measured generation.
_STRANGER_LOG = 0.5
# Beyond what was measured.
_OUTSIDE_LOG = 0.2
# A kernel that stands in for one that was not measured: groups of matmuls, the read of a long cache for any stream.
_STAND_IN_LOG = 0.2
# Attention alone: that of a stack keeps a cache in pages beside it, and has a causal mask.
_ATTENTION_ALONE_LOG = 0.4
# Collectives that leave a domain, and those over links that are no switch: by the claims of their wires.
_BY_CLAIMS_LOG = 0.6
# One step of a ring whose chips sit in several nodes (32 B200 over EFA: small all_reduces take 0.36 ms, of 62 steps).
_NETWORK_HOP_S = 5.8e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """Seconds, and the half width of their interval's logarithm."""

    seconds: float
    log: float


def predict_kernel(case: KernelCase) -> KernelSeconds:
    """Predict how long a measured kernel takes.

    Raises
    ------
    SpecError : no kernel that could stand for it was measured
    """
    match case.kernel:
        case MatmulKernel() as kernel:
            found = [_matmul(case, kernel)]
        case AttentionKernel() as kernel:
            found = [_attention(case, kernel)]
        case StreamKernel() as kernel:
            found = [_stream(case, kernel)]
        case CollectiveKernel() as kernel:
            found = _collective(case, kernel)
    return KernelSeconds(
        expected_s=found[0].seconds,
        low_s=min(one.seconds * math.exp(-one.log) for one in found),
        high_s=max(one.seconds * math.exp(one.log) for one in found),
    )


def _matmul(case: KernelCase, kernel: MatmulKernel) -> _Timed:
    """Groups side by side have the tiles and the weights of one matmul that is as much wider."""
    formats = KERNEL_DTYPES[kernel.dtype]
    widths = Widths(x=formats.activations.bytes_per_element, w=formats.weights.bytes_per_element)
    shape = {"m": float(kernel.m), "n": float(kernel.n * kernel.groups), "k": float(kernel.k)}
    variant = "bf16" if kernel.dtype == "fp16" else kernel.dtype
    return _time(case, "matmul", variant, "", shape, widths, more_log=_STAND_IN_LOG if kernel.groups > 1 else 0.0)


def _attention(case: KernelCase, kernel: AttentionKernel) -> _Timed:
    """Every query sees all keys without a mask, as under a causal one after half as many keys again."""
    earlier = case.framework.lower().startswith(_EARLIER_ATTENTION)
    if earlier and _kernels(case, "prefill attention")[0].fit.chip != _EARLIER_CHIP:
        raise SpecError(f"no measured stack runs the attention of {case.framework} on {case.hardware}")
    width = KERNEL_DTYPES[kernel.dtype].activations.bytes_per_element
    shape = {
        "batch": float(kernel.batch),
        "new": float(kernel.tokens),
        "past": 0.0 if kernel.causal else kernel.tokens / 2.0,
        "heads": float(kernel.heads),
        "kv_heads": float(kernel.heads),
        "d_head": float(kernel.d_head),
        "window": 0.0,
    }
    widths = Widths(x=width, kv=width)
    variant = kernel.dtype
    return _time(case, "prefill attention", variant, variant, shape, widths, more_log=_ATTENTION_ALONE_LOG)


def _stream(case: KernelCase, kernel: StreamKernel) -> _Timed:
    """A long cache read by decode attention, which comes nearest to a stream of what was measured."""
    batch, heads, d_head, widths = 128.0, 8.0, 128.0, Widths()
    context = kernel.n_bytes / (2.0 * batch * heads * d_head * widths.kv)
    shape = {
        "batch": batch, "context": context, "heads": heads, "kv_heads": heads, "d_head": d_head, "window": 0.0,
    }  # fmt: skip
    return _time(case, "decode attention", "bf16", "bf16", shape, widths, more_log=_STAND_IN_LOG)


def _collective(case: KernelCase, kernel: CollectiveKernel) -> list[_Timed]:
    """The library's collective, or the stack's own in each mode that it may have been launched in, the usual one first."""
    links = get_chip(case.hardware).scale_up
    if not isinstance(links, Switch) or links.kind != "switch" or kernel.n_chips > links.domain_chips:
        return [_by_claims(case, kernel)]
    shape = {"bytes": float(kernel.n_bytes), "chips": float(kernel.n_chips), "passes": passes_of(kernel.kind)}
    return [_time(case, "collective", kernel.kind, mode, shape, Widths()) for mode in _modes(case, kernel)]


def _modes(case: KernelCase, kernel: CollectiveKernel) -> tuple[str, ...]:
    """The modes in which the stack's own collective was measured; the library's where it has none."""
    stack = _stack(case)
    if stack is None:
        return (_LIBRARY,)
    found = []
    for mode in (kernel.mode,) if kernel.mode else _MODES:
        family = _kernels(case, "collective")[0].find("collective", (kernel.kind,), mode)
        if family is not None and family.software.startswith(stack):
            found.append(mode)
    return tuple(found) or (_LIBRARY,)


def _by_claims(case: KernelCase, kernel: CollectiveKernel) -> _Timed:
    """A collective at what the wires claim, and the library reaches of that in a domain; a ring goes through every chip."""
    chip, n_chips, kind = get_chip(case.hardware), kernel.n_chips, kernel.kind
    (slice_, *_) = parse_pool(f"{chip.name}:{n_chips}")
    mesh = next(mesh for mesh in meshes(slice_) if mesh.x.size == n_chips)
    constants = calibration_of(chip, _BARE["collective"]).engine.constants
    family = _kernels(case, "collective")[0].find("collective", (kind,), _LIBRARY)
    if family is None:
        raise SpecError(f"no {kind} was measured on a chip like {chip.name}")
    wires_s = collective_time_s(
        kind,
        ("x",),
        kernel.n_bytes * passes_of(kind),
        make_machine(chip, [mesh]),
        efficiency=family.constants["link_efficiency"],
        network_efficiency=constants.network_efficiency,
        axes_at_once=True,
    )
    hop_s = _NETWORK_HOP_S if mesh.x.outer > 1 else family.constants["hop_s"]
    steps_s = family.constants["launch_s"] + passes_of(kind) * (n_chips - 1) * hop_s
    return _Timed(seconds=float(wires_s) + steps_s, log=_BY_CLAIMS_LOG)


def _time(
    case: KernelCase, op: Op, variant: str, kv: str, shape: Shape, widths: Widths, *, more_log: float = 0.0
) -> _Timed:
    """One kernel of a family, with what makes it less sure than the family's own rows."""
    kernels, borrowed_log = _kernels(case, op)
    family = kernels.find(op, (variant,), kv)
    if family is None:
        raise SpecError(f"no {' '.join(filter(None, (variant, op, kv)))} was measured on {kernels.fit.chip}")
    timed = kernels.time(family, shape, computing_format(variant), widths)
    parts = (
        family.interval_log,
        borrowed_log,
        _software_log(case, family),
        _OUTSIDE_LOG if bool(timed.outside) else 0.0,
        more_log,
    )
    return _Timed(seconds=float(timed.time.total_s), log=math.hypot(*parts))


def _software_log(case: KernelCase, family: KernelFamily) -> float:
    """What it adds that a family was measured under other software than the case's, or under another version of it."""
    measured, _, version = family.software.partition(" ")
    if family.kv == _LIBRARY:
        known = _stack(case) is not None or case.framework.lower() in ("", _LIBRARY)
    else:
        known = measured == _stack(case)
    if not known:
        return _OTHER_SOFTWARE_LOG
    return 0.0 if case.framework_version == version else _OTHER_VERSION_LOG


def _stack(case: KernelCase) -> str | None:
    """The stack that a case's framework is; None for a library and for kernels outside any."""
    return _STACKS.get(case.framework.lower())


def _kernels(case: KernelCase, op: Op) -> tuple[KernelTimes, float]:
    """The kernels that a case is timed by, and what it adds to the interval that they are another chip's."""
    return _kernels_of(case.hardware, _stack(case) or _BARE[op])


@cache
def _kernels_of(hardware: str, stack: str) -> tuple[KernelTimes, float]:
    chip = get_chip(hardware)
    found = kernels_of(chip, stack)
    if found is not None:
        return found, 0.0 if found.is_own else BORROWED_LOG
    newest = kernels_of(get_chip(_NEWEST_CHIP), stack)
    assert newest is not None, "the fits that ship have no kernels of the newest chip"
    return KernelTimes(chip, newest.fit), _STRANGER_LOG
