"""Units, number formats and names: the edge where text becomes a number."""

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.dtypes import DTYPES, parse_dtype
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.hardware_specs.names import index_by_name, name_key
from shardwise.hardware_specs.units import format_bytes, format_seconds, parse_quantity

FACTORS = [
    ("B", "B", 1.0),
    ("kB", "B", 1e3),
    ("GB", "B", 1e9),
    ("GiB", "B", 2.0**30),
    ("TiB", "B", 2.0**40),
    ("GB/s", "B/s", 1e9),
    ("TB/s", "B/s", 1e12),
    ("Gb/s", "b/s", 1e9),
    ("Tflop/s", "flop/s", 1e12),
    ("Pflop/s", "flop/s", 1e15),
    ("ms", "s", 1e-3),
    ("us", "s", 1e-6),
    ("ns", "s", 1e-9),
    ("min", "s", 60.0),
    ("h", "s", 3600.0),
    ("W", "W", 1.0),
    ("kW", "W", 1e3),
    ("mJ", "J", 1e-3),
    ("USD/h", "USD/h", 1.0),
    ("$/h", "USD/h", 1.0),
]


@pytest.mark.parametrize(("spelling", "unit", "factor"), FACTORS)
@given(number=st.floats(min_value=0.0, max_value=1e12))
def test_a_number_with_a_unit_is_that_number_times_the_factor(
    spelling: str, unit: str, factor: float, number: float
) -> None:
    assert parse_quantity(f"{number!r} {spelling}", unit) == number * factor


@given(number=st.floats(min_value=0.0, max_value=1e12))
def test_spaces_around_number_and_unit_do_not_matter(number: float) -> None:
    assert parse_quantity(f"  {number!r}TB/s ", "B/s") == parse_quantity(f"{number!r} TB/s", "B/s")


@given(n_gib=st.integers(min_value=0, max_value=10_000))
def test_whole_gib_survive_the_way_to_text_and_back(n_gib: int) -> None:
    n_bytes = n_gib * 2.0**30
    assert parse_quantity(format_bytes(n_bytes), "B") == n_bytes


@given(seconds=st.floats(min_value=1e-9, max_value=1e6))
def test_seconds_survive_the_way_to_text_and_back_to_three_digits(seconds: float) -> None:
    assert math.isclose(parse_quantity(format_seconds(seconds), "s"), seconds, rel_tol=0.005)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        pytest.param("400 Gb/s", "B/s", id="bits for bytes"),
        pytest.param("50 GB/s", "b/s", id="bytes for bits"),
        pytest.param("80 GB/s", "B", id="a rate for an amount"),
        pytest.param("80 GB", "B/s", id="an amount for a rate"),
        pytest.param("3.35 TiB/s", "B/s", id="a binary prefix on a rate"),
        pytest.param("989 TFLOPS", "flop/s", id="an ambiguous spelling"),
        pytest.param("80 gb", "B", id="wrong case"),
        pytest.param("80", "B", id="a bare number"),
        pytest.param("GiB", "B", id="a bare unit"),
        pytest.param("", "B", id="nothing"),
        pytest.param("nan B", "B", id="nan"),
        pytest.param("inf B", "B", id="inf"),
        pytest.param("1e400 B", "B", id="beyond a double"),
        pytest.param("-1 B", "B", id="negative"),
        pytest.param("1,000 B", "B", id="a comma"),
        pytest.param("2.50 EUR/h", "USD/h", id="another currency"),
        pytest.param("2 kUSD/h", "USD/h", id="a prefix on money"),
    ],
)
def test_what_is_no_such_quantity_is_refused_with_an_example(text: str, unit: str) -> None:
    with pytest.raises(SpecError, match=r"write e\.g\.") as refusal:
        parse_quantity(text, unit)
    assert repr(text) in str(refusal.value)


@given(text=st.text(max_size=12), unit=st.sampled_from(["B", "B/s", "flop/s", "s", "W", "USD/h"]))
def test_any_text_is_either_a_finite_number_or_a_spec_error(text: str, unit: str) -> None:
    try:
        value = parse_quantity(text, unit)
    except SpecError:
        return
    assert math.isfinite(value)
    assert value >= 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BF16", "bf16"),
        ("bfloat16", "bf16"),
        ("BF16 (default)", "bf16"),
        ("float16", "fp16"),
        ("half", "fp16"),
        ("fp8_e4m3", "fp8"),
        ("FP8-block", "fp8"),
        ("fp8_block/moe:fp8_block", "fp8"),
        ("int8 (assumed)", "int8"),
        ("int4_wo/moe:int4_wo", "int4"),
        ("UINT4", "int4"),
        ("fp4", "nvfp4"),
        ("MXFP4", "mxfp4"),
    ],
)
def test_a_format_is_found_by_the_names_the_field_uses(text: str, name: str) -> None:
    assert parse_dtype(text).name == name


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_a_format_is_found_by_its_own_name(name: str) -> None:
    assert parse_dtype(name) is DTYPES[name]
    assert parse_dtype(name.upper()) is DTYPES[name]


def test_block_scales_are_counted_in_the_size_of_four_bit_formats() -> None:
    # 16 values share an 8-bit scale in nvfp4, 32 in mxfp4; int4 carries none here
    assert 16 * DTYPES["nvfp4"].bytes_per_element == 16 * 0.5 + 1
    assert 32 * DTYPES["mxfp4"].bytes_per_element == 32 * 0.5 + 1
    assert DTYPES["int4"].bytes_per_element == 0.5


def test_an_unknown_format_is_refused_with_its_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match=r"no dtype 'bf17'; did you mean .*bf16"):
        parse_dtype("bf17")


# Not formats of weights or cache: nothing stated, a choice left to the engine, a bandwidth test in double precision,
# and two kernels whose op, not whose weights, the name describes.
NO_FORMAT = {"", "auto", "UNSET", "FP64", "INT4w/BF16a", "INT8w/BF16a"}


def test_every_format_named_in_published_results_resolves(shared_dir: Path) -> None:
    named: set[str] = set()
    for path in sorted((shared_dir / "measured").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                named |= {row["weights_dtype"], row["kv_dtype"]}
    unknown = []
    for text in sorted(named - NO_FORMAT):
        try:
            parse_dtype(text)
        except UnknownNameError:
            unknown.append(text)
    assert not unknown


@given(st.text(alphabet="abcXYZ019 -_./", max_size=20))
def test_case_and_punctuation_do_not_matter_in_names(text: str) -> None:
    assert name_key(text) == name_key(text.upper().replace("-", " ")) == name_key(f"{text} (a remark) [another]")


@given(st.text(max_size=20))
def test_the_key_of_a_key_is_itself(text: str) -> None:
    assert name_key(name_key(text)) == name_key(text)


def test_an_alias_of_two_entries_is_refused() -> None:
    with pytest.raises(SpecError, match="'H-100' names both 'a' and 'b'"):
        index_by_name({"a": ["h100"], "b": ["H-100"]})
