"""The machine the project is developed on, as a chip: every figure measured, none guessed.

A chip is one process with one thread; the processes of one host talk through its memory.
"""

from .chip import Chip
from .errors import SpecError
from .measurement import Measurement, shipped_measurements

NAME = "cpu-host"
VENDOR = "host"
_SOURCE = "measured"


def cpu_host() -> Chip:
    """The chip, made of the medians of its measured rows."""
    rows = shipped_measurements(NAME, "host.csv")
    flop = _row(rows, "fp32 matmul").p50
    memory, copy = _row(rows, "memory read"), _row(rows, "process to process")
    capacity, n_processes = _row(rows, "memory of a process"), _row(rows, "processes")
    return Chip.model_validate(
        {
            "name": NAME,
            "vendor": VENDOR,
            "aliases": ["cpu"],
            "sources": {_SOURCE: f"{memory.command} on {memory.device}, {memory.date}, {memory.software}"},
            "notes": "One chip is one process with one thread; median of the measured rows.",
            "dense_flop_per_s": {"fp32": _figure(f"{flop} flop/s")},
            "hbm_bytes": _figure(f"{capacity.p50} B"),
            "hbm_bytes_per_s": _figure(f"{memory.p50} B/s"),
            "scale_up": {
                "kind": "switch",
                "bytes_per_s": _figure(f"{copy.p50} B/s"),
                "domain_chips": int(n_processes.p50),
            },
        }
    )


def _figure(value: str) -> dict[str, str]:
    return {"value": value, "source": _SOURCE}


def _row(rows: tuple[Measurement, ...], quantity: str) -> Measurement:
    """The measured row of a quantity."""
    for row in rows:
        if row.quantity == quantity:
            return row
    raise SpecError(f"no measured row {quantity!r} for {NAME}; write them with `python benchmarks/cpu_host.py`")
