"""Fits: the shipped ones come out of their recipes, and the machinery finds what was put in."""

import math
from dataclasses import replace
from importlib.resources import files

import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.errors import UnknownNameError
from shardwise.simulator.cost.calibrated import Fit, calibration_of, dump_fit, load_fits, read_fit
from shardwise.simulator.cost.constants import Constants
from shardwise.simulator.cost.fit import FitCase, fit_constants, interval_log, predict_case_s
from shardwise.simulator.cost.price import Engine
from shardwise.validate.cases import fastertransformer_cases, fit_cases, is_holdout
from shardwise.validate.recipes import RECIPES, Recipe, fit_from, get_recipe


def _engine(chip: str, name: str, constants: Constants) -> Engine:
    """An engine profile with constants of our own."""
    return replace(calibration_of(get_chip(chip), name, bound=True).engine, constants=constants)


def _shipped_text(chip: str) -> str:
    return (files("shardwise.simulator.cost") / "fits" / f"{chip}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", ["pope2022", pytest.param("fastertransformer", marks=pytest.mark.slow)])
def test_a_shipped_fit_is_what_its_recipe_makes(name: str) -> None:
    made, shipped = fit_from(name), load_fits()[get_recipe(name).chip]
    assert made.constants.keys() == shipped.constants.keys()
    for constant, value in shipped.constants.items():
        # the minimum is flat: versions of scipy and of the BLAS stop a little apart
        assert made.constants[constant] == pytest.approx(value, rel=0.01), constant
    assert made.interval_log == pytest.approx(shipped.interval_log, rel=0.01)
    assert [row.id for row in made.residuals] == [row.id for row in shipped.residuals]
    for ours, theirs in zip(made.residuals, shipped.residuals, strict=True):
        assert ours.predicted_s == pytest.approx(theirs.predicted_s, rel=0.01), ours.id


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_a_shipped_fit_states_its_recipe_and_its_rows(recipe: Recipe) -> None:
    fit = load_fits()[recipe.chip]
    assert (fit.engine, fit.free, fit.command) == (recipe.engine, recipe.free, recipe.command)
    assert set(fit.constants) == set(recipe.free)
    assert [(row.id, row.measured_s) for row in fit.residuals] == [
        (case.id, case.measured_s) for case in recipe.cases()
    ]
    engine = _engine(recipe.chip, recipe.engine, Constants(**fit.constants))
    for case, row in zip(recipe.cases(), fit.residuals, strict=True):
        # the file keeps four digits of a constant and five of a time
        assert predict_case_s(case, engine) == pytest.approx(row.predicted_s, rel=2e-3), case.id


@pytest.mark.parametrize("chip", load_fits())
def test_a_shipped_fit_is_written_as_the_command_writes_it(chip: str) -> None:
    assert dump_fit(read_fit(_shipped_text(chip), chip)) == _shipped_text(chip)


@pytest.mark.parametrize("chip", load_fits())
def test_the_interval_follows_from_the_residuals(chip: str) -> None:
    fit = load_fits()[chip]
    width = interval_log([row.log_ratio for row in fit.residuals], n_free=len(fit.free))
    # residuals of five digits
    assert fit.interval_log == pytest.approx(width, rel=1e-3)


def test_a_third_of_the_rows_of_fastertransformer_judges_and_none_is_in_the_fit() -> None:
    every = {case.id for case in fastertransformer_cases()}
    judging = {case_id for case_id in every if is_holdout(case_id)}
    fitted = {case.id for case in get_recipe("fastertransformer").cases()}
    assert fitted == every - judging
    assert 0.2 < len(judging) / len(every) < 0.5


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="pope2022"):
        get_recipe("pope2023")


def _synthetic_cases(true: Constants) -> list[FitCase]:
    """Published rows with times made by known constants."""
    engine = _engine("tpu-v4", "jax-pope2022", true)
    return [replace(case, measured_s=predict_case_s(case, engine)) for case in fit_cases()]


def _fit(cases: list[FitCase], free: list[str]) -> Fit:
    return fit_constants(cases, chip="tpu-v4", engine="jax-pope2022", free=free, command="none")


def test_a_fit_finds_the_constants_that_made_the_times() -> None:
    true = Constants(matmul_efficiency=0.7, hop_s=3e-6)
    fit = _fit(_synthetic_cases(true), ["matmul_efficiency", "hop_s"])
    # stopped at a relative change of 1e-8 in cost; stored to four digits
    assert fit.constants["matmul_efficiency"] == pytest.approx(0.7, rel=2e-3)
    assert fit.constants["hop_s"] == pytest.approx(3e-6, rel=2e-2)
    assert fit.interval_log <= 1e-3


def test_constants_that_are_not_free_stay_at_the_bound() -> None:
    fit = _fit(_synthetic_cases(Constants(matmul_efficiency=0.7))[:4], ["matmul_efficiency"])
    assert Constants(**fit.constants) == Constants(matmul_efficiency=fit.constants["matmul_efficiency"])


def test_a_slower_constant_never_predicts_less() -> None:
    slower = (
        Constants(matmul_efficiency=0.5),
        Constants(hbm_efficiency=0.5),
        Constants(link_efficiency=0.5),
        Constants(ring_efficiency=0.5),
        Constants(collective_launch_s=1e-5),
        Constants(hop_s=1e-5),
    )
    bound, *slow = (_engine("tpu-v4", "jax-pope2022", constants) for constants in (Constants(), *slower))
    for case in fit_cases():
        least = predict_case_s(case, bound)
        assert all(predict_case_s(case, engine) >= least for engine in slow), case.id


def test_the_interval_is_students_t_over_what_the_fit_left() -> None:
    # t(0.95, 2) = 2.920; spread sqrt(4 x 0.01 / 2); widened by sqrt(1 + 1/4)
    expected = 2.920 * math.sqrt(0.04 / 2) * math.sqrt(1.25)
    assert interval_log([0.1, -0.1, 0.1, -0.1], n_free=2) == pytest.approx(expected, rel=1e-3)
    assert interval_log([0.1, -0.1], n_free=2) > interval_log([0.1, -0.1], n_free=0)
