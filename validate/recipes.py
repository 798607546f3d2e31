"""Which published rows each shipped fit is made of, and what is free in it."""

from collections.abc import Callable
from dataclasses import dataclass

from ..hardware_specs.errors import UnknownNameError
from ..simulator.cost.calibrated import Fit
from ..simulator.cost.fit import FitCase, fit_constants
from .cases import fastertransformer_cases, fit_cases, is_holdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One source of measurements: the chip and software it speaks for, and the constants it can tell apart."""

    name: str
    chip: str
    engine: str
    free: tuple[str, ...]
    cases: Callable[[], tuple[FitCase, ...]]

    @property
    def command(self) -> str:
        """What makes the fit again."""
        return f"shardwise calibrate --from {self.name}"


def _fastertransformer_fit_cases() -> tuple[FitCase, ...]:
    """Two thirds of the rows; the others judge."""
    return tuple(case for case in fastertransformer_cases() if not is_holdout(case.id))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="pope2022",
            chip="tpu-v4",
            engine="jax-pope2022",
            free=(
                "matmul_efficiency",
                "hbm_efficiency",
                "link_efficiency",
                "ring_efficiency",
                "collective_launch_s",
                "hop_s",
            ),
            cases=fit_cases,
        ),
        Recipe(
            name="fastertransformer",
            chip="a100-80gb-sxm",
            engine="fastertransformer",
            free=(
                "matmul_efficiency",
                "hbm_efficiency",
                "link_efficiency",
                "collective_launch_s",
                "kernel_launch_s",
                "pass_s",
            ),
            cases=_fastertransformer_fit_cases,
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """Find a source by name."""
    if name not in RECIPES:
        raise UnknownNameError("source of measurements", name, RECIPES)
    return RECIPES[name]


def fit_from(name: str) -> Fit:
    """Fit a chip's constants to the rows of a source."""
    recipe = get_recipe(name)
    return fit_constants(
        recipe.cases(), chip=recipe.chip, engine=recipe.engine, free=recipe.free, command=recipe.command
    )
