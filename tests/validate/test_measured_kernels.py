"""Published tables of kernels become measured rows; what they leave open is counted by reason."""

from pathlib import Path

import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.kernel_rows import kernel_frame
from shardwise.hardware_specs.measurement import Measurement
from shardwise.simulator.cost.sanity import LAUNCH_FLOOR, sane
from shardwise.validate.measured_kernels import MeasuredKernels, read_measured_kernels

COLUMNS = (
    "id,source,url_or_repo_path,commit_version,model,hardware,n_chips,weights_dtype,framework,framework_version,metric,unit,"
    "value,notes"
)


def _read(tmp_path: Path, *rows: str) -> MeasuredKernels:
    path = tmp_path / "kernels.csv"
    path.write_text("\n".join([COLUMNS, *rows]) + "\n", "utf-8")
    return read_measured_kernels(path)


def _one(tmp_path: Path, row: str) -> Measurement:
    found = _read(tmp_path, row)
    assert found.left_out == {}
    return found.rows[0]


def test_a_matmul_s_latency_becomes_seconds_and_keeps_where_it_is_from(tmp_path: Path) -> None:
    row = _one(
        tmp_path,
        "K-1,table,repo path,abc,GEMM m=8 n=16 k=32,A100-SXM4-80GB,1,INT8w/BF16a,TensorRT-LLM,1.0,latency,us,12.5,",
    )
    assert (row.chip, row.quantity, row.shape) == ("a100-80gb-sxm", "int8-wo matmul by trtllm", "m=8 n=16 k=32")
    assert row.p50 == pytest.approx(12.5e-6)
    assert (row.commit, row.date, row.command) == ("abc", "row K-1 of kernels.csv", "table: repo path")


@pytest.mark.parametrize(
    ("model", "dtype", "shape"),
    [
        ("GEMM best shape 1024x10240x5120 (MxNxK)", "bf16", "m=1024 n=10240 k=5120"),
        ('"FP8 GEMM Normal GEMMs for dense models: M,N,K=1024x10240x5120"', "fp8", "m=1024 n=10240 k=5120"),
    ],
)
def test_a_matmul_s_rate_gives_its_time(tmp_path: Path, model: str, dtype: str, shape: str) -> None:
    row = _one(tmp_path, f"K,s,u,c,{model},H100-SXM-80GB,1,{dtype},torch,2.6,throughput,TFLOP/s,271.2,")
    assert row.shape == shape
    assert row.p50 == pytest.approx(2 * 1024 * 10240 * 5120 / 271.2e12)


def test_a_bus_bandwidth_gives_the_time_of_a_collective(tmp_path: Path) -> None:
    row = _one(tmp_path, "K,s,u,c,collective:all_reduce(NVLS) bytes=1000000,H200-SXM-141GB,8,,NCCL,,busbw,GB/s,480.0,")
    assert (row.quantity, row.shape) == ("all_reduce by nccl", "bytes=1000000 chips=8 mode=nccl")
    assert row.p50 == pytest.approx(2 * 1e6 * 7 / 8 / 480e9)
    assert row.software.endswith("kernel NVLS")


@pytest.mark.parametrize(("kernel", "mode"), [("vLLM_custom_eager", "eager"), ("TRTLLM", "graph")])
def test_a_collective_s_launch_mode_is_that_of_its_kernel(tmp_path: Path, kernel: str, mode: str) -> None:
    model = "collective:all_reduce bytes=256"
    row = _one(
        tmp_path,
        f"K,s,u,c,{model},A100-SXM4-80GB,2,bfloat16,vllm custom allreduce,,latency,us,4.9,kernel={kernel}; x",
    )
    assert row.quantity == "bf16 all_reduce by vllm"
    assert row.shape == f"bytes=256 chips=2 mode={mode}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("dense MLA decode,H800,1,BF16,FlashMLA,,throughput,TFLOP/s,660,", "op or shape not stated in full"),
        ("GEMM m=1 n=1 k=1,no such chip,1,BF16,x,,latency,us,5,", "chip or format not known here"),
        ("GEMM m=1 n=1 k=1,H100,1,FP3,x,,latency,us,5,", "chip or format not known here"),
        ("GEMM m=1 n=1 k=1,H100,1,BF16,x,,latency,us,-5,", "value is no positive number"),
        ("GEMM m=1 n=1 k=1,H100,1,BF16,x,,latency,us,,", "value is no number"),
        ("GEMM m=1 n=1 k=1,H100,1,BF16,x,,mem_bandwidth,GB/s,1688,", "no latency and no rate that gives one"),
        ("collective:all_reduce bytes=8,H100,8,,NCCL,,busbw,GB/s,0.01,", "rate rounded too much"),
        ("collective:all_reduce bytes=8,H100,,,NCCL,,busbw,GB/s,100.5,", "number of chips not stated"),
    ],
)
def test_what_a_row_leaves_open_is_counted(tmp_path: Path, row: str, reason: str) -> None:
    found = _read(tmp_path, f"K,s,u,c,{row}")
    assert found.rows == ()
    assert found.left_out == {reason: 1}


def test_a_bandwidth_beside_a_latency_counts_once(tmp_path: Path) -> None:
    stem = "K,s,u,c,collective:all_reduce bytes=256,H100,2,FP16,NCCL,2.27"
    found = _read(tmp_path, f"{stem},latency,us,9.5,n", f"{stem},busbw,GB/s,0.0269,n")
    assert len(found.rows) == 1
    assert found.left_out == {"says again in another unit what a latency says": 1}


@pytest.mark.parametrize(("name", "least"), [("kernel_compute.csv", 3500), ("kernel_comm.csv", 800)])
def test_the_published_tables_are_read(shared_dir: Path, name: str, least: int) -> None:
    found = read_measured_kernels(shared_dir / "measured" / name)
    assert len(found.rows) >= least
    assert all(Measurement.model_validate(row.model_dump()) == row for row in found.rows[:50])
    frame = kernel_frame(found.rows)
    for chip, rows in frame.groupby("chip"):
        kept, refused = sane(get_chip(str(chip)), rows)
        assert len(kept) > 0.9 * len(rows), refused


def test_small_matmuls_over_large_weights_are_no_launches(shared_dir: Path) -> None:
    """One to 17 rows over the same weights take the same time, as they read the same bytes."""
    frame = kernel_frame(read_measured_kernels(shared_dir / "measured" / "kernel_compute.csv").rows)
    assert sane(get_chip("h100-sxm"), frame[frame["chip"] == "h100-sxm"])[1][LAUNCH_FLOOR] == 0
