"""A plan read back from its file is explained in its own numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.api import answer
from shardwise.planner.build import bound_seconds
from shardwise.planner.explain import explain_plan, read_result
from shardwise.planner.request import make_request
from shardwise.planner.result import PlanResult
from shardwise.tests.strategies import small_model


def _result(objective: str = "latency", on: str = "tpu-v4:2x2x1") -> PlanResult:
    request = make_request(small_model(n_layers=4), on, input_tokens=64, output_tokens=16, objective=objective)
    return answer(replace(request, prefill_batches=(1, 2, 8), decode_batches=(1, 2, 8)), top=4)


@pytest.fixture(scope="module")
def result() -> PlanResult:
    return _result()


def test_what_binds_adds_up_to_the_pass(result: PlanResult) -> None:
    told = explain_plan(result)
    for phase in (result.best.prefill, result.best.decode):
        assert sum(told.bound[phase.phase].values()) == pytest.approx(sum(step.total_s for step in phase.breakdown))
        assert phase.bound == max(told.bound[phase.phase], key=lambda name: told.bound[phase.phase][name])


def test_every_other_plan_is_a_runner_up_with_what_it_loses(result: PlanResult) -> None:
    told = explain_plan(result)
    assert [other.rank for other in told.runners_up] == [2, 3, 4]
    for other, plan in zip(told.runners_up, result.plans[1:], strict=True):
        assert other.prefill == f"{plan.prefill.layout.removeprefix('ws-')} b{plan.prefill.batch}"
        assert other.why


@pytest.mark.parametrize("objective", ["cost", "throughput"])
def test_dearer_plans_lose_chip_seconds(objective: str) -> None:
    told = explain_plan(_result(objective))
    assert all(other.delta.startswith("+") and other.delta.endswith("chip-s") for other in told.runners_up)


def test_a_worse_rank_can_be_explained_too(result: PlanResult) -> None:
    told = explain_plan(result, rank=2)
    assert "rank 2" in told.headline
    assert [other.rank for other in told.runners_up] == [1, 3, 4]


def test_what_was_refused_is_told(result: PlanResult) -> None:
    notes = explain_plan(result).notes
    assert len(notes) == len(result.rejected)
    assert any("batch does not divide" in note for note in notes)


def test_an_unpriced_way_between_slices_is_told() -> None:
    request = make_request(
        small_model(), "tpu-v4:1x2x2", decode_on="tpu-v4:1x2x2", input_tokens=64, output_tokens=16, batch=8
    )
    told = explain_plan(answer(request, top=1))
    assert any("no network between slices" in note for note in told.notes)


def test_a_rank_that_does_not_exist_is_refused(result: PlanResult) -> None:
    with pytest.raises(SpecError, match=r"no plan of rank 9; the file has \[1, 2, 3, 4\]"):
        explain_plan(result, rank=9)


def test_a_file_is_read_back_as_it_was_written(result: PlanResult, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(result.model_dump_json(indent=1), "utf-8")
    again = read_result(path)
    assert again == result
    assert explain_plan(again) == explain_plan(result)


def test_bound_seconds_split_each_step_by_what_binds_it(result: PlanResult) -> None:
    phase = result.best.decode
    seconds = bound_seconds(phase.breakdown)
    assert seconds["links"] == pytest.approx(sum(step.comm_s for step in phase.breakdown))
    assert seconds["latency"] == pytest.approx(sum(step.overhead_s for step in phase.breakdown))
