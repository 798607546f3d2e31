"""Steps of a program as the kernels that were measured: which of them, of what shape, and what they add up to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np

from ...hardware_specs.dtypes import DTYPES, DType
from ...models.formats import Formats
from ...models.mixer_work import attention_shapes, expert_shape
from ...models.program import Attention, Collective, Experts, Matmul
from ...models.quantities import Work
from ...models.sizes import Sizes
from ...models.types import Array
from ...models.work import matmul_shapes, product_shapes
from .kernel_forms import Op, Widths, passes_of
from .kernel_times import KernelFamily, KernelTimes, TimedKernel, computing_format, variants_of
from .machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """Seconds of a step's kernels, each (...), and how far they can be trusted.

    Parameters
    ----------
    interval_log : half width of the 90 % interval of the logarithm of a kernel's time
    outside : whether a shape lies beyond what was measured
    applies : whether the kernels are those of the step; on some meshes a collective leaves the domain
    """

    compute_s: Array
    memory_s: Array
    comm_s: Array
    fixed_s: Array
    interval_log: float
    outside: Array
    applies: Array = True


def _together(kernels: Sequence[TimedKernel], *, measured: bool = True) -> TimedStep:
    """Kernels one after the other; each is bound by compute or memory on its own.

    What the smaller of the two leaves unsaid goes to the larger, so that the sum of the kernels is the larger of the sums.
    """
    bound = [np.maximum(k.time.compute_s, k.time.memory_s) for k in kernels]
    computes = [np.greater(k.time.compute_s, k.time.memory_s) for k in kernels]
    compute = sum((np.where(c, b, 0.0) for c, b in zip(computes, bound, strict=True)), start=np.zeros(()))
    total = sum(bound, start=np.zeros(()))
    compute_bound = np.greater(2.0 * compute, total)
    one = len(kernels) == 1
    return TimedStep(
        compute_s=kernels[0].time.compute_s if one else np.where(compute_bound, total, compute),
        memory_s=kernels[0].time.memory_s if one else np.where(compute_bound, total - compute, total),
        comm_s=sum((k.time.comm_s for k in kernels), start=0.0),
        fixed_s=sum((k.time.fixed_s for k in kernels), start=0.0),
        interval_log=max(k.family.interval_log for k in kernels),
        outside=reduce(np.logical_or, (k.outside for k in kernels)) if measured else np.ones((), bool),
    )


def matmul_time(kernels: KernelTimes, step: Matmul, sizes: Sizes, formats: Formats, n_rows: Array) -> TimedStep | None:
    """The matmuls of a step; None where no matmul of a like format was measured."""
    role = step.weights[0].role
    weights, multiplied = formats.of(role) or formats.weights, formats.multiplied(role)
    variants = variants_of(weights, multiplied)
    family = kernels.find("matmul", (*variants, *variants_of(formats.activations, formats.activations)))
    if family is None:
        return None
    computes = multiplied if family.variant in variants else formats.activations
    widths = Widths(
        x=computes.bytes_per_element,
        w=weights.bytes_per_element,
        out=formats.activations.bytes_per_element,
    )
    fused = [{"k": k, "n": n} for k, n in matmul_shapes(step, sizes)]
    shapes = product_shapes(step, sizes) if family.on_host else fused
    timed = [kernels.time(family, {"m": n_rows} | shape, computes, widths) for shape in shapes]
    return _together(timed, measured=family.variant in variants)


def attention_time(kernels: KernelTimes, step: Attention, sizes: Sizes, formats: Formats) -> TimedStep | None:
    """Attention of every token group, a kernel each; None where none of its kind was measured.

    Where one vector is key and value, no kernel was: all that were measured read both.
    """
    if "K" not in step.cache.form.letters:
        return None
    timed = []
    for shape in attention_shapes(step, sizes):
        decodes = np.ndim(shape["new"]) == 0 and float(shape["new"]) == 1.0 and float(np.max(shape["past"])) > 0
        found = _attention_family(kernels, formats.activations, formats.kv, decodes=decodes)
        if found is None:
            return None
        family, computes = found
        widths = Widths(
            x=formats.activations.bytes_per_element,
            kv=formats.kv.bytes_per_element,
            out=formats.activations.bytes_per_element,
        )
        timed.append(kernels.time(family, shape, computes, widths))
    return _together(timed)


def _attention_family(
    kernels: KernelTimes, activations: DType, kv: DType, *, decodes: bool
) -> tuple[KernelFamily, DType] | None:
    """The family that reads such a cache; an 8-bit cache may also be multiplied in 8 bits, else it is widened."""
    op: Op = "decode attention" if decodes else "prefill attention"
    (own, *_), (cache, *_) = variants_of(activations, activations), variants_of(kv, kv)
    for variant, stored in ((own, cache), (cache, cache), (own, own)):
        family = kernels.find(op, (variant,), stored)
        if family is not None:
            return family, computing_format(variant)
    return None


# How unequal experts are chosen in serving: the exponent of the power law that the kernels were measured under.
_ROUTING_SKEW = 1.2


def experts_time(kernels: KernelTimes, step: Experts, sizes: Sizes, formats: Formats) -> TimedStep | None:
    """The experts of one chip in one fused kernel; None where none of a like format was measured.

    Of the kernels for one format (scales a tensor or a block, activations widened or not) the quickest, as engines choose.
    """
    variants = variants_of(formats.experts, formats.multiplied("expert"))
    other = variants_of(formats.activations, formats.activations)
    shape = expert_shape(step, sizes) | {"skew": _ROUTING_SKEW}
    found = []
    for variant in dict.fromkeys((*variants, *other)):
        family = kernels.find("moe", (variant,))
        if family is not None:
            computes = formats.multiplied("expert") if variant in variants else formats.activations
            widths = Widths(
                x=computes.bytes_per_element,
                w=formats.experts.bytes_per_element,
                out=formats.activations.bytes_per_element,
            )
            found.append((variant in variants, kernels.time(family, shape, computes, widths)))
    if not found:
        return None
    own = [kernel for is_own, kernel in found if is_own] or [kernel for _, kernel in found]
    return _together([min(own, key=lambda kernel: float(np.mean(kernel.time.total_s)))], measured=found[0][0])


def collective_time(
    kernels: KernelTimes, step: Collective, machine: Machine, full_bytes: Array, launch_mode: str
) -> TimedStep | None:
    """A collective among chips of one domain by the quicker of the engine's own kernel and NCCL's."""
    links = [machine.axes[axis] for axis in step.axes]
    inner = prod((axis.inner for axis in links), start=np.ones(()))
    outer = prod((axis.outer for axis in links), start=np.ones(()))
    passes = passes_of(step.kind)
    shape = {"bytes": full_bytes / passes, "chips": inner, "passes": passes}
    found = [kernels.find("collective", (step.kind,), mode) for mode in (launch_mode, "nccl")]
    timed = [kernels.time(family, shape, DTYPES["bf16"], Widths()) for family in found if family is not None]
    if not timed:
        return None
    best = min(timed, key=lambda kernel: float(np.mean(kernel.time.total_s)))
    single = np.less_equal(inner, 1.0)
    return TimedStep(
        compute_s=0.0,
        memory_s=0.0,
        comm_s=np.where(single, 0.0, _quickest(timed, "comm_s")),
        fixed_s=np.where(single, 0.0, _quickest(timed, "fixed_s")),
        interval_log=best.family.interval_log,
        outside=best.outside & ~single,
        applies=np.equal(outer, 1.0),
    )


def pointwise_time(kernels: KernelTimes, op: str, formats: Formats, work: Work) -> TimedStep | None:
    """A step that passes over its operands, timed as an executor runs it; None where such steps were not measured."""
    family = kernels.find("pointwise", variants_of(formats.activations, formats.activations), op)
    if family is None:
        return None
    return _together(
        [kernels.time(family, {"bytes": work.hbm_bytes, "rows": work.n_rows}, formats.activations, Widths())]
    )


def _quickest(kernels: Sequence[TimedKernel], part: str) -> Array:
    """A part of the time of whichever kernel is the quicker, for each candidate."""
    first, *others = kernels
    seconds: Array = getattr(first.time, part)
    total = first.time.total_s
    for other in others:
        seconds = np.where(np.less(other.time.total_s, total), getattr(other.time, part), seconds)
        total = np.minimum(other.time.total_s, total)
    return seconds
