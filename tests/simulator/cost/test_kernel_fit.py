"""Fits of kernels: what is held out, what a fit finds again, and that the shipped fits are those of the installed rows."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.errors import SpecError
from shardwise.hardware_specs.kernel_database import imported_frame
from shardwise.simulator.cost.kernel_families import FAMILIES
from shardwise.simulator.cost.kernel_fit import KernelRows, family_rows, fit_family, is_held_out, widths_of
from shardwise.simulator.cost.kernel_forms import ChipRates, Widths
from shardwise.simulator.cost.kernel_times import chip_rates, computing_format, shipped_kernel_fit
from shardwise.simulator.cost.sanity import sane

RATES = ChipRates(flop_per_s=1e15, bytes_per_s=3e12, link_bytes_per_s=4.5e11, n_units=132.0)
TRUE = {"link_efficiency": 0.6, "launch_s": 8e-6, "hop_s": 1.5e-6}


def made_up(noise_log: float = 0.0) -> KernelRows:
    """Collectives that take what the form says, give or take."""
    n_bytes, chips = (x.ravel() for x in np.meshgrid(2.0 ** np.arange(9, 30), [2.0, 4.0, 8.0]))
    shape = {"bytes": n_bytes, "chips": chips, "passes": np.ones(len(chips))}
    seconds = FAMILIES["collective"].form(shape, TRUE, RATES, Widths()).total_s
    noise = np.random.default_rng(0).normal(0.0, noise_log, len(chips))
    return KernelRows(
        op="collective", variant="all_gather", kv="nccl", software="nccl", shape=shape, seconds=seconds * np.exp(noise)
    )


def some(rows: KernelRows, keep: slice) -> KernelRows:
    return KernelRows(
        op=rows.op, variant=rows.variant, kv=rows.kv, software=rows.software,
        shape={name: column[keep] for name, column in rows.shape.items()}, seconds=rows.seconds[keep],
    )  # fmt: skip


def test_one_row_in_three_is_held_out_and_always_the_same() -> None:
    shape = {"m": np.arange(3000.0), "n": np.full(3000, 64.0)}
    held = is_held_out(shape)
    assert 0.3 < held.mean() < 0.37
    again: Mapping[str, np.ndarray] = {name: column[1000:1500] for name, column in shape.items()}
    assert (is_held_out(again) == held[1000:1500]).all()


def test_a_fit_finds_the_constants_that_rows_were_made_with() -> None:
    family = fit_family(made_up(), RATES, Widths(), FAMILIES["collective"])
    assert family.constants == pytest.approx(TRUE, rel=0.02)
    assert family.median_error < 0.005


def test_the_interval_is_as_wide_as_the_noise() -> None:
    family = fit_family(made_up(0.1), RATES, Widths(), FAMILIES["collective"])
    # nine tenths of a normal distribution lie inside 1.64 deviations; neighbours tell a part of each row's own
    assert 0.1 < family.interval_log < 0.35


def test_too_few_rows_are_told() -> None:
    with pytest.raises(SpecError, match="rows to fit and"):
        fit_family(some(made_up(), slice(0, 20)), RATES, Widths(), FAMILIES["collective"])


def test_formats_of_one_collective_are_one_family() -> None:
    rows = made_up()
    frame = pd.DataFrame({**rows.shape, "seconds": rows.seconds, "op": "all_gather", "mode": "nccl"}).drop(
        columns="passes"
    )
    both = pd.concat([frame.assign(dtype=dtype) for dtype in ("fp16", "int8")]).assign(framework="nccl", version="1")
    families = family_rows(both)
    assert [(family.variant, family.kv, len(family.seconds)) for family in families] == [
        ("all_gather", "nccl", 2 * len(frame))
    ]


@pytest.mark.parametrize(
    ("op", "stack", "key"),
    [
        ("collective", "nccl", ("collective", "all_gather", "nccl")),
        ("decode attention", "vllm", ("decode attention", "bf16", "bf16")),
    ],
)
def test_the_shipped_fit_is_made_again_from_the_installed_rows(op: str, stack: str, key: tuple[str, str, str]) -> None:
    chip = get_chip("a100-80gb-sxm")
    try:
        frame = imported_frame(chip.name, op)
    except SpecError as error:
        pytest.skip(str(error))
    frame, _ = sane(chip, frame[frame["framework"] == stack])
    rows = next(rows for rows in family_rows(frame) if (rows.op, rows.variant, rows.kv) == key)
    rates, widths = chip_rates(chip, computing_format(rows.variant)), widths_of(rows)
    fit = shipped_kernel_fit(chip.name, "vllm")
    assert fit is not None
    shipped = next(family for family in fit.families if family.key == key)
    made = fit_family(rows, rates, widths, FAMILIES[rows.op])
    assert (made.n_rows, made.n_held_out) == (shipped.n_rows, shipped.n_held_out)
    # least squares end where their steps are small, which differs a little from machine to machine
    assert made.median_error == pytest.approx(shipped.median_error, abs=0.005)
    ratio = made.time(rows.shape, rates, widths).total_s / shipped.time(rows.shape, rates, widths).total_s
    assert np.quantile(np.abs(np.log(ratio)), 0.95) < 0.02
