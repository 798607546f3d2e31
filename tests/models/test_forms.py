"""Forms: the notation reads and writes, and refuses what no tensor can be."""

import pytest
from hypothesis import given
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.forms import Form, parse_form, without_axes
from shardwise.tests.strategies import form_pairs


@given(pair=form_pairs("BLF"))
def test_a_form_survives_the_way_to_text_and_back(pair: tuple[Form, Form]) -> None:
    for form in pair:
        assert parse_form(str(form)) == form


def test_the_first_axis_is_the_major_one_and_order_is_kept() -> None:
    form = parse_form("BLF_zy{x}")
    assert form.dims == (("B", ()), ("L", ()), ("F", ("z", "y")))
    assert form.partial == ("x",)
    assert (form.axes, form.letters) == (("z", "y"), ("B", "L", "F"))
    assert (form.dim_of("y"), form.dim_of("x")) == ("F", None)
    assert form != parse_form("BLF_yz{x}")


@pytest.mark.parametrize("text", ["", "x", "_x", "BL{}", "B_", "{x}", "B_x{y", "BLE_XY", "B L", "b_x"])
def test_text_that_is_no_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SpecError, match=r"write e\.g\. 'BLF_zy"):
        parse_form(text)


@pytest.mark.parametrize("text", ["B_xL_x", "B_xx", "B_x{x}", "B{xx}"])
def test_an_axis_is_used_once(text: str) -> None:
    with pytest.raises(SpecError, match="mesh axis twice"):
        parse_form(text)


def test_a_dimension_is_used_once() -> None:
    with pytest.raises(SpecError, match="dimension twice"):
        parse_form("B_xB_y")


def test_only_the_named_dimension_loses_axes_and_what_is_kept_keeps_its_order() -> None:
    assert str(without_axes(parse_form("B_zyxE{w}"), "B", ("x", "z"))) == "B_zxE{w}"
    assert str(without_axes(parse_form("B_xE_yz"), "B", ())) == "BE_yz"
