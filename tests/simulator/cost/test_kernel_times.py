"""The kernel fits that ship: how near they are to rows that they were not made on, and that more never takes less time."""

import json
from importlib.resources import files

import numpy as np
import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.dtypes import DTYPES
from shardwise.simulator.cost.kernel_families import FAMILIES
from shardwise.simulator.cost.kernel_fit import KernelRows, widths_of
from shardwise.simulator.cost.kernel_forms import Widths, passes_of
from shardwise.simulator.cost.kernel_times import (
    KernelFamily,
    KernelTimes,
    chip_rates,
    computing_format,
    dump_kernel_fit,
    read_kernel_fit,
    shipped_kernel_fit,
)

FOLDER = files("shardwise.simulator.cost") / "fits" / "kernels"
SHIPPED = sorted(
    path.name.removesuffix(".json")
    for path in FOLDER.iterdir()
    if path.name.endswith(".json") and not path.name.startswith("cpu")
)
JUDGED = [(chip, stack) for chip in ("a100-80gb-sxm", "h100-sxm", "h200-sxm") for stack in ("vllm", "trtllm", "sglang")]
# Median error of the rows held out that each kind of kernel may have.
BARS = {
    "matmul": 0.05,
    "decode attention": 0.05,
    "prefill attention": 0.07,
    "all_reduce": 0.10,
    "all_gather": 0.10,
    "moe": 0.10,
}
# One table is noisier than its bar allows: the same matmul with one row more takes 4-5 % more or less, some twice as long.
NOISY = {("h200-sxm", "sglang", "matmul", "fp8-block"): 0.07}
# What a half of the error of the rows themselves allows, or the interval is no use.
WIDEST_LOG = {"matmul": 0.25, "decode attention": 0.3, "prefill attention": 0.25, "moe": 0.5}


def times(name: str) -> KernelTimes:
    chip, stack = name.rsplit(".", 1)
    fit = shipped_kernel_fit(chip, stack)
    assert fit is not None
    return KernelTimes(get_chip(chip), fit)


@pytest.mark.parametrize(("chip", "stack"), JUDGED)
def test_the_median_error_of_rows_held_out_is_below_its_bar(chip: str, stack: str) -> None:
    judged = 0
    for family in json.loads((FOLDER / f"{chip}.{stack}.json").read_text("utf-8"))["families"]:
        kind = family["variant"] if family["op"] == "collective" else family["op"]
        if kind in BARS:
            judged += 1
            bar = NOISY.get((chip, stack, family["op"], family["variant"]), BARS[kind])
            assert family["median_error"] <= bar, (kind, family["variant"], family["kv"])
            assert family["interval_log"] <= WIDEST_LOG.get(kind, 0.5), (kind, family["variant"], family["kv"])
    assert judged >= 6


@pytest.mark.parametrize("name", SHIPPED)
def test_a_fit_is_small_and_named_as_its_chip_and_stack(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text("utf-8")
    assert len(text) < 250_000
    fit = read_kernel_fit(text, name)
    assert f"{fit.chip}.{fit.stack}" == name
    keys = [family.key for family in fit.families]
    assert len(keys) == len(set(keys))
    assert dump_kernel_fit(fit) == text


# Exponents of two from and to which each size goes.
_HEADS = {"batch": (0, 8), "kv_heads": (0, 3), "heads": (3, 6), "d_head": (7, 7)}
LATTICES: dict[str, dict[str, tuple[int, int]]] = {
    "matmul": {"m": (0, 14), "n": (7, 15), "k": (7, 14)},
    "prefill attention": {**_HEADS, "new": (4, 13)},
    "decode attention": {**_HEADS, "context": (1, 15)},
    "collective": {"bytes": (9, 28), "chips": (1, 3)},
    "moe": {"tokens": (0, 13), "ep": (0, 3)},
}
FIXED = {"window": 0.0, "past": 0.0, "d_model": 4096.0, "d_ff": 1536.0, "top_k": 8.0, "experts": 128.0} | {
    "tp": 1.0, "skew": 0.0, "gated": 1.0,
}  # fmt: skip


# Of families measured of one or two models only, what lies between says little.
SHRINKING = {"moe": 0.12}


def lattice(family: KernelFamily) -> dict[str, np.ndarray]:
    """Shapes all over what was measured of a family; not every one was."""
    rng = np.random.default_rng(0)
    sizes = {name: 2.0 ** rng.integers(low, high + 1, 2000) for name, (low, high) in LATTICES[family.op].items()}
    passes = passes_of(family.variant)
    return {name: np.full(2000, size) for name, size in {**FIXED, "passes": passes}.items()} | sizes


@pytest.mark.parametrize("name", SHIPPED)
def test_more_work_hardly_ever_takes_less_time(name: str) -> None:
    kernels = times(name)
    for family in kernels.fit.families:
        if family.op not in LATTICES:
            continue
        shape, rates = lattice(family), chip_rates(kernels.chip, computing_format(family.variant))
        widths = widths_of(
            KernelRows(op=family.op, variant=family.variant, kv=family.kv, software="", shape={}, seconds=np.ones(0))
        )
        small = family.time(shape, rates, widths)
        for size in FAMILIES[family.op].grows:
            large = family.time({**shape, size: 2.0 * shape[size]}, rates, widths)
            measured = ~(family.outside(small.features) | family.outside(large.features))
            shrinks = measured & (large.total_s < 0.97 * small.total_s)
            # pairs of measured shapes are pushed until they hardly shrink; these lie between them, or beside
            assert shrinks.sum() <= measured.sum() * SHRINKING.get(family.op, 0.02), (family.key, size)


def test_a_table_of_candidates_is_as_each_alone() -> None:
    kernels = times("h100-sxm.vllm")
    family = kernels.find("matmul", ("bf16",))
    assert family is not None
    rows = np.tile(np.arange(1.0, 1001.0), 40)
    many = kernels.time(family, {"m": rows, "n": 4096.0, "k": 8192.0 / (1.0 + (rows % 2.0))}, DTYPES["bf16"], Widths())
    assert many.time.total_s.shape == many.outside.shape == rows.shape
    for place in (0, 77, 20_000, 39_999):
        shape = {"m": float(rows[place]), "n": 4096.0, "k": 8192.0 / (1.0 + float(rows[place]) % 2.0)}
        alone = kernels.time(family, shape, DTYPES["bf16"], Widths())
        assert many.time.total_s[place] == pytest.approx(float(alone.time.total_s), rel=1e-12)


def test_a_shape_beyond_what_was_measured_is_marked() -> None:
    kernels = times("h100-sxm.vllm")
    family = kernels.find("matmul", ("bf16",))
    assert family is not None
    made = kernels.time(family, {"m": np.array([1.0, 4096.0, 1e6]), "n": 4096.0, "k": 4096.0}, DTYPES["bf16"], Widths())
    assert made.outside.tolist() == [False, False, True]
    assert not kernels.time(family, {"m": 1.0, "n": 4096.0, "k": 4096.0}, DTYPES["bf16"], Widths()).outside


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(("gb", "b", "h"))])
def test_collectives_of_a_whole_domain_are_sane_and_marked(name: str) -> None:
    kernels = times(name)
    for family in kernels.fit.families:
        if family.op != "collective":
            continue
        chips = np.array([8.0, 16.0, 72.0])
        for n_bytes in (1e4, 1e9):
            shape = {"bytes": n_bytes, "chips": chips, "passes": 1.0}
            made = kernels.time(family, shape, DTYPES["bf16"], Widths())
            # nine times as many chips: at most nine times the hops, and no more bytes sent by each
            assert (np.diff(made.time.total_s) >= 0.0).all(), family.key
            assert made.time.total_s[2] < 10.0 * made.time.total_s[0], family.key
        assert made.outside[2]


def test_no_fit_is_made_up() -> None:
    assert shipped_kernel_fit("h100-sxm", "a stack of no one") is None
