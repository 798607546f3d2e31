"""The table of collectives: each of its rows, and what holds for any two forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.forms import AXES, Form, parse_form
from shardwise.models.reshard import reshard
from shardwise.tests.strategies import form_pairs

# Axes of different sizes, so that no two index maps agree by chance; a dimension divides over all of them together.
_SIZES = {"x": 2, "y": 3, "z": 5}
_LENGTH = 30


@pytest.mark.parametrize(
    ("start", "goal", "moves"),
    [
        pytest.param("BLE_xyz", "BLE_x", ["all_gather(yz)"], id="axes-leave-one-dimension"),
        pytest.param("B_xLE_zy", "BLE_z", ["all_gather(xy)"], id="axes-leave-two-dimensions-in-one-gather"),
        pytest.param("BLF_zy{x}", "BLF_zyx", ["reduce_scatter(x)"], id="a-partial-sum-becomes-sharded"),
        pytest.param("BLE_x{zy}", "BLE_xyz", ["reduce_scatter(yz)"], id="two-partial-sums-become-sharded-at-once"),
        pytest.param("BLE{xyz}", "BLE", ["all_reduce(xyz)"], id="a-partial-sum-becomes-replicated"),
        pytest.param("BLE{xyz}", "BLE_x", ["reduce_scatter(x)", "all_reduce(yz)"], id="sharded-and-replicated"),
        pytest.param("BLE{xy}", "BLE_x{y}", ["reduce_scatter(x)"], id="a-partial-sum-may-stay-one"),
        pytest.param("BLH_zyxQ", "B_xyzLHQ", ["all_to_all(xyz)"], id="axes-move-to-another-dimension"),
        pytest.param("B_xH_yQ", "B_yH_xQ", ["all_to_all(xy)"], id="axes-change-places"),
        pytest.param("BE", "B_xE_y", ["slice(xy)"], id="axes-join-replicated-dimensions"),
        pytest.param("E_xy", "E_y", ["all_gather(x)"], id="the-major-axis-leaves"),
        pytest.param("E_zy", "E_z", ["all_gather(y)"], id="the-minor-axis-leaves"),
        pytest.param("E_xy", "E_yx", [], id="the-order-of-axes-says-nothing"),
        pytest.param("E_x", "E_yx", ["slice(y)"], id="an-axis-joins-before-another"),
        pytest.param("BH_y{x}", "B_yH_x", ["reduce_scatter(x)", "all_to_all(y)"], id="sum-before-exchange"),
        pytest.param("BH_xy", "B_yH", ["all_to_all(y)", "all_gather(x)"], id="exchange-before-gather"),
    ],
)
def test_the_table_derives_the_collectives(start: str, goal: str, moves: list[str]) -> None:
    made = reshard(parse_form(start), parse_form(goal))
    assert [f"{move.kind}({''.join(move.axes)})" for move in made] == moves


@given(pair=form_pairs("BLF"))
def test_moves_chain_from_start_to_goal(pair: tuple[Form, Form]) -> None:
    form, goal = pair
    for move in reshard(*pair):
        assert move.before == form
        form = move.after
    assert [(dim, set(axes)) for dim, axes in form.dims] == [(dim, set(axes)) for dim, axes in goal.dims]
    assert set(form.partial) == set(goal.partial)


@given(pair=form_pairs("BLF"))
def test_an_axis_takes_part_in_one_move_and_in_none_that_is_empty(pair: tuple[Form, Form]) -> None:
    moves = reshard(*pair)
    used = [axis for move in moves for axis in move.axes]
    assert len(used) == len(set(used))
    assert all(move.axes and set(move.axes) <= set(AXES) for move in moves)
    assert len({move.kind for move in moves}) == len(moves)


@given(pair=form_pairs("BLF"))
def test_a_form_is_brought_to_itself_by_nothing(pair: tuple[Form, Form]) -> None:
    assert all(reshard(form, form) == () for form in pair)


@given(pair=form_pairs())
def test_what_is_summed_is_what_stops_being_partial(pair: tuple[Form, Form]) -> None:
    start, goal = pair
    summed = {
        axis for move in reshard(start, goal) if move.kind in ("reduce_scatter", "all_reduce") for axis in move.axes
    }
    assert summed == set(start.partial) - set(goal.partial)


def _indices(axes: tuple[str, ...], place: dict[str, int]) -> NDArray[np.int64]:
    """The indices of a dimension cut over `axes` that the chip at `place` holds: x is the highest digit of each."""
    digits = np.arange(_LENGTH).reshape(*_SIZES.values(), -1)
    chosen = tuple(place[axis] if axis in axes else slice(None) for axis in _SIZES)
    return digits[chosen].ravel()


def _held(form: Form) -> NDArray[np.bool_]:
    """Which elements of a tensor over B and F each chip holds: [x, y, z, B, F]."""
    held = np.zeros((*_SIZES.values(), _LENGTH, _LENGTH), bool)
    for chip in np.ndindex(*_SIZES.values()):
        place = dict(zip(AXES, chip, strict=True))
        rows = [_indices(axes, place) for _, axes in form.dims]
        held[(*chip, *np.ix_(*rows))] = True
    return held


def _reachable(start: Form, goal: Form, axes: set[str]) -> bool:
    """Whether every chip's part of `goal` lies somewhere among the chips it can talk to along `axes`."""
    along = tuple(i for i, axis in enumerate(AXES) if axis in axes)
    return bool(np.all(_held(start).any(axis=along, keepdims=True) | ~_held(goal)))


@settings(max_examples=60)
@given(pair=form_pairs())
def test_every_chip_can_get_its_part_from_those_it_talks_to(pair: tuple[Form, Form]) -> None:
    start, goal = pair
    moves = reshard(start, goal)
    talks = {axis for move in moves if move.kind != "slice" for axis in move.axes}
    assert _reachable(start, goal, talks)


def test_other_dimensions_and_new_partial_sums_are_refused() -> None:
    with pytest.raises(SpecError, match="the dimensions differ"):
        reshard(parse_form("BLE"), parse_form("BLF"))
    with pytest.raises(SpecError, match="nothing makes a partial sum"):
        reshard(parse_form("BLE_x"), parse_form("BLE{x}"))
