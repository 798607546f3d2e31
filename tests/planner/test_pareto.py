"""The frontier keeps what nothing beats, and nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.planner.pareto import pareto_indices

# few distinct values, so that ties are common
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40)


def _frontier(pairs: list[tuple[int, int]]) -> list[int]:
    first, second = (np.array([p[i] for p in pairs], float) for i in (0, 1))
    return pareto_indices(first, second).tolist()


def _beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b


@given(points)
def test_a_point_is_kept_exactly_if_none_beats_it(pairs: list[tuple[int, int]]) -> None:
    kept = {pairs[i] for i in _frontier(pairs)}
    assert kept == {p for p in pairs if not any(_beats(q, p) for q in pairs)}


@given(points)
def test_it_rises_in_the_first_and_falls_in_the_second(pairs: list[tuple[int, int]]) -> None:
    kept = [pairs[i] for i in _frontier(pairs)]
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(kept))


@pytest.mark.parametrize(
    ("pairs", "kept"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([(1, 1)], [0], id="one"),
        pytest.param([(1, 1), (1, 1)], [0], id="equals are kept once"),
        pytest.param([(1, 2), (1, 1)], [1], id="a tie in the first"),
        pytest.param([(2, 1), (1, 1)], [1], id="a tie in the second"),
    ],
)
def test_the_edges(pairs: list[tuple[int, int]], kept: list[int]) -> None:
    assert _frontier(pairs) == kept
