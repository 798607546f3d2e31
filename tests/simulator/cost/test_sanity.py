"""Measured kernels that cannot be are refused by reason and counted; what may be stands as it was."""

import math

import numpy as np
import pandas as pd
import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.chip import Switch
from shardwise.simulator.cost import sanity
from shardwise.simulator.cost.kernel_work import kernel_work, shape_of, wire_bytes
from shardwise.simulator.cost.sanity import sane

H100 = get_chip("h100-sxm")
PEAK, MEMORY = H100.dense_flop_per_s["bf16"].value, H100.hbm_bytes_per_s.value
ABOUT = {"chip": "h100-sxm", "dtype": "bf16", "framework": "vllm", "version": "0", "kernel": "k", "device": "d"}


def _frame(op: str, rows: list[dict[str, object]], **about: object) -> pd.DataFrame:
    return pd.DataFrame([ABOUT | {"op": op} | about | row for row in rows])


def _matmul(seconds: float, m: float = 4096.0, n: float = 4096.0, k: float = 4096.0) -> dict[str, object]:
    return {"m": m, "n": n, "k": k, "seconds": seconds}


def _decode(seconds: float, **shape: float) -> dict[str, object]:
    usual = {"batch": 64.0, "context": 8192.0, "heads": 32.0, "kv_heads": 8.0, "d_head": 128.0, "window": 0.0}
    return usual | shape | {"kv": "bf16", "seconds": seconds}


@pytest.mark.parametrize("seconds", [math.nan, 0.0, -1e-3, math.inf])
def test_a_time_that_is_no_positive_number_is_refused(seconds: float) -> None:
    kept, refused = sane(H100, _frame("matmul", [_matmul(seconds), _matmul(1e-3)]))
    assert refused == {sanity.NOT_POSITIVE: 1}
    assert kept["seconds"].tolist() == [1e-3]


@pytest.mark.parametrize("m", [0.0, -1.0, math.nan])
def test_a_size_that_is_no_positive_number_is_refused(m: float) -> None:
    assert sane(H100, _frame("matmul", [_matmul(1e-3, m=m), _matmul(1e-3)]))[1] == {sanity.NOT_POSITIVE: 1}


def test_a_matmul_above_the_dense_peak_is_refused_and_one_below_stands() -> None:
    least = 2.0 * 4096.0**3 / PEAK
    kept, refused = sane(H100, _frame("matmul", [_matmul(0.9 * least), _matmul(1.1 * least, n=4096.0)]))
    assert refused == {sanity.ABOVE_PEAK: 1}
    assert kept["seconds"].tolist() == [1.1 * least]


def test_weights_of_eight_bits_over_wide_activations_have_the_peak_of_the_activations() -> None:
    between = 1.5 * 2.0 * 4096.0**3 / (2.0 * PEAK)
    assert sane(H100, _frame("matmul", [_matmul(between)], dtype="fp8"))[1] == {}
    assert sane(H100, _frame("matmul", [_matmul(between)], dtype="int8-wo"))[1] == {sanity.ABOVE_PEAK: 1}


def test_attention_that_reads_its_cache_faster_than_the_memory_is_refused() -> None:
    cache = 2 * 64 * 8192 * 8 * 128 * 2
    kept, refused = sane(H100, _frame("decode attention", [_decode(f * cache / MEMORY) for f in (0.8, *[1.3] * 20)]))
    assert refused[sanity.ABOVE_MEMORY] == 1
    assert len(kept) == 1  # the same key twenty times


def test_what_fits_into_the_cache_may_be_read_faster_than_the_memory() -> None:
    small = _decode(1e-6, batch=1.0, context=4096.0)
    assert sane(H100, _frame("decode attention", [small]))[1] == {}


def test_a_window_is_all_that_a_decoded_token_reads() -> None:
    time_of_window = 2 * 64 * 1024 * 8 * 128 * 2 / MEMORY
    row = _decode(1.1 * time_of_window, context=65536.0)
    assert sane(H100, _frame("decode attention", [row | {"window": 1024.0}]))[1] == {}
    assert sanity.ABOVE_MEMORY in sane(H100, _frame("decode attention", [row]))[1]


def test_a_table_that_passes_the_memory_rate_in_many_rows_is_refused_whole() -> None:
    cache = 2 * 64 * 8192 * 8 * 128 * 2
    rows = [
        _decode(f * cache / MEMORY * n / 64, batch=float(n)) for n in range(64, 84) for f in [0.7 if n < 70 else 1.2]
    ]
    other = _frame("decode attention", [_decode(1.2 * cache / MEMORY)], framework="sglang")
    kept, refused = sane(H100, pd.concat([_frame("decode attention", rows), other]))
    assert refused == {sanity.ABOVE_MEMORY: 6, sanity.UNTRUSTED: 14}
    assert kept["framework"].tolist() == ["sglang"]


def test_attention_over_a_narrow_cache_may_run_at_that_format_s_peak() -> None:
    row = {
        "batch": 64.0,
        "context": 65536.0,
        "heads": 128.0,
        "kv": "fp8",
        "seconds": 1.5 * 64 * 65536 * 128 * 4 * 544 / 2 / PEAK,
    }
    assert sane(H100, _frame("mla decode", [row]))[1] == {}
    assert sane(H100, _frame("mla decode", [row | {"kv": "bf16"}]))[1] == {sanity.ABOVE_PEAK: 1}


@pytest.mark.parametrize(("chip", "passes"), [("h100-sxm", 1.0), ("l40s", 2.0)])
def test_a_switch_may_add_up_on_the_way_and_cards_on_a_bus_may_not(chip: str, passes: float) -> None:
    """An all_reduce over a switch that reduces sends every byte once; without one it sends it twice."""
    links = get_chip(chip).scale_up
    assert isinstance(links, Switch)
    least = passes * 2.0**30 * 7 / 8 / links.bytes_per_s.value
    rows = [{"bytes": 2.0**30, "chips": 8.0, "mode": "nccl", "seconds": f * least} for f in (0.9, 1.1)]
    assert sane(get_chip(chip), _frame("all_reduce", rows, dtype="fp16"))[1] == {sanity.ABOVE_LINKS: 1}


def test_launches_that_were_timed_instead_of_kernels_are_refused() -> None:
    """As an fp8-block table launched eagerly: 55 us and more whatever the work, longer only for what takes longer."""
    rng = np.random.default_rng(0)
    launched = [_matmul(55e-6 * (1.0 + 0.5 * u), n=8.0 * (1 + i), k=64.0) for i, u in enumerate(rng.random(100))]
    long = [_matmul(2.0 * 2.0 * m * 8192.0**2 / PEAK, m=m, n=8192.0, k=8192.0) for m in (4096.0, 8192.0)]
    kept, refused = sane(H100, _frame("matmul", launched + long, dtype="fp8-block"))
    assert refused[sanity.LAUNCH_FLOOR] >= 95
    assert kept["m"].tolist()[-2:] == [4096.0, 8192.0]
    same = [_matmul(55e-6, m=m, n=8192.0, k=8192.0) for m in (1.0, 2.0, 4.0, 16.0)]  # the same bytes, so the same time
    assert sane(H100, _frame("matmul", same))[1] == {}
    assert sane(H100, _frame("matmul", [row | {"seconds": row["seconds"] / 10} for row in launched]))[1] == {}


def test_rows_of_one_key_become_their_median_and_are_counted() -> None:
    rows = [_matmul(s) for s in (1e-3, 3e-3, 2e-3)] + [_matmul(5e-3, m=1.0)]
    kept, refused = sane(H100, _frame("matmul", rows))
    assert kept["seconds"].tolist() == [2e-3, 5e-3]
    assert refused == {sanity.DUPLICATE: 2}


def test_ops_of_one_frame_are_judged_apart_and_no_column_leaks() -> None:
    both = pd.concat([_frame("matmul", [_matmul(1e-3)]), _frame("decode attention", [_decode(1.0)])], ignore_index=True)
    kept, refused = sane(H100, both)
    assert len(kept) == 2
    assert refused == {}


def test_a_size_that_only_another_software_names_is_not_missed() -> None:
    named, unnamed = [_matmul(1e-3) | {"copies": 2.0}, _matmul(2e-3, m=1.0)], [_matmul(1e-3)]
    both = pd.concat([_frame("matmul", named), _frame("matmul", unnamed, framework="torch")], ignore_index=True)
    kept, refused = sane(H100, both)
    assert kept["framework"].tolist() == ["vllm", "torch"]
    assert refused == {sanity.NOT_POSITIVE: 1}


def test_an_op_without_a_form_is_only_checked_for_its_numbers() -> None:
    frame = _frame("norm", [{"rows": 8.0, "seconds": 1e-9}, {"rows": 8.0, "seconds": math.nan}])
    assert sane(H100, frame)[1] == {sanity.NOT_POSITIVE: 1}


def test_no_rows_are_no_rows() -> None:
    kept, refused = sane(H100, _frame("matmul", []).reindex(columns=["op", "dtype", "seconds"]))
    assert len(kept) == 0
    assert refused == {}


def test_experts_work_on_their_share_of_the_tokens_and_read_each_that_is_touched() -> None:
    shape = {
        "tokens": 1024.0, "d_model": 4096.0, "d_ff": 2048.0, "top_k": 8.0, "experts": 64.0, "tp": 2.0, "ep": 4.0,
        "skew": 0.0, "gated": 1.0, "seconds": 1.0,
    }  # fmt: skip
    work = kernel_work("moe", "fp8", "", shape_of(pd.DataFrame([shape])))
    assert work.flop == pytest.approx(2 * 1024 * 8 / 4 * 3 * 4096 * 1024)
    assert work.moved_bytes == pytest.approx(16 * 3 * 4096 * 1024)


def test_an_exchange_between_experts_sends_each_token_once_at_least() -> None:
    shape = {name: np.array([value]) for name, value in {"tokens": 128.0, "d_model": 7168.0, "chips": 8.0}.items()}
    assert wire_bytes("moe all_to_all", "bf16", shape, reduces_in_network=True) == pytest.approx(128 * 7168 * 2 * 7 / 8)
    assert wire_bytes("matmul", "bf16", shape, reduces_in_network=True) == pytest.approx(0.0)
