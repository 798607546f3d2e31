"""Measured kernels of GPUs from the PyPI package aiconfigurator-core (Apache-2.0), read as files.

Nothing of the package is imported or run. Of each op and framework the newest version counts that measured at least
`_WHOLE_SHARE` of the rows of the fullest one: later and much smaller tables fill in single models only.

References
----------
[AIConfigurator2026] : the package.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from .documents import read_yaml
from .errors import SpecError, UnknownNameError
from .kernel_rows import kernel_frame, measurements_of, shape_keys
from .kernel_tables import TABLES, KernelTable
from .measurement import Measurement

__all__ = ["CHIPS", "OPS", "SOURCE", "imported_frame", "imported_measurements", "kernel_frame"]

PACKAGE = "aiconfigurator-core"
VERSION = "0.12.0"
SOURCE = f"{PACKAGE} {VERSION}"
OPS: tuple[str, ...] = tuple(dict.fromkeys(table.op for table in TABLES))

# Our chip -> the database's.
CHIPS = {
    "a100-80gb-sxm": "a100_sxm",
    "h100-sxm": "h100_sxm",
    "h200-sxm": "h200_sxm",
    "b200": "b200_sxm",
    "b300": "b300_sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx-pro-6000-blackwell": "rtx_pro_6000_server",
    "arc-pro-b60": "b60",
}
_WHOLE_SHARE = 0.5
_COMMAND = "shardwise calibrate --from aiconfigurator"


@cache
def database_folder() -> Path:
    """Where the installed package keeps its tables.

    Raises
    ------
    SpecError : it is not installed, or in another version than these tables are known of
    """
    install = f'pip install "shardwise[calibration]", or pip install --no-deps {PACKAGE}=={VERSION} pyarrow'
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise SpecError(f"the kernel database is not installed: {install}") from None
    if found.version != VERSION:
        raise SpecError(f"{PACKAGE} {found.version} is installed, its tables are known as of {VERSION}: {install}")
    folder = Path(str(found.locate_file("aiconfigurator_core/systems")))
    if not folder.is_dir():
        raise SpecError(f"{PACKAGE} {VERSION} is installed but has no {folder}: {install}")
    return folder


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
        return pd.read_parquet(path)
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
