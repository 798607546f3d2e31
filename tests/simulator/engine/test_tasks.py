"""Requests of one task: later stages wait for earlier ones, and the task is answered with the last."""

import pytest
from shardwise.simulator.cost.step_time import ConstantSteps
from shardwise.simulator.run import simulate
from shardwise.simulator.workload.arrival import Arrival
from shardwise.tests.serving import CONTINUOUS, Listed, deployment, spec


def arrival(stage: int = 0, task: int = 0, **changes: object) -> Arrival:
    fields = {"arrival_s": 0.0, "input_tokens": 16, "output_tokens": 5}
    return Arrival(**{**fields, **changes}, task=task, stage=stage)  # type: ignore[arg-type]


def columns(*requests: Arrival, scheduler: str = "chunked", **changes: object):
    steps = ConstantSteps(prefill_s=1.0, decode_step_s=1.0)
    report = simulate(deployment(scheduler, spec(steps, **changes)), Listed(requests))
    return report, report.columns


@pytest.mark.parametrize("scheduler", CONTINUOUS)
def test_a_stage_comes_when_all_before_it_are_answered(scheduler: str) -> None:
    requests = [arrival(), arrival(output_tokens=9), arrival(stage=1), arrival(stage=1), arrival(stage=2)]
    report, c = columns(*requests, scheduler=scheduler)
    assert len(c["index"]) == 5
    first = c["finish_s"][:2].max()
    assert list(c["arrival_s"][2:4]) == [first, first]
    assert c["arrival_s"][4] == c["finish_s"][2:4].max()
    assert list(report.task_s) == [c["finish_s"].max()]
    assert report.summary().tasks == 1


def test_tasks_do_not_wait_for_each_other() -> None:
    requests = [
        arrival(),
        arrival(stage=1),
        arrival(task=1, arrival_s=0.5),
        arrival(task=1, stage=1, arrival_s=0.5),
    ]
    report, _ = columns(*requests)
    by_task = report.to_pandas().groupby("task")
    assert (by_task["arrival_s"].first() == [0.0, 0.5]).all()
    assert len(report.task_s) == 2


def test_what_happens_before_counts_as_waiting() -> None:
    _, c = columns(arrival(delay_s=3.0))
    assert (c["arrival_s"][0], c["scheduled_s"][0], c["first_token_s"][0]) == (0.0, 3.0, 4.0)


def test_a_task_that_is_refused_takes_its_later_stages_with_it() -> None:
    report, _ = columns(arrival(input_tokens=100_000), arrival(stage=1, input_tokens=100_000), arrival(task=1))
    found = report.summary()
    assert (found.rejected, found.finished, found.unfinished) == (2, 1, 0)


def test_requests_that_are_no_part_of_a_task_have_none() -> None:
    report, c = columns(arrival(task=-1), arrival(task=-1))
    assert len(c["index"]) == 2
    assert (report.summary().tasks, report.summary().task_s) == (0, None)
