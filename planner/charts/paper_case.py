"""What the paper's figures are drawn for, and rows of answers as curves."""

from collections.abc import Callable
from dataclasses import dataclass

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.errors import SpecError
from ...models.description import Model
from ..whatif.answers import Cell
from ..whatif.ask import WhatIf
from .values import Curve

Row = dict[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCase:
    """What the figures are drawn for.

    Parameters
    ----------
    on : pool of one count; figures over chips go from an eighth of it to four times as many
    input_tokens, output_tokens, batch : of the figures that fix them, the paper's own unless said
    weights : formats beside each other in Figures 1, B.1 and C.1
    """

    model: Model
    on: str
    input_tokens: int = 2048
    output_tokens: int = 64
    batch: int = 512
    weights: tuple[str, ...] = ("bf16", "int8")

    @property
    def chip(self) -> str:
        """Catalogue name of the chip."""
        return get_chip(self.on.partition(":")[0]).name

    @property
    def n_chips(self) -> int:
        """Chips of the pool."""
        return parse_pool(self.on)[0].n_chips

    @property
    def lengths(self) -> str:
        """Input and output in words."""
        return f"{self.input_tokens} tokens in, {self.output_tokens} out"

    @property
    def counts(self) -> tuple[int, ...]:
        """Chip counts that can be had around the pool's, doubling."""
        found = []
        n = self.n_chips
        for count in (n // 8, n // 4, n // 2, n, 2 * n, 4 * n):
            try:
                parse_pool(f"{self.chip}:{count}")
            except SpecError:
                continue
            found.append(count)
        return tuple(found)


LATENCY_TITLES = {"decode": "latency of an output token (ms)", "prefill": "latency of the prompts of a batch (s)"}


def batches(most: int) -> str:
    """Batches to vary: powers of two."""
    return f"batch=1..{most}*2"


def number(row: Row, name: str) -> float:
    """A cell that holds a number."""
    value = row[name]
    assert isinstance(value, int | float), f"{name} is {value!r}"
    return float(value)


def batch_label(row: Row) -> str:
    """The batch, at every third doubling: points lie close."""
    batch = int(number(row, "batch"))
    return str(batch) if (batch.bit_length() - 1) % 3 == 0 else ""


def hover(row: Row, phase: str) -> str:
    """A phase of a row in two lines."""
    step = "ttft_s" if phase == "prefill" else "tpot_s"
    cost = 1e3 * number(row, f"{phase}_chip_s_per_token")
    return (
        f"batch {row['batch']}, {row[f'{phase}_layout']}: {1e3 * number(row, step):.4g} ms, {cost:.4g} chip-ms a token, "
        f"MFU {number(row, f'{phase}_mfu'):.3f}<br>{row['slice']}, mesh {row['mesh']}, pp {row['pp']}, dp {row['dp']}"
    )


def over(answer: WhatIf, key: str, x: Callable[[Row], float], y: Callable[[Row], float]) -> list[Curve]:
    """A curve for each value of a key."""
    curves: dict[str, list[Row]] = {}
    for row in answer.rows():
        if row["fits"]:
            curves.setdefault(str(row[key]), []).append(row)
    return [
        Curve(name=name, x=tuple(x(row) for row in rows), y=tuple(y(row) for row in rows))
        for name, rows in curves.items()
    ]


def need(answer: WhatIf, case: PaperCase) -> None:
    """Raise `SpecError` with the reason where nothing fits."""
    if not answer.n_fitting:
        reasons = sorted({str(reason) for reason in answer.columns["reason"]})
        raise SpecError(f"{case.model.name} on {case.on} with batch {case.batch}: {reasons[0]}")
