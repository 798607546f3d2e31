"""The published kernel database: read as files, each table's columns and units as ours."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from shardwise.hardware_specs import kernel_database, kernel_package
from shardwise.hardware_specs.catalogue import load_chips
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.hardware_specs.kernel_database import OPS, imported_frame, imported_frameworks, imported_measurements
from shardwise.hardware_specs.kernel_package import CHIPS, database_folder
from shardwise.hardware_specs.kernel_rows import kernel_frame, measurements_of
from shardwise.hardware_specs.measurement import Measurement

pytest.importorskip("pyarrow")

Write = Callable[[str, pd.DataFrame], None]
ABOUT = {"framework": "TRTLLM", "version": "1", "device": "NVIDIA H100 80GB HBM3", "kernel_source": "torch_flow"}


def _installed() -> bool:
    try:
        return importlib.metadata.version(kernel_package.PACKAGE) == kernel_package.VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


needs_database = pytest.mark.skipif(not _installed(), reason="aiconfigurator-core is not installed")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Put tables of an h100-sxm into a database of our own."""
    monkeypatch.setattr(kernel_database, "database_folder", lambda: tmp_path)
    (tmp_path / "h100_sxm.yaml").write_text("node: {num_gpus_per_node: 8}\n", "utf-8")

    def put(name: str, frame: pd.DataFrame) -> None:
        path = tmp_path / "data" / "h100_sxm" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)

    return put


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([ABOUT | row for row in rows])


def _matmuls(n: int, dtype: str = "bfloat16", latency: float = 0.5) -> pd.DataFrame:
    return _table([{"gemm_dtype": dtype, "m": m, "n": 64, "k": 32, "latency": latency} for m in range(1, n + 1)])


def _only(op: str) -> tuple[Measurement, pd.Series]:
    """The one row of an op, as a row and as columns."""
    (row,) = imported_measurements("h100-sxm", op)
    return row, kernel_frame([row]).iloc[0]


def test_every_chip_of_the_database_is_in_the_catalogue() -> None:
    assert set(CHIPS) <= set(load_chips())


def test_a_matmul_is_in_seconds_and_says_whose_kernel_it_is(write: Write) -> None:
    write("gemm/trtllm/1.3.0rc20/gemm_perf", _matmuls(1, "fp8_block", latency=0.25))
    row, columns = _only("matmul")
    assert (row.chip, row.quantity, row.unit, row.shape) == (
        "h100-sxm", "fp8-block matmul by trtllm", "s", "m=1 n=64 k=32",
    )  # fmt: skip
    assert row.p20 == row.p50 == row.p80 == 0.25e-3
    assert row.n_repeats == 1
    assert row.software == "trtllm 1.3.0rc20, kernel torch_flow"
    assert row.commit == "aiconfigurator-core 0.12.0"
    assert columns[["op", "dtype", "framework", "version", "kernel"]].tolist() == [
        "matmul", "fp8-block", "trtllm", "1.3.0rc20", "torch_flow",
    ]  # fmt: skip
    assert Measurement.model_validate(row.model_dump()) == row


def test_the_newest_version_counts_unless_it_is_a_supplement(write: Write) -> None:
    for version, n in (("1.2.0", 9), ("1.10.0rc3", 8), ("1.9.0", 8), ("1.10.0", 1)):
        write(f"gemm/trtllm/{version}/gemm_perf", _matmuls(n))
    assert set(imported_frame("h100-sxm", "matmul")["version"]) == {"1.10.0rc3"}


def test_attention_reads_the_token_itself_as_context_and_a_missing_window_as_none(write: Write) -> None:
    attention = {
        "batch_size": 4, "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "attn_dtype": "bfloat16",
        "kv_cache_dtype": "fp8", "latency": 1.0,
    }  # fmt: skip
    write("attention/vllm/0.1.0/context_attention_perf", _table([attention | {"isl": 512, "step": 0}]))
    write("attention/vllm/0.1.0/generation_attention_perf", _table([attention | {"isl": 1, "step": 1023}]))
    prefill, decode = _only("prefill attention")[0], _only("decode attention")[0]
    assert prefill.shape == "batch=4 new=512 past=0 heads=32 kv_heads=8 d_head=128 window=0 kv=fp8"
    assert decode.shape == "batch=4 context=1024 heads=32 kv_heads=8 d_head=128 window=0 kv=fp8"


def test_messages_are_elements_and_their_launch_mode_is_told(write: Write) -> None:
    nccl = {"nccl_dtype": "half", "num_gpus": 8, "message_size": 1000, "latency": 0.02, "op_name": "alltoall"}
    write("comm/nccl/2.27.3/nccl_perf", _table([nccl | {"kernel_source": "NCCL"}]))
    own = {"allreduce_dtype": "bfloat16", "num_gpus": 4, "message_size": 512, "latency": 0.003}
    write("comm/trtllm/1.0.0/custom_allreduce_perf", _table([own]))
    write("comm/vllm/0.1.0/custom_allreduce_perf", _table([own | {"backend": "vllm_eager"}]))
    rows = {row.quantity: row for row in imported_measurements("h100-sxm", "collective")}
    assert {quantity: row.shape for quantity, row in rows.items()} == {
        "fp16 all_to_all by nccl": "bytes=2000 chips=8 mode=nccl",
        "bf16 all_reduce by trtllm": "bytes=1024 chips=4 mode=graph",
        "bf16 all_reduce by vllm": "bytes=1024 chips=4 mode=eager",
    }


def test_experts_say_how_unequally_they_are_chosen_and_whether_they_have_a_gate(write: Write) -> None:
    moe = {
        "moe_dtype": "w4a16_mxfp4", "num_tokens": 64, "hidden_size": 4096, "inter_size": 2048, "topk": 8,
        "num_experts": 128, "moe_tp_size": 2, "moe_ep_size": 4, "latency": 1.0,
    }  # fmt: skip
    rows = [moe | {"distribution": "power_law_1.01"}, moe | {"distribution": "balanced"}]
    rows[1] |= {"inter_size": 1856, "topk": 6}
    write("moe/sglang/0.1.0/moe_perf", _table(rows))
    skewed, plain = imported_measurements("h100-sxm", "moe")
    assert skewed.quantity == "mxfp4-wo moe by sglang"
    assert skewed.shape == "tokens=64 d_model=4096 d_ff=2048 top_k=8 experts=128 tp=2 ep=4 skew=1.01 gated=1"
    assert plain.shape.endswith("skew=0 gated=0")


def test_exchanges_between_experts_are_in_microseconds_and_span_nodes(write: Write) -> None:
    exchange = {
        "op_name": "ll", "node_num": 2, "hidden_size": 7168, "num_token": 128, "num_topk": 8, "num_experts": 256,
        "combine_avg_t_us": 300.0, "dispatch_avg_t_us": 150.0,
    }  # fmt: skip
    write("comm/sglang/0.1.0/wideep_deepep_ll_perf", _table([exchange]))
    write("comm/sglang/0.2.0/wideep_deepep_ll_perf", _table([exchange | {"node_num": 1}, exchange | {"node_num": 4}]))
    frame = imported_frame("h100-sxm", "moe all_to_all")
    assert sorted(set(frame["chips"])) == [8.0, 16.0, 32.0]
    assert frame.groupby("phase")["seconds"].max().to_dict() == pytest.approx({"combine": 3e-4, "dispatch": 1.5e-4})


def test_rows_without_a_time_stay_in_the_columns_but_are_no_measurements(write: Write) -> None:
    write("gemm/vllm/0.1.0/gemm_perf", pd.concat([_matmuls(2), _matmuls(1, latency=float("nan"))]))
    assert len(imported_frame("h100-sxm", "matmul")) == 3
    assert len(imported_measurements("h100-sxm", "matmul")) == 2


def test_an_unknown_format_or_a_table_of_another_make_is_refused(write: Write) -> None:
    write("gemm/vllm/0.1.0/gemm_perf", _matmuls(1, "fp3"))
    with pytest.raises(SpecError, match="fp3"):
        imported_frame("h100-sxm", "matmul")
    write("gemm/vllm/0.1.0/gemm_perf", _matmuls(1).drop(columns="k"))
    with pytest.raises(SpecError, match="no column"):
        imported_frame("h100-sxm", "matmul")


def test_a_broken_file_is_refused_by_name(write: Write, tmp_path: Path) -> None:
    write("gemm/vllm/0.1.0/gemm_perf", _matmuls(1))
    path = tmp_path / "data" / "h100_sxm" / "gemm" / "vllm" / "0.1.0" / "gemm_perf.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SpecError, match=r"gemm_perf\.parquet cannot be read"):
        imported_frame("h100-sxm", "matmul")


def test_a_chip_that_is_not_there_and_an_unknown_op_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="tpu-v4"):
        imported_frame("tpu-v4")
    with pytest.raises(UnknownNameError, match="did you mean matmul"):
        imported_frame("h100-sxm", "matmull")


@pytest.mark.parametrize("version", [None, "0.11.0"])
def test_without_the_package_the_command_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    def distribution(name: str) -> object:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return type("Distribution", (), {"version": version})

    monkeypatch.setattr(kernel_package.metadata, "distribution", distribution)
    database_folder.cache_clear()
    with pytest.raises(SpecError, match=r"pip install"):
        database_folder()
    database_folder.cache_clear()


def test_columns_and_rows_are_each_other_s_inverse() -> None:
    frame = pd.DataFrame(
        {
            "chip": "h100-sxm", "op": ["matmul", "all_reduce"], "dtype": ["bf16", ""], "framework": "vllm",
            "version": "0.1.0", "kernel": "k", "device": "NVIDIA H100", "seconds": [1e-3, 2e-3],
            "m": [8.0, None], "bytes": [None, 1024.0], "mode": ["", "graph"],
        }
    )  # fmt: skip
    rows = measurements_of(frame, command="c", commit="c", date="d")
    assert [(row.quantity, row.shape) for row in rows] == [
        ("bf16 matmul by vllm", "m=8"),
        ("all_reduce by vllm", "bytes=1024 mode=graph"),
    ]
    pd.testing.assert_frame_equal(kernel_frame(rows), frame, check_like=True, check_dtype=False)


def test_rows_of_the_bench_go_by_the_same_names() -> None:
    about = {
        "unit": "s",
        "p20": 1e-3,
        "p50": 1e-3,
        "p80": 1e-3,
        "n_repeats": 3,
        "command": "",
        "commit": "",
        "date": "",
    }
    row = Measurement.model_validate(
        about
        | {
            "chip": "h100-sxm", "device": "NVIDIA H100", "software": "python 3.11, torch 2.6",
            "quantity": "bf16 decode_attention by torch", "shape": "b=4 s=100 h=32 k=8 d=128",
        }
    )  # fmt: skip
    columns = kernel_frame([row, row.model_copy(update={"unit": "flop/s"})])
    assert len(columns) == 1
    assert columns.loc[0, ["op", "dtype", "kv", "context", "kv_heads", "window"]].tolist() == [
        "decode attention", "bf16", "bf16", 100.0, 8.0, 0.0,
    ]  # fmt: skip


@needs_database
@pytest.mark.parametrize("chip", CHIPS)
def test_the_database_has_matmuls_and_collectives_of_every_chip(chip: str) -> None:
    assert imported_frameworks(chip)
    for op in ("matmul", "collective"):
        frame = imported_frame(chip, op)
        assert len(frame) > 100
        assert not frame.dropna(axis="columns", how="all").isna().any(axis=None)


@needs_database
def test_gathered_bytes_of_the_database_are_the_whole_buffer() -> None:
    frame = imported_frame("a100-80gb-sxm", "collective")
    gathers = frame[(frame["op"] == "all_gather") & (frame["chips"] == 8.0) & (frame["bytes"] == 2.0**29)]
    into_a_chip = gathers["bytes"] * 7 / 8 / gathers["seconds"]
    assert into_a_chip.between(150e9, 300e9).all()  # were it one chip's part: 1.6 TB/s over links of 300 GB/s


@needs_database
def test_every_op_of_an_h100_makes_rows_that_read_back_as_they_were() -> None:
    for op in OPS:
        frame = imported_frame("h100-sxm", op).iloc[::50].reset_index(drop=True)
        rows = measurements_of(frame, command="c", commit="c", date="d")
        back = kernel_frame(rows)
        assert all(Measurement.model_validate(row.model_dump()) == row for row in rows[:20])
        pd.testing.assert_frame_equal(back, frame[back.columns], check_dtype=False)
