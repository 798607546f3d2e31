"""The words of measured kernels: number formats of their operands, kinds of collectives, keys whose values are text."""

from dataclasses import dataclass

from .dtypes import DTYPES, DType

TEXT_KEYS = ("kv", "mode", "gemm", "phase", "via")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFormats:
    """Formats of a matmul's two operands; it runs at the peak of the activations'."""

    activations: DType
    weights: DType


KERNEL_DTYPES: dict[str, KernelFormats] = {
    name: KernelFormats(activations=DTYPES[activations], weights=DTYPES[weights])
    for name, activations, weights in (
        ("fp32", "fp32", "fp32"),
        ("bf16", "bf16", "bf16"),
        ("fp16", "fp16", "fp16"),
        ("fp8", "fp8", "fp8"),
        ("fp8-block", "fp8", "fp8"),
        ("int8", "int8", "int8"),
        ("int8-wo", "bf16", "int8"),
        ("int4-wo", "bf16", "int4"),
        ("int4-fp8", "fp8", "int4"),
        ("nvfp4", "nvfp4", "nvfp4"),
        ("mxfp4-wo", "bf16", "mxfp4"),
        ("mxfp4-fp8", "fp8", "mxfp4"),
    )
}
