"""Decisions on configurations made by hand, where the best one is known."""

import pytest
from shardwise.validate.decisions import decision_score, find_tasks, scores_by_model
from shardwise.validate.metrics import Prediction, parse_target
from shardwise.validate.score import ScoredRow

TASK = {"source": "s", "model": "m", "hardware": "h", "framework": "f", "input_len": "8", "output_len": "11"}


def row(metric, value, predicted, unit="ms", **columns):
    made = None if predicted is None else Prediction(predicted=predicted, low=None, high=None)
    return ScoredRow(
        row=TASK | {"metric": metric} | columns,
        target=parse_target(metric, unit),
        prediction=made,
        value=value,
        reason="",
    )


def tpots(*points, **columns):
    """TPOT rows of (tp, users, measured ms, predicted ms)."""
    return [
        row("tpot", value, predicted, tp=str(tp), n_chips=str(tp), concurrency=str(users), **columns)
        for tp, users, value, predicted in points
    ]


# Throughput a chip as users / (chips x TPOT), measured: 100, 200, 267, 320 tokens/s for 10, 20, 30, 50 ms.
EXACT = ((1, 1, 10.0, 10.0), (1, 4, 20.0, 20.0), (2, 16, 30.0, 30.0), (1, 16, 50.0, 50.0))


def test_perfect_predictions_make_perfect_decisions():
    (task,) = find_tasks(tpots(*EXACT))
    # quarters of three gaps: the first, the second and the third
    assert [decision.limit_s for decision in task.decisions] == pytest.approx([0.015, 0.025, 0.04])
    assert [decision.best.configuration[-2] for decision in task.decisions] == ["1", "4", "16"]
    made = decision_score([task])
    assert (made.tasks, made.decisions) == (1, 3)
    assert (made.same_tp, made.same_point, made.missed, made.reached) == (1.0, 1.0, 0.0, pytest.approx(1.0))


def test_too_hopeful_predictions_miss_the_limit():
    hopeful = [(tp, users, value, predicted * 0.5) for tp, users, value, predicted in EXACT]
    made = decision_score(find_tasks(tpots(*hopeful)))
    # limits 15, 25, 40 ms let through predictions of 15, 25, 25 ms: the third, fourth and fourth, all over the limit
    assert (made.missed, made.same_point, made.reached) == (1.0, 0.0, None)
    # the best have tp 1, 1, 2
    assert made.same_tp == pytest.approx(1 / 3)


def test_too_fearful_predictions_keep_the_limit_and_lose_throughput():
    fearful = [(tp, users, value, predicted * 1.6) for tp, users, value, predicted in EXACT]
    made = decision_score(find_tasks(tpots(*fearful)))
    # 16, 32, 48, 80 ms predicted: none keeps 15 ms, so the lowest is chosen; the first keeps 25 ms; the second keeps 40 ms
    assert made.missed == 0.0
    assert made.same_point == pytest.approx(1 / 3)
    assert made.reached == pytest.approx((1.0 + 100 / 200 + 200 / (16 / 2 / 0.03)) / 3)


def test_a_configuration_that_is_not_predicted_can_still_be_the_best():
    (task,) = find_tasks(tpots((1, 1, 10.0, 10.0), (1, 8, 20.0, None), (1, 4, 25.0, 25.0), (1, 9, 40.0, 40.0)))
    assert [decision.chosen == decision.best for decision in task.decisions] == [True, False, False]
    assert find_tasks(tpots((1, 1, 10.0, None), (1, 8, 20.0, None))) == []


def test_throughput_is_littles_law_with_the_time_to_first_token():
    rows = tpots((2, 6, 10.0, 20.0), (2, 4, 9.0, 9.0))
    rows += [row("ttft", 0.2, 0.1, unit="s", tp="2", n_chips="2", concurrency="6")]
    (task,) = find_tasks(rows)
    first = task.points[0]
    # 6 users, 11 tokens in 0.2 + 10 x 0.01 s, on 2 chips
    assert first.measured.output_tokens_per_s_per_chip == pytest.approx(6 * 11 / 0.3 / 2)
    assert first.predicted.output_tokens_per_s_per_chip == pytest.approx(6 * 11 / 0.3 / 2)
    assert task.points[1].measured.output_tokens_per_s_per_chip == pytest.approx(4 / 0.009 / 2)


def test_repeats_of_a_configuration_are_one_point_at_their_median():
    (task,) = find_tasks(tpots((1, 1, 10.0, 11.0), (1, 1, 14.0, 11.0), (1, 1, 11.0, 11.0), (1, 2, 20.0, 20.0)))
    assert [point.measured.tpot_s for point in task.points] == pytest.approx([0.011, 0.02])


def test_tasks_differ_in_software_and_lengths_and_single_points_are_none():
    rows = [
        *tpots(*EXACT),
        *tpots(*EXACT, framework_version="2"),
        *tpots(EXACT[0], output_len="7"),
        *tpots(*EXACT, model="n", notes="mode=agg; moe_tp=1"),
    ]
    rows += tpots((1, 1, 10.0, 10.0), (1, 1, 20.0, 20.0), model="n", notes="mode=disagg")
    assert [(task.model, len(task.points)) for task in find_tasks(rows)] == [("m", 4), ("m", 4), ("n", 4)]
    assert {key: made.tasks for key, made in scores_by_model(find_tasks(rows)).items()} == {
        ("s", "m"): 2,
        ("s", "n"): 1,
    }


def test_only_means_at_a_known_load_on_known_chips_count():
    rows = tpots((1, "", 10.0, 10.0), (1, "", 20.0, 20.0))
    rows += tpots((0, 1, 10.0, 10.0), (0, 2, 20.0, 20.0))
    rows += [row("tpot_p99", v, v, tp="1", n_chips="1", concurrency=str(v)) for v in (1.0, 2.0)]
    assert find_tasks(rows) == []


def test_where_all_have_one_degree_there_is_none_to_choose():
    made = decision_score(find_tasks(tpots((1, 1, 10.0, 10.0), (1, 8, 20.0, 20.0))))
    assert (made.same_tp, made.same_point) == (None, 1.0)
    empty = decision_score([])
    assert (empty.tasks, empty.same_point, empty.reached) == (0, None, None)
