import json
import os
import subprocess
import sys

import pytest
from shardwise.kernels.catalogue import OPS

_COMPILED_ELSEWHERE = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def _report(*arguments: str) -> tuple[int, str, str]:
    """The report in a process of its own: the interpreter and the compiler do not share one."""
    command = [sys.executable, "-m", "shardwise.kernels.report", *arguments]
    made = subprocess.run(command, env=_COMPILED_ELSEWHERE, capture_output=True, text=True, check=False)
    return made.returncode, made.stdout, made.stderr


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_every_variant_compiles_for_both_targets_without_a_fault(op) -> None:
    code, text, problem = _report("--op", op, "--json")
    assert code == 0, text + problem
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["target"] for line in lines} == {"sm_80", "sm_90"}
    for line in lines:
        assert line["faults"] == []
        assert line["spill_bytes"] == 0
        assert 0 < line["occupancy"] <= 1


def test_matrix_products_use_the_tensor_cores_of_their_target() -> None:
    code, text, problem = _report("--op", "grouped_matmul", "--target", "sm_90", "--json")
    assert code == 0, text + problem
    found = {line["variant"].split()[-1]: line for line in map(json.loads, text.splitlines())}
    assert found["128x128x64"]["wgmma"] > 0
    # a warpgroup has at least 64 rows
    assert (found["16x64x64"]["wgmma"], found["16x64x64"]["mma"] > 0) == (0, True)


def test_a_spill_a_failed_compile_and_a_missing_tensor_core_are_said_and_end_in_1() -> None:
    code = """
import sys
from dataclasses import replace
from shardwise.kernels import matmul, report, rope
usual, product = next(rope.variants()), next(matmul.variants())
report.variants = lambda op: [
    usual,
    replace(usual, constants=usual.constants | {"BLOCK_H": 3}),
    replace(usual, tensor_core=True),
    replace(product, num_warps=2),
]
sys.exit(report.main(["--op", "rope"]))
"""
    made = subprocess.run(
        [sys.executable, "-c", code], env=_COMPILED_ELSEWHERE, capture_output=True, text=True, check=False
    )
    assert made.returncode == 1, made.stderr
    _, usual, broken, plain, large = made.stdout.splitlines()
    assert usual.split()[-1] == "0"  # the last column, and no fault after it
    assert "does not compile" in broken
    assert plain.endswith("has no tensor-core instruction")
    assert "bytes a thread" in large


@pytest.mark.slow
def test_every_kernel_compiles_where_all_its_sizes_are_one() -> None:
    """Triton takes a size of 1 for a constant, which arithmetic on tensors does not always take."""
    code = """
from dataclasses import replace
from shardwise.kernels.aot import compile_variant
from shardwise.kernels.catalogue import OPS, variants
first = {}
for variant in (variant for op in OPS for variant in variants(op) if variant.target == "sm_80"):
    first.setdefault(variant.kernel, variant)
for kernel, variant in first.items():
    sizes = {name: 1 for name in kernel.arg_names if name not in variant.types and name not in variant.constants}
    compile_variant(replace(variant, constants=variant.constants | sizes))
print(len(first))
"""
    made = subprocess.run(
        [sys.executable, "-c", code], env=_COMPILED_ELSEWHERE, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert int(made.stdout) >= len(OPS)


def test_bad_arguments_are_refused() -> None:
    code, _, problem = _report("--op", "nothing")
    assert code == 2
    assert "invalid choice: 'nothing'" in problem
