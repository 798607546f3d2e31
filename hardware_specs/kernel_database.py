"""Measured kernels of GPUs from the PyPI package aiconfigurator-core (Apache-2.0), read as files.

Of each op and framework the newest version counts that measured at least `_WHOLE_SHARE` of the rows of the fullest one: later
and much smaller tables fill in single models only.

References
----------
[AIConfigurator2026] : the package.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from .documents import read_yaml
from .errors import SpecError, UnknownNameError
from .kernel_package import CHIPS, SOURCE, database_folder
from .kernel_rows import measurements_of, shape_keys
from .kernel_tables import TABLES, KernelTable
from .measurement import Measurement

OPS: tuple[str, ...] = tuple(dict.fromkeys(table.op for table in TABLES))

_WHOLE_SHARE = 0.5
_COMMAND = "shardwise calibrate --from aiconfigurator"


def imported_frame(chip: str, op: str | None = None) -> pd.DataFrame:
    """Measured kernels of a chip as columns (see `kernel_rows`); rows with impossible values are among them.

    Parameters
    ----------
    chip : a name of ours in `CHIPS`
    op : one of `OPS`; None takes all

    Raises
    ------
    SpecError : no such chip or op in the database, or it is not installed
    """
    if chip not in CHIPS:
        raise UnknownNameError("chip with imported kernels", chip, CHIPS)
    if op is not None and op not in OPS:
        raise UnknownNameError("imported op", op, OPS)
    frames = [frame for table in TABLES if op in (None, table.op) for frame in _read(table, chip)]
    if not frames:
        return pd.DataFrame(columns=["chip", "op", "dtype", "framework", "version", "kernel", "device", "seconds"])
    return pd.concat(frames, ignore_index=True)


def imported_frameworks(chip: str) -> tuple[str, ...]:
    """The frameworks that the database has matmuls of on a chip: those whose kernels are there to run a model."""
    if chip not in CHIPS:
        raise UnknownNameError("chip with imported kernels", chip, CHIPS)
    folder = database_folder() / "data" / CHIPS[chip] / "gemm"
    return tuple(sorted(path.name for path in folder.iterdir()))


def imported_measurements(chip: str, op: str) -> tuple[Measurement, ...]:
    """Measured kernels of a chip as rows; those whose time is no positive number are left out.

    >>> imported_measurements("h100-sxm", "matmull")
    Traceback (most recent call last):
    ...
    shardwise.hardware_specs.errors.UnknownNameError: no imported op 'matmull'; did you mean matmul?
    """
    frame = imported_frame(chip, op)
    frame = frame[(frame["seconds"] > 0.0) & (frame["seconds"] < float("inf"))]
    return measurements_of(frame, command=_COMMAND, commit=SOURCE, date="not stated")


def _read(table: KernelTable, chip: str) -> Iterator[pd.DataFrame]:
    """The table of each framework that has one."""
    folder = database_folder() / "data" / CHIPS[chip] / table.folder
    paths: dict[str, list[Path]] = {}
    for path in folder.glob(f"*/*/{table.file}.parquet"):
        framework = path.parent.parent.name
        if table.library is None or table.library == framework:
            paths.setdefault(framework, []).append(path)
    for framework, found in sorted(paths.items()):
        found.sort(key=lambda path: _version_key(path.parent.name))
        chosen = found if table.every_version else [_newest_whole(found)]
        parts = [_read_file(path, table, chip, framework) for path in chosen]
        frame = pd.concat(parts, ignore_index=True)
        if len(parts) > 1:
            frame = frame.drop_duplicates(["op", "dtype", *shape_keys(frame)], keep="last")
        yield frame


def _read_file(path: Path, table: KernelTable, chip: str, framework: str) -> pd.DataFrame:
    raw = _parquet(path)
    try:
        frame = table.read(raw)
    except KeyError as error:
        raise SpecError(f"{path} has no column {error}; it is not the table known of {SOURCE}") from None
    if "kernel" not in frame:
        frame["kernel"] = raw["kernel_source"].astype(str)
    if "nodes" in frame and "chips" not in frame:
        frame["chips"] = frame["nodes"] * _chips_per_node(chip)
    device = str(raw["device"].iloc[0]) if "device" in raw and len(raw) else "not stated"
    return frame.assign(chip=chip, framework=framework, version=path.parent.name, device=device)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except ImportError:
        raise SpecError("reading the kernel database needs pyarrow: pip install pyarrow") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None


def _newest_whole(paths: list[Path]) -> Path:
    """The newest version that is no mere supplement."""
    if len(paths) == 1:
        return paths[0]
    from pyarrow.parquet import ParquetFile

    n_rows = [ParquetFile(path).metadata.num_rows for path in paths]
    return [path for path, n in zip(paths, n_rows, strict=True) if n >= _WHOLE_SHARE * max(n_rows)][-1]


def _chips_per_node(chip: str) -> float:
    described: Any = read_yaml((database_folder() / f"{CHIPS[chip]}.yaml").read_text("utf-8"))
    return float(described["node"]["num_gpus_per_node"])


_BEFORE = {"dev": -3, "a": -2, "b": -2, "rc": -1}


def _version_key(version: str) -> tuple[tuple[int, int], ...]:
    """Order of versions: a candidate comes before its release, what comes after it behind.

    >>> sorted(["1.3.0", "1.3.0rc20", "1.10.0", "1.3.0rc3", "1.3.0.post1"], key=_version_key)
    ['1.3.0rc3', '1.3.0rc20', '1.3.0', '1.3.0.post1', '1.10.0']
    """
    words = re.findall(r"\d+|[a-z]+", version)
    return (*((1, int(word)) if word.isdigit() else (_BEFORE.get(word, 1), 0) for word in words), (0, 0))
