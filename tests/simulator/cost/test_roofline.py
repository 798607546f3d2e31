"""The roofline: its dimension, its two sides, and that it is monotone and the same for arrays."""

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.simulator.cost.roofline import roofline_time_s

# pint's own registry has bit = []: it would add bytes to flop
U = pint.UnitRegistry(None)
for _line in ("second = [time] = s", "byte = [information] = B", "flop = [compute]"):
    U.define(_line)

_amounts = st.floats(0.0, 1e18)
_rates = st.floats(1e6, 1e18)


def test_it_has_the_dimension_of_time() -> None:
    t = roofline_time_s(2e12 * U.flop, 1e9 * U.B, 1e15 * U.flop / U.s, 2e12 * U.B / U.s)
    assert t.check("[time]")
    assert t.to("s").magnitude == 2e-3


def test_flop_do_not_add_to_bytes() -> None:
    with pytest.raises(pint.DimensionalityError):
        roofline_time_s(2e12 * U.B, 1e9 * U.B, 1e15 * U.flop / U.s, 2e12 * U.B / U.s)


@given(flop=_amounts, moved_bytes=_amounts, flop_per_s=_rates, bytes_per_s=_rates)
def test_it_is_the_slower_of_computing_and_moving(
    flop: float, moved_bytes: float, flop_per_s: float, bytes_per_s: float
) -> None:
    t = roofline_time_s(flop, moved_bytes, flop_per_s, bytes_per_s)
    assert t == max(flop / flop_per_s, moved_bytes / bytes_per_s)


@given(flop=_amounts, moved_bytes=_amounts, flop_per_s=_rates, bytes_per_s=_rates, more=st.floats(1.0, 1e3))
def test_more_work_never_takes_less_and_faster_hardware_never_more(
    flop: float, moved_bytes: float, flop_per_s: float, bytes_per_s: float, more: float
) -> None:
    t = roofline_time_s(flop, moved_bytes, flop_per_s, bytes_per_s)
    assert roofline_time_s(flop * more, moved_bytes, flop_per_s, bytes_per_s) >= t
    assert roofline_time_s(flop, moved_bytes * more, flop_per_s, bytes_per_s) >= t
    assert roofline_time_s(flop, moved_bytes, flop_per_s * more, bytes_per_s) <= t
    assert roofline_time_s(flop, moved_bytes, flop_per_s, bytes_per_s * more) <= t


def test_arrays_broadcast_and_give_what_each_element_gives() -> None:
    flop, moved_bytes = np.array([[1e12], [4e12]]), np.array([1e9, 8e9, 64e9])
    t = roofline_time_s(flop, moved_bytes, 1e15, 2e12)
    assert np.shape(t) == (2, 3)
    for i, j in np.ndindex(2, 3):
        assert np.asarray(t)[i, j] == roofline_time_s(flop[i, 0], moved_bytes[j], 1e15, 2e12)
