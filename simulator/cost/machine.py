"""The hardware as the formulas see it: rates of one chip, and wires of each mesh axis, as arrays over candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...hardware_specs.chip import Chip
from ...hardware_specs.cluster import Mesh
from ...hardware_specs.dtypes import DType
from ...models.forms import AXES
from ...models.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisArrays:
    """`AxisLinks` of many meshes, each field (...) over candidates."""

    inner: Array
    outer: Array
    inner_bytes_per_s: Array
    ring_bytes_per_s: Array
    exchange_bytes_per_s: Array
    inner_hops: Array
    n_lines: Array
    outer_bytes_per_s: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One chip type and the meshes of all candidates, which are cut into the same stages and replicas."""

    chip: Chip
    axes: dict[str, AxisArrays]
    stage_bytes_per_s: Array
    stages_cross: bool
    shared_port: bool

    @property
    def mesh(self) -> dict[str, Array]:
        """Axis sizes."""
        return {axis: np.multiply(links.inner, links.outer) for axis, links in self.axes.items()}

    def peak_flop_per_s(self, dtype: DType) -> float:
        """Dense peak of a matmul in `dtype`."""
        return self.chip.peak_flop_per_s(dtype)


_FIELDS = tuple(AxisArrays.__dataclass_fields__)


def make_machine(chip: Chip, meshes: Sequence[Mesh]) -> Machine:
    """Stack meshes into arrays; one mesh gives scalars, and formulas are the same for both."""

    def stack(values: list[float]) -> Array:
        return float(values[0]) if len(values) == 1 else np.array(values, float)

    axes = {
        axis: AxisArrays(**{name: stack([getattr(getattr(m, axis), name) for m in meshes]) for name in _FIELDS})
        for axis in AXES
    }
    return Machine(
        chip=chip,
        axes=axes,
        stage_bytes_per_s=stack([m.stage_bytes_per_s for m in meshes]),
        stages_cross=meshes[0].stages_cross,
        shared_port=meshes[0].shared_port,
    )


def take(machine: Machine, index: np.ndarray) -> Machine:
    """The machine of some candidates, or of candidates repeated."""

    def pick(values: Array) -> Array:
        return values if np.ndim(values) == 0 else np.asarray(values)[index]

    axes = {
        axis: AxisArrays(**{name: pick(getattr(links, name)) for name in _FIELDS})
        for axis, links in machine.axes.items()
    }
    return Machine(
        chip=machine.chip,
        axes=axes,
        stage_bytes_per_s=pick(machine.stage_bytes_per_s),
        stages_cross=machine.stages_cross,
        shared_port=machine.shared_port,
    )
