"""A chip as its maker describes it: claimed figures, each with its source.

No efficiency enters here; what a chip really reaches is measured or fitted elsewhere.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .documents import read_yaml
from .dtypes import DType
from .errors import SpecError
from .units import parse_quantity

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(BaseModel):
    """One claimed number in SI, and the key of its source."""

    model_config = _STRICT
    value: float = Field(gt=0)
    source: str


def _figure(unit: str) -> BeforeValidator:
    def read(raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("value"), str):
            return raw | {"value": parse_quantity(raw["value"], unit)}
        raise SpecError(f"write {{value: <number with unit in {unit}>, source: <key>}}, not {raw!r}")

    return BeforeValidator(read)


FlopRate = Annotated[Figure, _figure("flop/s")]
ByteRate = Annotated[Figure, _figure("B/s")]
Bytes = Annotated[Figure, _figure("B")]
Power = Annotated[Figure, _figure("W")]


class Torus(BaseModel):
    """Chip-to-chip links in a 2D or 3D grid.

    An axis wraps around if it is a multiple of `wrap_multiple`; where `wrap_needs_all` is set, only if all axes are.
    """

    model_config = _STRICT
    kind: Literal["torus"] = "torus"
    n_dims: Literal[2, 3]
    link_bytes_per_s: ByteRate = Field(description="one link, one direction")
    wrap_multiple: int = Field(gt=0)
    wrap_needs_all: bool
    small_shapes: tuple[str, ...] = Field(description="slices smaller than the grain, as 2x2x4")
    grain: int = Field(gt=0, description="bigger slices have every axis a multiple of this")
    max_axis: int = Field(gt=0)
    max_chips: int = Field(gt=0)


class Switch(BaseModel):
    """A domain of chips: around a switch, on PCIe, or each wired to each other (mesh).

    Behind a switch a chip reaches any other at its full rate; in a mesh every pair has an equal part of it.
    """

    model_config = _STRICT
    kind: Literal["switch", "pcie", "mesh"]
    bytes_per_s: ByteRate = Field(description="one chip, one direction")
    domain_chips: int = Field(gt=0)


class Chip(BaseModel):
    """One accelerator: dense peaks per format, memory, links, power."""

    model_config = _STRICT
    name: str
    vendor: str
    aliases: tuple[str, ...] = ()
    sources: dict[str, str]
    notes: str = ""
    dense_flop_per_s: dict[str, FlopRate]
    hbm_bytes: Bytes
    hbm_bytes_per_s: ByteRate
    l2_bytes: Bytes | None = Field(default=None, description="cache that all compute units share")
    scale_up: Torus | Switch
    scale_out_bytes_per_s: ByteRate | None = Field(
        default=None, description="network to other nodes, one chip, one direction, in the maker's reference system"
    )
    tdp_w: Power | None = None
    n_compute_units: int | None = None
    systolic_side: int | None = Field(default=None, gt=0, description="rows and columns of a TPU's matrix unit")

    @model_validator(mode="after")
    def _sources_are_named(self) -> "Chip":
        figures = [*self.dense_flop_per_s.values(), self.hbm_bytes, self.hbm_bytes_per_s]
        links = self.scale_up.link_bytes_per_s if isinstance(self.scale_up, Torus) else self.scale_up.bytes_per_s
        for figure in (*figures, links, self.l2_bytes, self.scale_out_bytes_per_s, self.tdp_w):
            if figure is not None and figure.source not in self.sources:
                raise SpecError(f"{self.name}: source {figure.source!r} is not in sources {sorted(self.sources)}")
        return self

    def __hash__(self) -> int:
        """By name: the catalogue has each once."""
        return hash(self.name)

    def peak_flop_per_s(self, dtype: DType) -> float:
        """Dense peak for matmuls in `dtype`; formats without a unit of their own run in bf16 (fp16 and bf16 alike)."""
        peaks = self.dense_flop_per_s
        for key in (dtype.compute, "bf16", "fp16", "fp32"):
            if key in peaks:
                return peaks[key].value
        raise SpecError(f"{self.name} claims no peak for {dtype.name}; it has {sorted(peaks)}")


def capped_chip(chip: Chip, power_w: float) -> Chip:
    r"""A chip whose power is held below its rating: its clock falls, its memory's does not.

    .. math:: f / f_0 = (P / P_0)^{1/3}

    as dynamic power goes with f V^2 and the voltage with the frequency. A cap above the rating changes nothing.

    References
    ----------
    [Weste2011] section 5.1.
    """
    if chip.tdp_w is None:
        raise SpecError(f"{chip.name} has no rated power, so a cap of {power_w:g} W says nothing of its clock")
    share = min(power_w / chip.tdp_w.value, 1.0) ** (1.0 / 3.0)
    slowed = {
        name: rate.model_copy(update={"value": rate.value * share}) for name, rate in chip.dense_flop_per_s.items()
    }
    return chip.model_copy(update={"dense_flop_per_s": slowed})


def read_chip(text: str, origin: str) -> Chip:
    """Read one chip from YAML; `origin` names the file in errors."""
    try:
        return Chip.model_validate(read_yaml(text))
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{origin}: {error}") from error
