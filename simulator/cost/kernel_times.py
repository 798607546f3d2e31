"""Fits of kernels as files, and the seconds of a kernel that they give on a chip."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from ...hardware_specs.chip import Chip, Switch
from ...hardware_specs.dtypes import DTYPES, DType
from ...hardware_specs.errors import SpecError
from ...hardware_specs.kernel_formats import KERNEL_DTYPES
from ...models.types import Array
from .grid import Found, Grid
from .kernel_families import FAMILIES, HOST_FAMILIES
from .kernel_forms import ChipRates, Form, KernelTime, Op, Shape, Widths
from .machine import Speed

_FOLDER = files(__package__) / "fits" / "kernels"

# Candidates timed at once: what they need lies in the cache.
_BLOCK = 16384
# Knots are rounded.
_ROUNDED = 1e-3

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KernelFamily(BaseModel):
    """One family of kernels on one chip: constants of its form, and the correction of what they leave over.

    Parameters
    ----------
    variant : the number format it computes in, or the kind of a collective
    kv : format of the cache an attention reads, the mode a collective is launched in, blank elsewhere
    on_host : whether a host's own cores run it, whose forms are others
    n_rows, n_held_out : measured rows the fit was made on, and those it was judged on
    median_error : of the rows held out
    interval_log : half width of the 90 % interval of ln(true / predicted), from the rows held out
    """

    model_config = _STRICT
    op: Op
    variant: str
    kv: str = ""
    on_host: bool = False
    software: str
    n_rows: int = Field(ge=1)
    n_held_out: int = Field(ge=1)
    median_error: float = Field(ge=0)
    interval_log: float = Field(ge=0)
    constants: dict[str, float]
    correction: tuple[Grid, ...]

    @cached_property
    def _measured(self) -> dict[str, tuple[float, float]]:
        """The range of each feature that was measured, with what rounding may add."""
        ends = {name: (knots[0], knots[-1]) for grid in self.correction for name, knots in grid.knots.items()}
        return {name: (least - _ROUNDED, most + _ROUNDED) for name, (least, most) in ends.items()}

    def outside(self, features: Mapping[str, Array]) -> Array:
        """Whether any feature lies beyond what was measured, (...)."""
        beyond: Array = np.zeros((), bool)
        for name, (least, most) in self._measured.items():
            beyond = np.logical_or(beyond, np.less(features[name], least) | np.greater(features[name], most))
        return beyond

    @property
    def key(self) -> tuple[Op, str, str]:
        """What a kernel is looked up by."""
        return self.op, self.variant, self.kv

    @model_serializer(mode="wrap")
    def _told(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All of it; of a host only where it is one's."""
        told: dict[str, Any] = whole(self)
        return told if self.on_host else {name: value for name, value in told.items() if name != "on_host"}

    @property
    def physical_form(self) -> Form:
        """What its shape alone says of its time."""
        return (HOST_FAMILIES if self.on_host else FAMILIES)[self.op].form

    def time(self, shape: Shape, rates: ChipRates, widths: Widths) -> KernelTime:
        """Seconds of the form, each part times the correction."""
        raw = self.physical_form(shape, self.constants, rates, widths)
        found: Found = {}
        factor = np.exp(sum((grid.at(raw.features, found) for grid in self.correction), start=0.0))
        return KernelTime(
            compute_s=raw.compute_s * factor,
            memory_s=raw.memory_s * factor,
            comm_s=raw.comm_s * factor,
            fixed_s=raw.fixed_s * factor,
            features=raw.features,
        )


class KernelFit(BaseModel):
    """Every family that was measured on one chip under one software stack."""

    model_config = _STRICT
    chip: str
    stack: str
    source: str
    command: str
    form: str
    refused: dict[str, int]
    families: tuple[KernelFamily, ...]


def read_kernel_fit(text: str, origin: str) -> KernelFit:
    """Read a fit from JSON; `origin` names the file in errors."""
    try:
        return KernelFit.model_validate_json(text)
    except ValueError as error:
        raise SpecError(f"{origin}: {error}") from error


def dump_kernel_fit(fit: KernelFit) -> str:
    """A fit as the JSON that `read_kernel_fit` reads: one family a line."""
    raw: dict[str, Any] = fit.model_dump(mode="json")
    families = raw.pop("families")
    head = json.dumps(raw, indent=1)[:-2]
    lines = ",\n".join(json.dumps(family, separators=(",", ":")) for family in families)
    return f'{head},\n "families": [\n{lines}\n]\n}}\n'


@cache
def shipped_kernel_fit(chip: str, stack: str) -> KernelFit | None:
    """The kernel fit of a chip under a software stack, if one ships."""
    path = _FOLDER / f"{chip}.{stack}.json"
    return read_kernel_fit(path.read_text("utf-8"), path.name) if path.is_file() else None


def shipped_kernel_fits() -> dict[tuple[str, str], KernelFit]:
    """Every kernel fit that ships, by chip and stack; it takes a while to read them."""
    names = [path.name.removesuffix(".json").rsplit(".", 1) for path in _FOLDER.iterdir()] if _FOLDER.is_dir() else []
    fits = {(chip, stack): shipped_kernel_fit(chip, stack) for chip, stack in names}
    return {key: fit for key, fit in fits.items() if fit is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedKernel:
    """A kernel's seconds, the family they come from, and whether its shape lies outside what was measured, (...)."""

    time: KernelTime
    family: KernelFamily
    outside: Array


class KernelTimes:
    """What kernels take on a chip by a fit, which may be another chip's: its corrections over this one's claimed rates."""

    def __init__(self, chip: Chip, fit: KernelFit, speed: Speed | None = None) -> None:
        self.chip, self.fit, self.speed = chip, fit, speed
        self._families = {family.key: family for family in fit.families}

    def at_speed(self, speed: Speed) -> "KernelTimes":
        """The same kernels on chips whose rates are `speed` times those claimed."""
        return KernelTimes(self.chip, self.fit, speed)

    @property
    def is_own(self) -> bool:
        """Whether the fit was made on this chip."""
        return self.fit.chip == self.chip.name

    def find(self, op: Op, variants: Iterable[str], kv: str = "") -> KernelFamily | None:
        """The first of the variants that was measured."""
        return next((f for v in variants if (f := self._families.get((op, v, kv))) is not None), None)

    def time(self, family: KernelFamily, shape: Shape, dtype: DType, widths: Widths) -> TimedKernel:
        """Seconds of one kernel of a family."""
        rates = chip_rates(self.chip, dtype, self.speed)
        columns = [*shape.values(), rates.flop_per_s, rates.bytes_per_s, rates.link_bytes_per_s]
        sizes = {np.shape(column) for column in columns} - {()}
        if len(sizes) != 1 or len(only := sizes.pop()) != 1 or only[0] <= _BLOCK:
            made = family.time(shape, rates, widths)
            return TimedKernel(time=made, family=family, outside=family.outside(made.features))
        blocks = [slice(first, first + _BLOCK) for first in range(0, only[0], _BLOCK)]
        times = [
            family.time({n: _part(c, block) for n, c in shape.items()}, _rates_of(rates, block), widths)
            for block in blocks
        ]
        return _joined(family, times, only[0])


def _part(column: Array, block: slice) -> Array:
    """A block of the candidates, or what they share."""
    return column if np.ndim(column) == 0 else np.asarray(column)[block]


def _rates_of(rates: ChipRates, block: slice) -> ChipRates:
    return ChipRates(
        flop_per_s=_part(rates.flop_per_s, block),
        bytes_per_s=_part(rates.bytes_per_s, block),
        link_bytes_per_s=_part(rates.link_bytes_per_s, block),
        n_units=rates.n_units,
    )


def _joined(family: KernelFamily, blocks: Sequence[KernelTime], n: int) -> TimedKernel:
    def whole(parts: Sequence[Array]) -> Array:
        return np.concatenate(parts) if np.ndim(parts[0]) else parts[0]

    return TimedKernel(
        time=KernelTime(
            compute_s=whole([block.compute_s for block in blocks]),
            memory_s=whole([block.memory_s for block in blocks]),
            comm_s=whole([block.comm_s for block in blocks]),
            fixed_s=whole([block.fixed_s for block in blocks]),
            features={name: whole([block.features[name] for block in blocks]) for name in blocks[0].features},
        ),
        family=family,
        outside=whole([family.outside(block.features) for block in blocks]),
    )


def chip_rates(chip: Chip, dtype: DType, speed: Speed | None = None) -> ChipRates:
    """A chip's claims, times `speed`, for kernels that compute in `dtype`."""
    links = chip.scale_up.bytes_per_s.value if isinstance(chip.scale_up, Switch) else 0.0
    times = Speed() if speed is None else speed
    return ChipRates(
        flop_per_s=chip.peak_flop_per_s(dtype) * times.flop,
        bytes_per_s=chip.hbm_bytes_per_s.value * times.hbm,
        link_bytes_per_s=links * times.links,
        n_units=float(chip.n_compute_units or 1),
    )


def computing_format(variant: str) -> DType:
    """The format a family computes in; a collective computes nothing."""
    return KERNEL_DTYPES.get(variant, KERNEL_DTYPES["bf16"]).activations


# Formats of which one is timed for the other: tensor cores run both alike.
_ALIKE = {"fp16": "bf16", "int4-g128": "int4", "spqr": "int4"}


def variants_of(weights: DType, activations: DType) -> tuple[str, ...]:
    """Names under which matmuls of these formats may have been measured, the best fitting first.

    >>> from ...hardware_specs.dtypes import DTYPES
    >>> variants_of(DTYPES["fp16"], DTYPES["fp16"]), variants_of(DTYPES["int4"], DTYPES["bf16"])
    (('bf16',), ('int4-wo', 'int4-fp8'))
    """
    stored, computed = (DTYPES[_ALIKE.get(dtype.name, dtype.name)] for dtype in (weights, activations))
    alike = [name for name, formats in KERNEL_DTYPES.items() if formats.weights == stored and name not in _ALIKE]
    return tuple(sorted(alike, key=lambda name: KERNEL_DTYPES[name].activations != computed))
