"""Forms of kernels: their dimension, and that more work or slower chips never take less time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.models.ops import touched_experts
from shardwise.simulator.cost.kernel_families import FAMILIES, HOST_FAMILIES, Family
from shardwise.simulator.cost.kernel_forms import ChipRates, KernelTime, Widths

U = pint.UnitRegistry(None)
U.define("second = [time] = s")

SHAPES: dict[str, dict[str, float]] = {
    "matmul": {"m": 300.0, "n": 4096.0, "k": 1024.0},
    "prefill attention": {
        "batch": 3.0, "new": 700.0, "past": 100.0, "heads": 32.0, "kv_heads": 8.0, "d_head": 128.0, "window": 0.0,
    },
    "decode attention": {
        "batch": 3.0, "context": 700.0, "heads": 32.0, "kv_heads": 8.0, "d_head": 128.0, "window": 512.0,
    },
    "collective": {"bytes": 1e6, "chips": 4.0, "passes": 2.0},
    "moe": {
        "tokens": 64.0, "d_model": 4096.0, "d_ff": 1536.0, "top_k": 8.0, "experts": 128.0, "tp": 1.0, "ep": 4.0,
        "skew": 0.0, "gated": 1.0,
    },
    "pointwise": {"bytes": 1e6, "rows": 64.0},
}  # fmt: skip
# What the cores of a host run has forms of its own.
_ON_HOST: dict[str, Family] = {f"{op} on a host": family for op, family in HOST_FAMILIES.items()}
SHAPES |= {name: SHAPES[name.removesuffix(" on a host")] for name in _ON_HOST}
FORMS: dict[str, Family] = {**FAMILIES, **_ON_HOST}
RATES = ChipRates(flop_per_s=1e15, bytes_per_s=3e12, link_bytes_per_s=4.5e11, n_units=132.0)


def timed(op: str, shape: dict[str, Any], rates: ChipRates = RATES, unit: Any = 1.0) -> KernelTime:
    family = FORMS[op]
    constants = {name: start * (unit if name.endswith("_s") else 1.0) for name, (start, *_) in family.ranges.items()}
    return family.form(shape, constants, rates, Widths())


@pytest.mark.parametrize("op", SHAPES)
def test_it_has_the_dimension_of_time(op: str) -> None:
    # flop and bytes are counts here: features are logarithms of them
    per_s = {name: getattr(RATES, name) / U.s for name in ("flop_per_s", "bytes_per_s", "link_bytes_per_s")}
    time = timed(op, SHAPES[op], replace(RATES, **per_s), U.s)
    for part in (time.compute_s, time.memory_s, time.comm_s, time.fixed_s):
        assert part == 0.0 or part.check("[time]")
    assert time.total_s.to("s").magnitude == pytest.approx(float(timed(op, SHAPES[op]).total_s))


@pytest.mark.parametrize("op", SHAPES)
def test_many_shapes_are_as_each_alone(op: str) -> None:
    sizes = np.array([1.0, 3.0, 17.0, 128.0])
    for name, size in SHAPES[op].items():
        grown = size * (sizes if name in FORMS[op].grows else np.ones(4))
        many = timed(op, {**SHAPES[op], name: grown})
        alone = [timed(op, {**SHAPES[op], name: float(x)}).total_s for x in grown]
        np.testing.assert_allclose(many.total_s + np.zeros(4), alone, rtol=1e-12)


@pytest.mark.parametrize("op", SHAPES)
@given(size=st.integers(1, 5000), more=st.integers(0, 5000))
def test_more_work_never_takes_less_time(op: str, size: int, more: int) -> None:
    for name in FORMS[op].grows:
        small = timed(op, {**SHAPES[op], name: float(size)})
        large = timed(op, {**SHAPES[op], name: float(size + more)})
        assert large.total_s >= small.total_s * (1.0 - 1e-12)


@pytest.mark.parametrize("op", SHAPES)
def test_a_faster_chip_never_takes_longer(op: str) -> None:
    for name in ("flop_per_s", "bytes_per_s", "link_bytes_per_s"):
        faster = replace(RATES, **{name: 2.0 * getattr(RATES, name)})
        assert timed(op, SHAPES[op], faster).total_s <= timed(op, SHAPES[op]).total_s


def test_a_collective_of_many_chips_still_has_the_time_of_its_bytes_and_hops() -> None:
    # measured are 8 chips at most; a domain has up to 72
    chips = np.array([8.0, 16.0, 36.0, 72.0])
    small = timed("collective", {"bytes": 1e3, "chips": chips, "passes": 1.0}).total_s
    large = timed("collective", {"bytes": 1e9, "chips": chips, "passes": 1.0}).comm_s
    assert (np.diff(small) > 0.0).all()
    assert (np.diff(large) > 0.0).all()
    # all but the own part of the bytes is sent, so at most 8/7 more than among 8
    assert large[-1] < large[0] * 8.0 / 7.0


def test_experts_touched_are_no_more_than_there_are_and_no_more_than_rows() -> None:
    tokens = np.array([1.0, 4.0, 64.0, 4096.0])
    touched = touched_experts(128.0, tokens, 8.0 / 128.0)
    assert (touched <= np.minimum(128.0, tokens * 8.0) + 1e-9).all()


def test_a_core_has_no_tiles_that_rows_must_fill() -> None:
    shape, one_unit = {"m": np.array([64.0, 65.0]), "n": 512.0, "k": 512.0}, replace(RATES, n_units=1.0)
    on_chip, on_host = (timed(name, shape, one_unit).compute_s for name in ("matmul", "matmul on a host"))
    assert on_chip[1] > 1.5 * on_chip[0]
    assert on_host[1] < 1.02 * on_host[0]


def test_copies_of_a_weight_go_through_one_kernel() -> None:
    shape = {"m": 3.0, "n": 512.0, "k": 512.0}
    one, two = (timed("matmul on a host", shape | {"copies": copies}) for copies in (1.0, 2.0))
    assert two.compute_s == pytest.approx(2.0 * one.compute_s)
    assert two.fixed_s == one.fixed_s


def test_rows_of_a_weight_that_lie_whole_pages_apart_are_told_from_others() -> None:
    # 16 bits a number: 2,048 of them are a page
    shape = {"m": 3.0, "n": np.array([2047.0, 2048.0, 3072.0, 4096.0]), "k": 512.0}
    assert timed("matmul on a host", shape).features["aliased"].tolist() == [0.0, 1.0, 0.0, 1.0]
