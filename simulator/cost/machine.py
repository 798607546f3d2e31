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
class Speed:
    """What-if rates over those a chip claims, each (...) over candidates.

    Parameters
    ----------
    flop, hbm, links, network : arithmetic, memory traffic, wires inside the fast domain, ports between domains
    """

    flop: Array = 1.0
    hbm: Array = 1.0
    links: Array = 1.0
    network: Array = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One chip type and the meshes of all candidates, which are cut into the same stages and replicas.

    `speed` is None where the chips are as they are claimed; the wires of `axes` have theirs in them.
    """

    chip: Chip
    axes: dict[str, AxisArrays]
    stage_bytes_per_s: Array
    stages_cross: bool
    shared_port: bool
    speed: Speed | None = None

    @property
    def mesh(self) -> dict[str, Array]:
        """Axis sizes."""
        return {axis: np.multiply(links.inner, links.outer) for axis, links in self.axes.items()}

    def peak_flop_per_s(self, dtype: DType) -> Array:
        """Dense peak of a matmul in `dtype`."""
        claimed = self.chip.peak_flop_per_s(dtype)
        return claimed if self.speed is None else claimed * self.speed.flop

    @property
    def hbm_bytes_per_s(self) -> Array:
        """HBM bandwidth of a chip."""
        claimed = self.chip.hbm_bytes_per_s.value
        return claimed if self.speed is None else claimed * self.speed.hbm


_FIELDS = tuple(AxisArrays.__dataclass_fields__)
_INSIDE = ("inner_bytes_per_s", "ring_bytes_per_s", "exchange_bytes_per_s")


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
    """The machine of some candidates, or of candidates repeated; what all of them share has a first dimension of 1."""

    def pick(values: Array) -> Array:
        return values if np.ndim(values) == 0 or len(np.asarray(values)) == 1 else np.asarray(values)[index]

    axes = {
        axis: AxisArrays(**{name: pick(getattr(links, name)) for name in _FIELDS})
        for axis, links in machine.axes.items()
    }
    speed = machine.speed
    return Machine(
        chip=machine.chip,
        axes=axes,
        stage_bytes_per_s=pick(machine.stage_bytes_per_s),
        stages_cross=machine.stages_cross,
        shared_port=machine.shared_port,
        speed=None if speed is None else Speed(**{name: pick(getattr(speed, name)) for name in _SPEEDS}),
    )


def with_dimensions(machine: Machine, n_more: int) -> Machine:
    """The same candidates, with room behind each for what they are priced at: (n,) becomes (n, 1, ..., 1)."""

    def lift(values: Array) -> Array:
        return values if np.ndim(values) == 0 else np.reshape(values, (-1, *(1,) * n_more))

    axes = {
        axis: AxisArrays(**{name: lift(getattr(links, name)) for name in _FIELDS})
        for axis, links in machine.axes.items()
    }
    return Machine(
        chip=machine.chip,
        axes=axes,
        stage_bytes_per_s=lift(machine.stage_bytes_per_s),
        stages_cross=machine.stages_cross,
        shared_port=machine.shared_port,
    )


_SPEEDS = tuple(Speed.__dataclass_fields__)


def at_speed(machine: Machine, speed: Speed) -> Machine:
    """The same meshes of chips whose rates are `speed` times those claimed."""

    def of(links: AxisArrays, name: str) -> Array:
        rate: Array = getattr(links, name)
        if name in _INSIDE:
            return rate * speed.links
        return rate * speed.network if name == "outer_bytes_per_s" else rate

    return Machine(
        chip=machine.chip,
        axes={axis: AxisArrays(**{n: of(links, n) for n in _FIELDS}) for axis, links in machine.axes.items()},
        stage_bytes_per_s=machine.stage_bytes_per_s * (speed.network if machine.stages_cross else speed.links),
        stages_cross=machine.stages_cross,
        shared_port=machine.shared_port,
        speed=speed,
    )
