"""Choices priced together are each as by themselves, and the work of their steps is that of the program."""

import math

import numpy as np
import pytest
from shardwise.planner.build import build_phase, build_phases
from shardwise.planner.repriced import reprice
from shardwise.planner.request import PlanRequest, make_request
from shardwise.planner.search import search
from shardwise.simulator.cost.machine import make_machine
from shardwise.simulator.cost.phases import price_phase
from shardwise.tests.strategies import small_model


def request_of(on: str) -> PlanRequest:
    return make_request(small_model(), on, input_tokens=64, output_tokens=16)


def assert_alike(one: object, other: object) -> None:
    """Equal, numbers to the last digits: together and alone are added up in another order."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_alike(*pair)
    else:
        assert one == (pytest.approx(other, rel=1e-12) if isinstance(other, float) else other)


@pytest.mark.parametrize("on", ["h100-sxm:..8", "tpu-v4:2x2x2", "mi300x:..4", "a100-80gb-sxm:2x8"])
def test_phases_written_out_together_are_those_written_out_alone(on: str) -> None:
    request = request_of(on)
    choices = [choice for pair in search(request).frontier for choice in (pair.prefill, pair.decode)]
    assert len({choice.setting.pp for choice in choices}) > 1 or len(choices) > 10
    for made, choice in zip(build_phases(request, choices), choices, strict=True):
        alone = build_phase(request, choice)
        assert_alike(made.model_dump(), alone.model_dump())


def test_steps_add_up_to_the_pass_and_to_its_flop() -> None:
    request = request_of("h100-sxm:1")
    choices = [pair.prefill for pair in search(request).frontier]
    priced = reprice(request, choices, lambda slice_: request.calibration(slice_).engine)
    for one in priced:
        assert math.isclose(sum(step.total_s for step in one.steps) * one.choice.n_microbatches, one.pass_s)
        flop = sum(step.count * step.flop for step in one.steps) * one.choice.n_microbatches
        assert math.isclose(flop, one.flop)
        assert all(step.hbm_bytes > 0.0 for step in one.steps if step.flop)


def test_pipelines_of_any_length_priced_as_one_array_are_those_priced_alone() -> None:
    request = request_of("h100-sxm:8")
    decodes = [pair.decode for pair in search(request).pairs]
    staged = {choice.setting.pp: choice for choice in decodes if choice.setting.pp > 1}
    if not staged:
        pytest.skip("no pipeline is among the best")
    priced = reprice(request, list(staged.values()), lambda slice_: request.calibration(slice_).engine)
    for one in priced:
        setting = one.choice.setting
        machine = make_machine(one.choice.slice.chip, [one.mesh])
        engine = request.calibration(one.choice.slice).engine
        batch = np.array([float(one.choice.batch)])
        alone = price_phase(setting, machine, batch, engine, n_microbatches=float(one.choice.n_microbatches))
        assert one.pass_s == pytest.approx(float(alone.pass_s[0]), rel=1e-12)
