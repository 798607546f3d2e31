"""Tables of corrections: linear between knots, constant beyond, the same for one point and many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shardwise.simulator.cost.grid import Axis, Grid, axis_of, design_matrix, roughness_matrix

GRID = Grid(knots={"a": (0.0, 1.0, 4.0), "b": (0.0, 0.01, 2.0)}, thousandths=(0, 5, 20, 10, 15, 30, 40, 45, 60))


@pytest.mark.parametrize(
    ("a", "b", "value"), [(0.0, 0.0, 0.0), (1.0, 0.01, 0.015), (4.0, 2.0, 0.06), (2.5, 0.0, 0.025)]
)
def test_knots_have_their_values_and_points_between_lie_on_a_line(a: float, b: float, value: float) -> None:
    assert GRID.at({"a": a, "b": b}) == pytest.approx(value)


def test_beyond_the_knots_it_is_constant_and_marked() -> None:
    assert GRID.at({"a": -3.0, "b": 9.0}) == pytest.approx(GRID.at({"a": 0.0, "b": 2.0}))
    features = {"a": np.array([-1.0, 0.0, 4.0, 5.0]), "b": 1.0}
    np.testing.assert_allclose(GRID.at(features)[[0, 3]], GRID.at(features)[[1, 2]])


@given(points=st.lists(st.tuples(st.floats(-1.0, 5.0), st.floats(-1.0, 3.0)), min_size=1, max_size=20))
def test_many_points_are_as_each_alone_and_as_the_matrix_that_fits_them(points: list[tuple[float, float]]) -> None:
    a, b = (np.array(column) for column in zip(*points, strict=True))
    alone = [GRID.at({"a": x, "b": y}) for x, y in points]
    np.testing.assert_allclose(GRID.at({"a": a, "b": b}), alone, atol=1e-12)
    np.testing.assert_allclose(GRID.at({"a": a, "b": points[0][1]}), [GRID.at({"a": x, "b": points[0][1]}) for x in a])
    np.testing.assert_allclose(design_matrix(GRID.axes, [a, b]) @ GRID.table.ravel(), alone, atol=1e-12)


@given(knots=st.sets(st.integers(0, 4000), min_size=2, max_size=12), points=st.lists(st.floats(-1.0, 41.0), min_size=1))
def test_points_are_found_between_their_knots(knots: set[int], points: list[float]) -> None:
    axis = Axis(tuple(knot / 100.0 for knot in sorted(knots)))
    x = np.array([*points, *axis.knots])
    place, share = axis.find(x)
    assert ((share >= -1e-9) & (share <= 1.0 + 1e-9)).all()
    between = axis.knots[place] + share * (axis.knots[place + 1] - axis.knots[place])
    np.testing.assert_allclose(between, np.clip(x, axis.knots[0], axis.knots[-1]), atol=1e-9)


def test_neighbours_are_pulled_together_but_not_across_a_jump() -> None:
    rough = roughness_matrix([axis_of((0.0, 1.0, 1.02, 2.0))]).toarray()
    assert rough.tolist() == [[-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.0]]


@pytest.mark.parametrize(
    ("knots", "values", "message"),
    [
        ({"a": (0.0, 1.0)}, (0,), "2 crossings has 1"),
        ({"a": (1.0, 0.0)}, (0, 0), "grow"),
        ({"a": (1.0,)}, (0,), "at least two"),
    ],
)
def test_a_grid_that_is_not_whole_is_refused(
    knots: dict[str, tuple[float, ...]], values: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Grid(knots=knots, thousandths=values)
