"""What ``--vary`` reads, and the sentence where it does not."""

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.whatif.keys import KEYS, Change
from shardwise.planner.whatif.vary import n_points, parse_vary


def texts(text: str) -> list[str]:
    """The values of one axis as they are written."""
    (axis,) = parse_vary([text])
    return [value.text for value in axis.values]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("chips=8,2x8,4x4x4", ["8", "2x8", "4x4x4"]),
        ("batch=1..4", ["1", "2", "3", "4"]),
        ("batch=1..512*2", ["1", "2", "4", "8", "16", "32", "64", "128", "256", "512"]),
        ("batch=3,8..24+8", ["3", "8", "16", "24"]),
        ("rate=0.5..2+0.5", ["0.5", "1", "1.5", "2"]),
        ("link=x1..x4*2", ["x1", "x2", "x4"]),
        ("hbm_bandwidth=x0.5..x1.5+0.5", ["x0.5", "x1", "x1.5"]),
        ("weights=BF16,fp8", ["bf16", "fp8"]),
        ("layout=wg-xyz/batch+ws-2d/batch", ["wg-xyz/batch+ws-2d/batch"]),
    ],
)
def test_values_and_ranges(text: str, values: list[str]) -> None:
    assert texts(text) == values


def test_a_value_sets_the_fields_it_is_about() -> None:
    (layout,) = parse_vary(["layout=wg-xyz/batch+ws-2d/batch,ws-2d/heads"])
    assert [dict(value.sets) for value in layout.values] == [
        {"prefill": "wg-xyz/batch", "decode": "ws-2d/batch"},
        {"prefill": "ws-2d/heads", "decode": "ws-2d/heads"},
    ]
    (link,) = parse_vary(["link=x2,900GB/s"])
    assert [value.sets["link"] for value in link.values] == [Change(factor=2.0), Change(value=9e11)]
    (pool,) = parse_vary(["on=H100:8,tpu-v4:4x4x4"])
    assert [dict(value.sets) for value in pool.values] == [
        {"hardware": "h100-sxm", "chips": "8"},
        {"hardware": "tpu-v4", "chips": "4x4x4"},
    ]


def test_numbers_lie_on_an_axis_and_names_do_not() -> None:
    chips, weights, link = parse_vary(["chips=8,2x8", "weights=bf16,int8", "link=x1,x1.5"])
    assert chips.numbers == (8.0, 16.0)
    assert weights.numbers is None
    assert link.numbers == (1.0, 1.5)
    assert n_points([chips, weights, link]) == 8


@pytest.mark.parametrize("key", KEYS)
def test_the_example_of_every_key_is_read(key: str) -> None:
    assert len(texts(f"{key}={KEYS[key].example}")) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chips", "'chips' does not parse: write KEY=VALUE"),
        ("chips=", "a value is missing"),
        ("chips=8,,16", "a value is missing"),
        ("chip=8", "no key to --vary 'chip'; did you mean chips"),
        ("chips=eight", "write a count or a shape"),
        ("weights=bf17", "no dtype 'bf17'"),
        ("hardware=h1000", "no chip 'h1000'"),
        ("batch=0", "between 1 and 65,536"),
        ("batch=1.5", "whole number"),
        ("batch=8,8", "8 comes twice"),
        ("batch=9..3", "must rise"),
        ("batch=1..8*1", "must rise"),
        ("rate=1..4", "say the steps"),
        ("rate=-1", "positive number"),
        ("link=x1..4*2", "on both ends"),
        ("link=2", "no quantity in B/s"),
        ("link=x0", "above zero"),
        ("hbm=x", "written as x2"),
        ("memory-share=1.2", "must lie in"),
        ("batch=1..99999999", "values; at most 1,000,000"),
        ("layout=ws-2d+ws-2d+ws-2d", "write one"),
    ],
)
def test_what_does_not_parse_is_told_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says.replace("(", r"\(").replace("*", r"\*")):
        parse_vary([text])


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (["batch=1", "batch=2"], "batch is varied twice"),
        (["batch=1", "decode-batch=2"], "batch and decode-batch: both set decode batch"),
        (["context=100", "input=50"], "both set the input tokens"),
        (["on=h100-sxm:8", "chips=8"], "both set chips"),
    ],
)
def test_two_axes_may_not_set_one_field(pair: list[str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse_vary(pair)
