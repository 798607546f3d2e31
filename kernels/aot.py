"""Kernels compiled ahead of time for a GPU that is not there, and what their machine code says.

Triton's wheels bring the assembler and disassembler. Not to be mixed with the interpreter in one process.
"""

import math
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .variant import Target, Variant

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# tensor-core instructions: of a warp, and of a warpgroup (Hopper)
_WARP_MMA = ("HMMA", "IMMA", "QMMA")
_WARPGROUP_MMA = ("HGMMA", "IGMMA", "QGMMA")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.MULTILINE)
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one streaming multiprocessor has, and the most shared memory one block may take.

    References
    ----------
    CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
    """

    capability: int
    registers: int = 65536
    warps: int = 64
    blocks: int = 32
    shared_bytes: int
    block_shared_bytes: int


LIMITS: dict[Target, Limits] = {
    "sm_80": Limits(capability=80, shared_bytes=164 * 2**10, block_shared_bytes=163 * 2**10),
    "sm_90": Limits(capability=90, shared_bytes=228 * 2**10, block_shared_bytes=227 * 2**10),
}
_LANES = 32
# registers are given to a warp in lots of this many; every block costs so much shared memory of its own
_REGISTER_LOT, _BLOCK_RESERVED_BYTES, _SHARED_LOT_BYTES = 256, 2**10, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the machine code of one variant needs and contains."""

    variant: Variant
    n_registers: int
    spill_bytes: int
    shared_bytes: int
    num_warps: int
    instructions: Counter[str]

    @property
    def mma(self) -> int:
        """Tensor-core instructions of a warp."""
        return sum(self.instructions[name] for name in _WARP_MMA)

    @property
    def wgmma(self) -> int:
        """Tensor-core instructions of a warpgroup."""
        return sum(self.instructions[name] for name in _WARPGROUP_MMA)

    @property
    def occupancy(self) -> float:
        """Share of the multiprocessor's warps that can be resident at once."""
        limits = LIMITS[self.variant.target]
        return (
            resident_blocks(limits, self.n_registers, self.shared_bytes, self.num_warps) * self.num_warps / limits.warps
        )

    def faults(self) -> tuple[str, ...]:
        """What is wrong with it, in words; empty when nothing is."""
        limits, variant = LIMITS[self.variant.target], self.variant
        found = []
        if self.spill_bytes:
            found.append(f"spills {self.spill_bytes} bytes a thread")
        if self.shared_bytes > limits.block_shared_bytes:
            found.append(f"needs {self.shared_bytes} bytes of shared memory, a block has {limits.block_shared_bytes}")
        if variant.tensor_core and not self.mma + self.wgmma:
            found.append("has no tensor-core instruction")
        if variant.wgmma and variant.target == "sm_90" and not self.wgmma:
            found.append("has no warpgroup instruction")
        if not self.occupancy:
            found.append("does not fit on a multiprocessor")
        return tuple(found)


def resident_blocks(limits: Limits, n_registers: int, shared_bytes: int, num_warps: int) -> int:
    """Blocks one multiprocessor holds at once.

    >>> resident_blocks(LIMITS["sm_80"], 128, 49152, 8)
    2
    """
    warp_registers = math.ceil(max(n_registers, 1) * _LANES / _REGISTER_LOT) * _REGISTER_LOT
    block_shared = math.ceil((shared_bytes + _BLOCK_RESERVED_BYTES) / _SHARED_LOT_BYTES) * _SHARED_LOT_BYTES
    return min(
        limits.blocks,
        limits.warps // num_warps,
        limits.registers // warp_registers // num_warps,
        limits.shared_bytes // block_shared,
    )


def compile_variant(variant: Variant) -> Compiled:
    """Compile one variant and read its machine code.

    Raises
    ------
    Exception : whatever Triton or the assembler says where it cannot be compiled
    """
    signature, attributes = {}, {}
    for i, name in enumerate(variant.kernel.arg_names):
        signature[name] = "constexpr" if name in variant.constants else variant.types.get(name, "i32")
        whole = signature[name].startswith(("*", "i"))
        if whole and name not in variant.unaligned:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=variant.constants, attrs=attributes)
    target = GPUTarget("cuda", LIMITS[variant.target].capability, _LANES)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    made = triton.compile(source, target=target, options=options)
    registers, stack = _resources(made.asm["cubin"])
    return Compiled(
        variant=variant,
        n_registers=registers,
        spill_bytes=stack,
        shared_bytes=made.metadata.shared,
        num_warps=made.metadata.num_warps,
        instructions=Counter(_INSTRUCTION.findall(_disassembled(made.asm["cubin"]))),
    )


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes of stack and local memory it spills to."""
    text = _run("cuobjdump", "--dump-resource-usage", cubin)
    match = _RESOURCES.search(text)
    if match is None:
        raise RuntimeError(f"cuobjdump names no resources: {text[-200:]}")
    registers, stack, _, local = map(int, match.groups())
    return registers, stack + local


def _disassembled(cubin: bytes) -> str:
    return _run("nvdisasm", "-c", cubin)


def _run(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_TOOLS / tool, option, file.name], capture_output=True, text=True, check=True).stdout
