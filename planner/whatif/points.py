"""Many questions about one setting as columns: what differs between them and enters the prices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.chip import Chip, Torus
from ...hardware_specs.dtypes import parse_dtype
from ...hardware_specs.errors import SpecError
from ...simulator.cost.machine import Speed
from ...simulator.types import Workloads
from .keys import Change
from .question import Question

Column = NDArray[np.float64]
_BF16 = parse_dtype("bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Pricing points of one setting on one slice, each column (n,).

    Batches are NaN where they are left to the planner; `flop`, `hbm`, `links` and `network` are rates over those claimed.
    """

    prefill_batch: Column
    decode_batch: Column
    input_tokens: Column
    output_tokens: Column
    flop: Column
    hbm: Column
    links: Column
    network: Column

    def __len__(self) -> int:
        """Points."""
        return len(self.input_tokens)

    def take(self, index: NDArray[np.int64]) -> "Points":
        """Some of the points, or points repeated."""
        return Points(**{name: getattr(self, name)[index] for name in FIELDS})

    @property
    def works(self) -> Workloads:
        """What each point serves."""
        return Workloads(input_tokens=self.input_tokens, output_tokens=self.output_tokens)

    @property
    def speed(self) -> Speed | None:
        """What-if rates; None where every point's chips are as they are claimed."""
        columns = {name: getattr(self, name) for name in FIGURES}
        if all(np.all(column == 1.0) for column in columns.values()):
            return None
        return Speed(**columns)


FIELDS = tuple(Points.__dataclass_fields__)
FIGURES = ("flop", "hbm", "links", "network")


def make_points(chip: Chip, asked: Sequence[Question]) -> Points:
    """The pricing columns of questions about one chip."""
    rows = np.array(
        [
            (
                np.nan if q.prefill_batch is None else q.prefill_batch,
                np.nan if q.decode_batch is None else q.decode_batch,
                q.prompt_tokens,
                q.output_tokens,
                over_claimed(chip, "flops", q.flops),
                over_claimed(chip, "hbm_bandwidth", q.hbm_bandwidth),
                over_claimed(chip, "link", q.link),
                over_claimed(chip, "network", q.network),
            )
            for q in asked
        ],
        float,
    )
    return Points(**dict(zip(FIELDS, rows.T, strict=True)))


def distinct(points: Points) -> tuple[Points, NDArray[np.int64]]:
    """The points that differ, and for each point its place among them."""
    table = np.column_stack([getattr(points, name) for name in FIELDS])
    # NaN is not equal to itself; no batch is negative
    _, first, inverse = np.unique(np.nan_to_num(table, nan=-1.0), axis=0, return_index=True, return_inverse=True)
    return points.take(first), np.ravel(inverse)


def over_claimed(chip: Chip, figure: str, change: Change | None) -> float:
    """A what-if figure of a chip over the one it claims.

    Raises
    ------
    SpecError : the chip claims none
    """
    return 1.0 if change is None else change.over(claimed(chip, figure))


def claimed(chip: Chip, figure: str) -> float:
    """A claimed figure by the key that varies it, SI; links per direction, the dense peak of bf16.

    Raises
    ------
    SpecError : the chip claims none
    """
    if figure == "link":
        wires = chip.scale_up
        return wires.link_bytes_per_s.value if isinstance(wires, Torus) else wires.bytes_per_s.value
    if figure == "network":
        if chip.scale_out_bytes_per_s is None:
            raise SpecError(f"{chip.name} claims no network between nodes, so there is none to vary")
        return chip.scale_out_bytes_per_s.value
    return {
        "flops": chip.peak_flop_per_s(_BF16),
        "hbm_bandwidth": chip.hbm_bytes_per_s.value,
        "hbm": chip.hbm_bytes.value,
    }[figure]
