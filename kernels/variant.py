"""One way to compile a kernel: what the report compiles ahead of time, and why it is expected to come out well."""

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from ..hardware_specs.documents import read_yaml

Target = Literal["sm_80", "sm_90"]
TARGETS: tuple[Target, ...] = ("sm_80", "sm_90")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A kernel with types and constants, for one target.

    Parameters
    ----------
    op, name : the op's module and what sets this variant apart, e.g. ``matmul``, ``bf16 silu 128x128x64``
    kernel : the ``@triton.jit`` function
    types : Triton type of each pointer (``*bf16``) and of each scalar that is not ``i32``
    constants : value of each ``tl.constexpr``
    unaligned : arguments that are not multiples of 16, or pointers not 16-byte aligned
    tensor_core : the kernel multiplies matrices, so its code must contain tensor-core instructions
    wgmma : on sm_90 these must be warpgroup instructions (a warpgroup has at least 64 rows)
    """

    op: str
    name: str
    target: Target
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int = 1
    unaligned: tuple[str, ...] = ()
    tensor_core: bool = False
    wgmma: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One tuning of a kernel: its block sizes by the names of the kernel's constants, warps and pipeline stages."""

    blocks: dict[str, int] = field(hash=False)
    num_warps: int
    num_stages: int


def configs(op: str, target: Target) -> tuple[Config, ...]:
    """The tunings of an op for a target, the usual one first, from ``data/<op>.yaml``."""
    text = (files(__package__) / "data" / f"{op}.yaml").read_text("utf-8")
    found = []
    for row in read_yaml(text)[target]:
        blocks = {name: size for name, size in row.items() if name not in ("num_warps", "num_stages")}
        found.append(Config(blocks, row["num_warps"], row["num_stages"]))
    return tuple(found)
