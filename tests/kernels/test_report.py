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
    code, text, problem = _report("--op", "matmul", "--target", "sm_90", "--json")
    assert code == 0, problem
    wide = [line for line in map(json.loads, text.splitlines()) if "128x" in line["variant"].split()[-1][:4]]
    assert wide
    assert all(line["wgmma"] > 0 for line in wide)


def test_a_kernel_that_spills_is_a_fault() -> None:
    code = """
from dataclasses import replace
from shardwise.kernels.aot import compile_variant
from shardwise.kernels.matmul import variants
usual = next(v for v in variants() if v.target == "sm_80")
large = replace(usual, constants=usual.constants | {"BLOCK_M": 256, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=2)
print(compile_variant(large).faults())
"""
    made = subprocess.run(
        [sys.executable, "-c", code], env=_COMPILED_ELSEWHERE, capture_output=True, text=True, check=True
    )
    assert "spills" in made.stdout


def test_bad_arguments_are_refused() -> None:
    code, _, problem = _report("--op", "nothing")
    assert code == 2
    assert "invalid choice: 'nothing'" in problem
