"""Errors by group: closed forms on rows made by hand."""

import json

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.validate.metrics import Prediction, parse_target
from shardwise.validate.score import ScoredRow
from shardwise.validate.score_groups import group_scores, parse_by, total_score

TASK = {"source": "s", "model": "m", "hardware": "h", "metric": "tpot", "framework": "f", "input_len": "8"}


def scored(predicted, value, *, low=None, high=None, **columns):
    made = None if predicted is None else Prediction(predicted=predicted, low=low, high=high)
    return ScoredRow(row=TASK | columns, target=parse_target("tpot", "ms"), prediction=made, value=value, reason="")


def test_errors_of_a_group_are_those_of_its_rows():
    rows = [scored(p, 10.0, low=p - 2, high=p + 2) for p in (8.0, 11.0, 15.0)]
    total = total_score([*rows, scored(None, 10.0), scored(9.0, None)])
    assert (total.rows, total.predicted) == (5, 4)
    assert total.median_abs_error == pytest.approx(0.2)
    assert total.mean_abs_error == pytest.approx((0.2 + 0.1 + 0.5) / 3)
    assert total.bias == pytest.approx(0.1)
    assert total.inside == pytest.approx(2 / 3)


def test_the_width_is_over_the_prediction_and_an_open_interval_has_none_in_json():
    closed = [scored(10.0, 1.0, low=8.0, high=high) for high in (12.0, 14.0, 18.0)]
    assert total_score(closed).width == pytest.approx(0.6)
    open_ended = total_score([*closed[:1], scored(10.0, 1.0, low=8.0), scored(10.0, 1.0)])
    assert open_ended.width == float("inf")
    assert json.loads(json.dumps(open_ended.to_json(), allow_nan=False))["width"] is None


def test_configurations_are_ranked_inside_their_task_and_tasks_count_alike():
    # one task in the right order, one in the reverse: across both together the order would be nearly right
    right = [scored(p, v, batch=str(v)) for p, v in ((1.0, 1.0), (2.0, 4.0), (3.0, 9.0))]
    wrong = [scored(p, v, input_len="9") for p, v in ((30.0, 10.0), (20.0, 40.0), (10.0, 90.0))]
    assert total_score(right).rank == pytest.approx(1.0)
    assert total_score(wrong).rank == pytest.approx(-1.0)
    assert total_score([*right, *wrong]).rank == pytest.approx(0.0)
    # ranks 1 2 3 against 1 3 2: 1 - 6 (0 + 1 + 1) / (3 (9 - 1))
    half = [scored(p, v) for p, v in ((1.0, 1.0), (2.0, 3.0), (3.0, 2.0))]
    assert total_score(half).rank == pytest.approx(0.5)


@pytest.mark.parametrize("pairs", [[(1.0, 1.0), (2.0, 2.0)], [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]])
def test_two_configurations_or_equal_ones_have_no_order(pairs):
    assert total_score([scored(*pair) for pair in pairs]).rank is None


def test_the_columns_to_group_by_are_chosen():
    rows = [scored(11.0, 10.0, model="a"), scored(15.0, 10.0, model="b"), scored(12.0, 10.0, model="a", batch="2")]
    groups = group_scores(rows, ("source", "model"))
    assert [(dict(g.names), g.rows) for g in groups] == [
        ({"source": "s", "model": "b"}, 1),
        ({"source": "s", "model": "a"}, 2),
    ]
    assert groups[0].to_json()["median_abs_error"] == pytest.approx(0.5)


def test_a_row_without_a_source_goes_by_its_framework():
    (group,) = group_scores([scored(1.0, 1.0, source=" ")], ("source",))
    assert group.names == {"source": "f"}


def test_unknown_columns_are_named_and_doubles_dropped():
    assert parse_by("metric,metric , source", ["metric"]) == ("metric", "source")
    with pytest.raises(SpecError, match="no column 'colour', '' to group by; known: metric, model"):
        parse_by("colour,", ["metric", "model"])
