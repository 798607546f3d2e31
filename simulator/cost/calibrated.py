"""Fits as files, and which of them prices a chip: its own, a relative's (marked as extrapolated), or the bound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ...hardware_specs.chip import Chip, Torus
from ...hardware_specs.cpu_host import NAME as HOST_CHIP
from ...hardware_specs.cpu_host import VENDOR as HOST
from ...hardware_specs.documents import read_yaml
from ...hardware_specs.errors import SpecError
from .constants import Constants
from .engines import EngineProfile, get_engine
from .kernel_times import KernelFamily, KernelFit, KernelTimes, shipped_kernel_fit
from .price import Engine
from .user_fits import engine_fits_folder, kernel_fits_folder, user_kernel_fits

Origin = Literal["bound", "fitted", "extrapolated"]


class Residual(BaseModel):
    """One row a fit was made on, and what it now predicts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    id: str
    source: str
    measured_s: float = Field(gt=0)
    predicted_s: float = Field(gt=0)

    @property
    def log_ratio(self) -> float:
        """ln(predicted / measured)."""
        return math.log(self.predicted_s / self.measured_s)


class Fit(BaseModel):
    """Constants of one chip, the rows they were fitted on, and what is left over."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    chip: str
    engine: str
    form: str
    command: str
    free: tuple[str, ...]
    constants: dict[str, float]
    interval_log: float = Field(ge=0, description="half width of the 90 % interval of ln(true / predicted)")
    experts_interval_log: float | None = Field(default=None, ge=0, description="the same for models with experts")
    residuals: tuple[Residual, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What prices a chip: the engine with its constants, where they come from, and how wide the interval is.

    A fit speaks for its own chip under its own engine; elsewhere it is extrapolated. `interval_log` is the fit's own.
    `is_whole` says that it holds what is uncertain about borrowed constants too. `users_own` names a user's own measurements
    where kernels are priced by them.
    """

    engine: Engine
    origin: Origin
    free: tuple[str, ...]
    interval_log: float | None
    is_whole: bool = False
    users_own: str | None = None


# A chip without a fit borrows from the nearest relative that has one; its predictions say so.
_RELATIVES = {"google": "tpu-v4", "nvidia": "a100-80gb-sxm", "amd": "a100-80gb-sxm", "intel": "a100-80gb-sxm"}
# The same for kernels: the chip whose multiprocessors are most alike, by the beginning of the name.
_KERNEL_RELATIVES = {
    "a100": "a100-80gb-sxm",
    "h200": "h200-sxm",
    "gh200-144": "h200-sxm",
    "h100": "h100-sxm",
    "h800": "h100-sxm",
    "h20": "h100-sxm",
    "gh200": "h100-sxm",
    "b": "b200",
    "gb": "b200",
    "rtx-pro": "rtx-pro-6000-blackwell",
    "rtx": "l40s",
    "l": "l40s",
    "mi": "h100-sxm",
    "v100": "a100-80gb-sxm",
}


@cache
def load_fits() -> dict[str, Fit]:
    """Every fit that ships, by chip."""
    folder = files(__package__) / "fits"
    fits = [read_fit(path.read_text("utf-8"), path.name) for path in folder.iterdir() if path.name.endswith(".yaml")]
    return {fit.chip: fit for fit in fits}


def default_engine(chip: Chip, *, experts: bool = False) -> str:
    """The engine a chip is priced with unless another is asked for: on a torus the paper's, else vLLM of today.

    On AMD's chips it is the vLLM that batches of every size were measured of; for models with `experts` the vLLM that was
    measured with several of them.
    """
    if isinstance(chip.scale_up, Torus):
        return "jax-pope2022"
    today = "vllm-async" if experts else "vllm"
    return {"amd": "vllm-rocm-v0", HOST: "shardwise"}.get(chip.vendor.lower(), today)


def read_fit(text: str, origin: str) -> Fit:
    """Read one fit; `origin` names the file in errors."""
    try:
        raw: Any = read_yaml(text)
        return Fit.model_validate(raw)
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{origin}: {error}") from error


def dump_fit(fit: Fit) -> str:
    """A fit as the YAML that `read_fit` reads."""
    return yaml.safe_dump(
        fit.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120, default_flow_style=None
    )


def calibration_of(chip: Chip, engine: str | None = None, *, bound: bool = False, experts: bool = False) -> Calibration:
    """The constants for a chip.

    Parameters
    ----------
    engine : name of an engine profile; None takes the chip's usual one
    bound : take the roofline instead of any fit
    experts : the model has experts, whose errors an engine's fit may know apart
    """
    profile = get_engine(engine or default_engine(chip))
    fits = load_fits()
    if bound or not fits:
        return Calibration(engine=profile.runs, origin="bound", free=(), interval_log=None)
    kernels = kernels_of(chip, profile.stack)
    if kernels is not None:
        return _by_kernels(profile, kernels, experts=experts)
    if (alone := load_engine_fits().get(profile.name)) is not None and profile.stack is None:
        return Calibration(
            engine=replace(profile.runs, constants=Constants(**alone.constants)),
            origin="fitted" if alone.chip == chip.name else "extrapolated",
            free=alone.free,
            interval_log=alone.interval_log,
            is_whole=True,
        )
    name = chip.name if chip.name in fits else _RELATIVES.get(chip.vendor.lower())
    if name not in fits:
        return calibration_of(chip, engine, bound=True)
    fit = fits[name]
    own = name == chip.name and fit.engine == profile.name
    return Calibration(
        engine=replace(profile.runs, constants=Constants(**fit.constants)),
        origin="fitted" if own else "extrapolated",
        free=fit.free,
        interval_log=fit.interval_log,
    )


def kernels_of(chip: Chip, stack: str | None) -> KernelTimes | None:
    """Measured kernels of a software stack on a chip, or on the chip most like it; None where there are none.

    What was not measured under that stack on the chip is taken from another stack there. A user's own fit goes before one
    that ships, for the very chip and stack it was made on.
    """
    if stack is None:
        return None
    for name in (chip.name, _kernel_relative(chip)):
        own = _user_fits() if name == chip.name else {}
        tried = [own.get((name, of)) or shipped_kernel_fit(name, of) for of in _stand_ins(stack)]
        found = [fit for fit in tried if fit is not None]
        if found:
            return KernelTimes(chip, _completed(found))
    return None


def _stand_ins(stack: str) -> tuple[str, ...]:
    """A stack, then those whose kernels stand in for what it lacks."""
    others = STACKS if stack in STACKS else _EXECUTED
    return (stack, *(other for other in others if other != stack))


def _user_fits() -> dict[tuple[str, str], KernelFit]:
    """A user's own fits; read again only once one of their files has changed."""
    paths = sorted(kernel_fits_folder().glob("*.json"))
    return _read_user_fits(tuple((str(path), path.stat().st_mtime_ns) for path in paths))


@cache
def _read_user_fits(files_at: tuple[tuple[str, int], ...]) -> dict[tuple[str, str], KernelFit]:
    return user_kernel_fits() if files_at else {}


def _users_own(chip: Chip, stack: str | None) -> str | None:
    """What a user's own fit of a chip and stack was made from; None where there is none."""
    fit = None if stack is None else _user_fits().get((chip.name, stack))
    return None if fit is None else f"your own kernels of {fit.chip} under {fit.stack}, from {fit.source}"


def _completed(fits: Sequence[KernelFit]) -> KernelFit:
    """The first fit, and of each other the families that those before it lack; none that says less than a factor of two."""
    families: dict[tuple[str, str, str], KernelFamily] = {}
    for fit in fits:
        for family in fit.families:
            if family.interval_log < _SAYS_NOTHING_LOG:
                families.setdefault(family.key, family)
    return fits[0].model_copy(update={"families": tuple(families.values())})


def chip_engine(engine: Engine, chip: Chip, profile: EngineProfile) -> Engine:
    """An engine with the kernels its profile runs on a chip."""
    return replace(engine, kernels=kernels_of(chip, profile.stack))


def _kernel_relative(chip: Chip) -> str:
    alike = [name for name in _KERNEL_RELATIVES if chip.name.startswith(name)]
    return _KERNEL_RELATIVES[max(alike, key=len)] if alike else ""


def _by_kernels(profile: EngineProfile, kernels: KernelTimes, *, experts: bool) -> Calibration:
    """An engine over measured kernels: its own constants are fitted to whole passes, or at their defaults."""
    fit = _engine_fit(profile, kernels.chip)
    typical = fit or (None if kernels.chip.vendor == HOST else load_engine_fits().get(_TYPICAL_ENGINE))
    constants = profile.runs.constants if typical is None else Constants(**typical.constants)
    return Calibration(
        engine=replace(profile.runs, kernels=kernels, constants=constants, on_host=kernels.chip.vendor == HOST),
        users_own=_users_own(kernels.chip, profile.stack),
        origin="fitted" if kernels.is_own and fit is not None else "extrapolated",
        free=() if fit is None else fit.free,
        interval_log=_interval_log(fit, is_own=kernels.is_own, experts=experts),
        is_whole=True,
    )


def _engine_fit(profile: EngineProfile, chip: Chip) -> Fit | None:
    """What an engine adds to kernels: on a host, its own there alone, and a user's before the one that ships."""
    if chip.vendor == HOST:
        known = [*_user_engine_fits(), load_engine_fits().get(profile.name)]
        return next((fit for fit in known if fit and (fit.chip, fit.engine) == (chip.name, profile.name)), None)
    fit = load_engine_fits().get(profile.name)
    return None if fit is not None and fit.chip == HOST_CHIP else fit


def _user_engine_fits() -> list[Fit]:
    """A user's own fits of what engines add to kernels."""
    paths = sorted(engine_fits_folder().glob("*.yaml"))
    return [read_fit(path.read_text("utf-8"), str(path)) for path in paths]


# A family whose own held-out rows lie further from it than this is left to claimed figures.
_SAYS_NOTHING_LOG = math.log(2.0)
# Stacks of kernels, in the order in which one stands in for another: those that serve, and what we execute with ourselves.
STACKS = ("vllm", "trtllm", "sglang")
_EXECUTED = ("shardwise", "torch")
# Logarithm of what a chip's kernels take over what another chip's corrections say of them: nine of ten lie within (matmuls and
# attention of the H100 and the A100 predicted by each other's fits).
BORROWED_LOG = 0.35
# An engine of which no run was measured is taken to be like this one, and to differ from it by no more than this.
_TYPICAL_ENGINE = "vllm"
UNKNOWN_ENGINE_LOG = 0.5


def _interval_log(fit: Fit | None, *, is_own: bool, experts: bool) -> float:
    """Half width of the interval: errors of the engine's fit and of borrowed kernels, independent of each other."""
    own = UNKNOWN_ENGINE_LOG if fit is None else fit.interval_log
    if fit is not None and experts and fit.experts_interval_log is not None:
        own = fit.experts_interval_log
    return own if is_own else math.hypot(own, BORROWED_LOG)


@cache
def load_engine_fits() -> dict[str, Fit]:
    """Fits of what engines add to kernels, by engine."""
    folder = files(__package__) / "fits" / "engines"
    paths = [path for path in folder.iterdir() if path.name.endswith(".yaml")] if folder.is_dir() else []
    fits = [read_fit(path.read_text("utf-8"), path.name) for path in paths]
    return {fit.engine: fit for fit in fits}
