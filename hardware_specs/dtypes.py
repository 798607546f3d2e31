"""Number formats: their names in the field and their size in memory."""

import re
from dataclasses import dataclass

from .errors import UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class DType:
    """A number format.

    `bytes_per_element` counts block scales of formats that cannot live without them (nvfp4, mxfp4);
    `compute` is the key of the peak a matmul on this format runs at when both operands have it.
    """

    name: str
    bytes_per_element: float
    compute: str


# Group-wise int4 has a 16-bit scale and a 4-bit zero a group of 128 (Lin et al., AWQ, section 5.1). SpQR keeps groups of
# 3 bits, their own scales in 3 bits and one outlier in a hundred in 16: 4.63 bits a weight of LLaMA 7B together (Dettmers
# et al., SpQR, table 1).
# Block scales: nvfp4 has an 8-bit scale per 16 values (NVIDIA, "Introducing NVFP4", 2025), mxfp4 one per
# 32 values (OCP Microscaling Formats v1.0, section 5.2).
DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in (
        DType(name="fp32", bytes_per_element=4.0, compute="fp32"),
        DType(name="bf16", bytes_per_element=2.0, compute="bf16"),
        DType(name="fp16", bytes_per_element=2.0, compute="fp16"),
        DType(name="fp8", bytes_per_element=1.0, compute="fp8"),
        DType(name="int8", bytes_per_element=1.0, compute="int8"),
        DType(name="int4", bytes_per_element=0.5, compute="bf16"),
        DType(name="int4-g128", bytes_per_element=0.5 + 2.5 / 128.0, compute="bf16"),
        DType(name="spqr", bytes_per_element=4.63 / 8.0, compute="bf16"),
        DType(name="nvfp4", bytes_per_element=0.5 + 1.0 / 16.0, compute="fp4"),
        DType(name="mxfp4", bytes_per_element=0.5 + 1.0 / 32.0, compute="fp4"),
    )
}
_ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp8e4m3": "fp8",
    "fp8e5m2": "fp8",
    "float8e4m3fn": "fp8",
    "fp8block": "fp8",
    "fp4": "nvfp4",
    "w4a16": "int4",
    "uint4": "int4",
    "int4wo": "int4",
    "int4g128": "int4-g128",
    "awq": "int4-g128",
    "gptq": "int4-g128",
    "int8wo": "int8",
}


def parse_dtype(text: str) -> DType:
    """Find a format by name or alias; bracketed text and what follows a slash are ignored.

    >>> parse_dtype("BF16 (assumed)").name, parse_dtype("nvfp4/moe:nvfp4").name
    ('bf16', 'nvfp4')
    """
    stem = re.sub(r"\(.*?\)|/.*", "", text).strip().lower()
    key = re.sub(r"[^a-z0-9]", "", stem)
    name = _ALIASES.get(key, key)
    if name not in DTYPES:
        raise UnknownNameError("dtype", text, DTYPES)
    return DTYPES[name]
