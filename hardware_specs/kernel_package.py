"""The PyPI package aiconfigurator-core, which holds measured kernels of GPUs: where it lies, and which chips it has.

Its files are read; nothing of it is imported or run.
"""

from functools import cache
from importlib import metadata
from pathlib import Path

from .errors import SpecError

PACKAGE = "aiconfigurator-core"
VERSION = "0.12.0"
SOURCE = f"{PACKAGE} {VERSION}"

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
