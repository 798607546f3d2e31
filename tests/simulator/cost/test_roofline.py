"""The time of a step: its dimension, its roofline, and that it is monotone and the same for arrays."""

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.simulator.cost.roofline import step_time_s

# pint's own registry has bit = []: it would add bytes to flop
U = pint.UnitRegistry(None)
for _line in ("second = [time] = s", "byte = [information] = B", "flop = [compute]"):
    U.define(_line)

_seconds = st.floats(0.0, 1e6)


def test_it_has_the_dimension_of_time() -> None:
    compute_s, memory_s = 2e12 * U.flop / (1e15 * U.flop / U.s), 1e9 * U.B / (2e12 * U.B / U.s)
    for t in (step_time_s(compute_s, memory_s), step_time_s(compute_s, memory_s, 0.0 * U.s, 0.0 * U.s)):
        assert t.check("[time]")
        assert t.to("s").magnitude == 2e-3


def test_only_times_are_compared_and_added() -> None:
    with pytest.raises(pint.DimensionalityError):
        step_time_s(2e12 * U.flop, 1e9 * U.B)
    with pytest.raises(pint.DimensionalityError):
        step_time_s(1.0 * U.s, 1.0 * U.s, 1e9 * U.B)


@given(compute_s=_seconds, memory_s=_seconds, comm_s=_seconds, overhead_s=_seconds)
def test_it_is_the_slower_of_computing_and_moving_and_then_the_rest(
    compute_s: float, memory_s: float, comm_s: float, overhead_s: float
) -> None:
    assert step_time_s(compute_s, memory_s) == max(compute_s, memory_s)
    assert step_time_s(compute_s, memory_s, comm_s, overhead_s) == max(compute_s, memory_s) + comm_s + overhead_s


@given(times=st.tuples(*[_seconds] * 4), place=st.integers(0, 3), more=_seconds)
def test_more_of_anything_never_takes_less(times: tuple[float, ...], place: int, more: float) -> None:
    longer = [t + more if i == place else t for i, t in enumerate(times)]
    assert step_time_s(*longer) >= step_time_s(*times)


def test_arrays_broadcast_and_give_what_each_element_gives() -> None:
    compute_s, memory_s = np.array([[1e-3], [4e-3]]), np.array([5e-4, 2e-3, 8e-3])
    t = np.asarray(step_time_s(compute_s, memory_s, 1e-4))
    assert t.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        assert t[i, j] == step_time_s(compute_s[i, 0], memory_s[j], 1e-4)
