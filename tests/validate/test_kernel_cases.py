"""Rows of kernels become cases and targets: shapes as the names have them, rates by the books of those who measure."""

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.validate.kernel_cases import (
    AttentionKernel,
    CollectiveKernel,
    KernelSeconds,
    MatmulKernel,
    StreamKernel,
    is_kernel_row,
    parse_kernel_case,
    parse_kernel_target,
)
from shardwise.validate.score import score

ROW = {
    "model": "GEMM m=8 n=16 k=32",
    "hardware": "H100-SXM-80GB",
    "n_chips": "1",
    "weights_dtype": "BF16",
    "framework": "TensorRT-LLM",
    "framework_version": "1.3.0rc20",
    "metric": "latency",
    "unit": "us",
    "value": "10",
}
SECONDS = KernelSeconds(expected_s=2e-6, low_s=1e-6, high_s=4e-6)


def kernel(model: str, **changes: str) -> object:
    return parse_kernel_case(ROW | changes | {"model": model}).kernel


def told(**changes: str) -> tuple[float, float | None, float | None]:
    row = ROW | changes
    made = parse_kernel_target(row, parse_kernel_case(row).kernel).read(SECONDS)
    return made.predicted, made.low, made.high


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("GEMM m=8 n=16 k=32", MatmulKernel(dtype="bf16", m=8, n=16, k=32)),
        ("GEMM best shape 8x16x32 (MxNxK)", MatmulKernel(dtype="bf16", m=8, n=16, k=32)),
        ("FP8 GEMM Normal GEMMs for dense models: M,N,K=8x16x32", MatmulKernel(dtype="bf16", m=8, n=16, k=32)),
        (
            "FP8 GEMM Grouped GEMMs for MoE models (masked layout): #groups,M/group,N,K=2x8x16x32",
            MatmulKernel(dtype="bf16", m=8, n=16, k=32, groups=2),
        ),
        (
            "attention fwd hdim128 non-causal (inferred) seqlen=2k",
            AttentionKernel(dtype="bf16", batch=8, tokens=2048, heads=16, d_head=128, causal=False),
        ),
        (
            "attention fwd hdim256 (causal inferred) seqlen=512",
            AttentionKernel(dtype="bf16", batch=32, tokens=512, heads=8, d_head=256, causal=True),
        ),
        (
            "attention fwd heads4 hdim64 seq=512 B3",
            AttentionKernel(dtype="bf16", batch=3, tokens=512, heads=4, d_head=64, causal=False),
        ),
        ("stream triad", StreamKernel()),
    ],
)
def test_the_name_of_a_row_is_a_kernel(model: str, expected: object) -> None:
    assert is_kernel_row({"model": model})
    assert kernel(model) == expected


def test_a_collective_takes_its_chips_from_the_row_and_its_mode_from_the_notes_where_they_name_one() -> None:
    assert kernel("collective:alltoall bytes=4096", n_chips="4") == CollectiveKernel(
        kind="all_to_all", n_bytes=4096, n_chips=4
    )
    eager = kernel("collective:all_reduce(ring) bytes=8", n_chips="2", notes="mode=eager; kernel=other")
    assert eager == CollectiveKernel(kind="all_reduce", n_bytes=8, n_chips=2, mode="eager")


def test_deepgemm_scales_blocks() -> None:
    made = kernel(ROW["model"], framework="DeepGEMM", weights_dtype="FP8")
    assert isinstance(made, MatmulKernel)
    assert made.dtype == "fp8-block"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "dense MLA decode, memory-bound"}, "does not say a shape"),
        ({"model": "moe_all2all:V2 12 SMs", "hardware": "SM100 CX7"}, "does not say a shape"),
        ({"model": "collective:all_reduce bytes=8"}, "n_chips='1'"),
        ({"hardware": "h1000"}, "no chip 'h1000'"),
        ({"weights_dtype": "FP7"}, "format of kernels"),
    ],
)
def test_a_row_that_says_too_little_is_refused_with_the_reason(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_kernel_case(ROW | changes)


def test_a_latency_is_told_in_its_unit() -> None:
    assert told() == pytest.approx((2.0, 1.0, 4.0))
    assert told(unit="ms") == pytest.approx((2e-3, 1e-3, 4e-3))


def test_a_rate_is_work_over_time_and_its_ends_change_places() -> None:
    flop = 2 * 8 * 16 * 32
    rate = flop / 2e-6 / 1e12
    assert told(metric="throughput", unit="TFLOP/s") == pytest.approx((rate, rate / 2, rate * 2))
    moved = 2 * (8 * 32 + 32 * 16 + 8 * 16)
    assert told(metric="mem_bandwidth", unit="GB/s")[0] == pytest.approx(moved / 2e-6 / 1e9)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("all_reduce", 2 * 3 / 4), ("all_gather", 3 / 4), ("reduce_scatter", 3 / 4), ("alltoall", 3 / 4)],
)
def test_bus_bandwidth_counts_what_nccl_tests_counts(kind: str, factor: float) -> None:
    model = f"collective:{kind} bytes=1000"
    found = told(model=model, n_chips="4", metric="busbw", unit="GB/s")
    assert found[0] == pytest.approx(factor * 1000 / 2e-6 / 1e9)


# DeepGEMM prints both figures of one run: 1297 TFLOP/s and 418 GB/s.
def test_deepgemm_s_two_rates_are_of_one_time() -> None:
    made = kernel(
        "FP8 GEMM Grouped GEMMs for MoE models (contiguous layout): #groups,M/group,N,K=4x8192x4096x7168",
        framework="DeepGEMM", weights_dtype="FP8",
    )  # fmt: skip
    assert isinstance(made, MatmulKernel)
    assert made.moved_bytes / 418e9 == pytest.approx(made.flop / 1297e12, rel=0.002)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metric": "dispatch_latency"}, "'dispatch_latency' is not predicted"),
        ({"unit": "GB/s"}, "does not fit metric 'latency'"),
        ({"metric": "busbw", "unit": "GB/s"}, "no collective"),
        ({"metric": "throughput", "unit": "TFLOP/s", "model": "stream read"}, "computes nothing"),
    ],
)
def test_a_metric_that_a_kernel_does_not_have_is_refused(changes: dict[str, str], reason: str) -> None:
    row = ROW | changes
    with pytest.raises(SpecError, match=reason):
        parse_kernel_target(row, parse_kernel_case(row).kernel)


def test_scoring_asks_once_of_a_kernel_whatever_was_measured_of_it() -> None:
    asked = []

    def predict(case: object) -> KernelSeconds:
        asked.append(case)
        return SECONDS

    rows = [ROW, ROW | {"metric": "throughput", "unit": "TFLOP/s", "value": "1"}, ROW | {"model": "stream"}]
    latency, rate, refused = score(rows, predict)
    assert len(asked) == 1
    assert latency.error == pytest.approx(2.0 / 10.0 - 1.0)
    assert latency.inside is False
    assert rate.target is not None
    assert rate.target.is_rate
    assert refused.prediction is None
    assert "does not say a shape" in refused.reason
