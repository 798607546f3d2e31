"""Kernels predicted from their rows: whose fits speak, and how much less sure they are of what they did not measure."""

import math

import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.predict_kernel import predict_kernel
from shardwise.planner.predict_row import predict_row
from shardwise.simulator.cost.calibrated import kernels_of
from shardwise.validate.kernel_cases import KernelSeconds, parse_kernel_case
from shardwise.validate.score import score

MATMUL = {
    "model": "GEMM m=4096 n=8192 k=8192",
    "hardware": "H100-SXM-80GB",
    "n_chips": "1",
    "weights_dtype": "BF16",
    "framework": "TensorRT-LLM",
    "framework_version": "1.3.0rc20",
}
REDUCE = MATMUL | {"model": "collective:all_reduce bytes=1048576", "n_chips": "8", "framework_version": "2.29.2"}


def predicted(row: dict[str, str], **changes: str) -> KernelSeconds:
    return predict_kernel(parse_kernel_case(row | changes))


def half_width(made: KernelSeconds) -> float:
    return math.log(made.high_s / made.low_s) / 2.0


def test_a_matmul_takes_no_less_than_the_peak_allows_and_its_interval_is_the_family_s_own() -> None:
    made = predicted(MATMUL)
    assert 2 * 4096 * 8192 * 8192 / 989.4e12 < made.expected_s < 1.5e-3
    kernels = kernels_of(get_chip("h100-sxm"), "trtllm")
    assert kernels is not None
    family = kernels.find("matmul", ("bf16",))
    assert family is not None
    assert half_width(made) == pytest.approx(family.interval_log)
    assert made.high_s / made.expected_s == pytest.approx(made.expected_s / made.low_s)


@pytest.mark.parametrize(
    "changes",
    [
        {"framework_version": "0.9"},
        {"framework": "torch"},
        {"hardware": "H100-PCIe"},
        {"hardware": "MI300X"},
        {"model": "GEMM m=4096 n=8388608 k=8192"},
        {"model": "FP8 GEMM Grouped GEMMs for MoE models (masked layout): #groups,M/group,N,K=2x4096x8192x8192"},
    ],
    ids=["version", "software", "relative", "stranger", "outside", "groups"],
)
def test_what_was_not_measured_itself_is_less_sure(changes: dict[str, str]) -> None:
    assert half_width(predicted(MATMUL, **changes)) > 1.5 * half_width(predicted(MATMUL))


def test_half_precision_is_timed_as_bfloat16() -> None:
    assert predicted(MATMUL, weights_dtype="FP16") == predicted(MATMUL)


def test_a_stack_s_own_all_reduce_spans_both_ways_of_launching_it() -> None:
    own = {"framework": "vLLM custom allreduce"}
    graph, eager, either = (predicted(REDUCE, **own, notes=notes) for notes in ("mode=graph", "mode=eager", ""))
    assert graph.expected_s < eager.expected_s
    assert either.expected_s == graph.expected_s
    assert (either.low_s, either.high_s) == (graph.low_s, eager.high_s)


def test_nccl_is_one_library_under_any_stack_and_measured_without_one() -> None:
    made = predicted(REDUCE, framework="NCCL")
    assert half_width(made) < half_width(predicted(REDUCE, framework="NCCL", framework_version=""))
    # vLLM has no all_gather of its own
    gather = {"model": "collective:all_gather bytes=1048576"}
    assert predicted(REDUCE, **gather, framework="vLLM") == predicted(REDUCE, **gather, framework="NCCL")


def test_bytes_and_chips_make_a_collective_slower() -> None:
    small, large = (
        predicted(REDUCE, framework="NCCL", model=f"collective:all_reduce bytes={n}") for n in (2**20, 2**28)
    )
    assert small.expected_s < large.expected_s
    few, many = (predicted(REDUCE, framework="NCCL", n_chips=n) for n in ("2", "8"))
    assert few.expected_s < many.expected_s


def test_between_nodes_a_collective_goes_by_the_claims_of_the_wires() -> None:
    big = {"framework": "NCCL", "model": "collective:all_reduce bytes=1073741824"}
    inside, across = predicted(REDUCE, **big), predicted(REDUCE, **big, n_chips="16")
    # 16 chips pass 15/8 of the buffer through their ports; those of a node give 400 GB/s at best
    assert across.expected_s > 15 / 8 * 1073741824 / 400e9
    assert half_width(across) > half_width(inside)


def test_a_stream_reaches_most_of_what_memory_claims_and_no_more() -> None:
    made = predicted(MATMUL, model="stream read", weights_dtype="FP64", framework="CUDA")
    assert 0.7 < 2**32 / made.expected_s / 3.35e12 < 1.0


def test_attention_without_a_mask_is_about_twice_the_work() -> None:
    full, causal = (
        predicted(MATMUL, model=f"attention fwd hdim128 {mask} seqlen=16k", framework="FlashAttention-3")
        for mask in ("non-causal (inferred)", "causal (inferred)")
    )
    assert full.expected_s / causal.expected_s == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"model": "attention fwd hdim128 causal seqlen=1k", "framework": "FlashAttention-2"},
            "no measured stack runs the attention of FlashAttention-2 on h100-sxm",
        ),
        ({"hardware": "A100-SXM4-80GB", "weights_dtype": "FP8"}, "fp8"),
    ],
)
def test_a_kernel_that_nothing_stands_for_is_refused(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        predicted(MATMUL, **changes)


def test_rows_of_kernels_are_scored_the_same_in_several_processes() -> None:
    rows = [
        MATMUL | {"model": f"GEMM m={m} n=4096 k=4096", "metric": "latency", "unit": "us", "value": "50"}
        for m in range(1, 18)
    ]
    alone = score(rows, predict_row)
    assert all(row.prediction is not None for row in alone)
    assert [row.added() for row in score(rows, predict_row, jobs=2)] == [row.added() for row in alone]
