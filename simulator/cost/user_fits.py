"""Where a user's own measurements and fits lie: in the platform's data directory, never in the package."""

from pathlib import Path

import platformdirs

from ...hardware_specs.documents import write_atomically
from ...hardware_specs.errors import SpecError
from ...hardware_specs.kernel_package import SOURCE
from .kernel_times import KernelFit, dump_kernel_fit, read_kernel_fit


def user_folder() -> Path:
    """The project's folder in the user's data directory; it may not be there yet."""
    return Path(platformdirs.user_data_dir("shardwise", appauthor=False))


def kernel_fits_folder() -> Path:
    """Where a user's kernel fits lie."""
    return user_folder() / "kernels"


def engine_fits_folder() -> Path:
    """Where a user's fits of what engines add to kernels lie."""
    return user_folder() / "engines"


def parts_folder() -> Path:
    """Where ops that are fitted wait until the whole fit is."""
    return kernel_fits_folder() / "parts"


def measured_path(device: str) -> Path:
    """Where the rows measured on this machine are collected."""
    return user_folder() / "measured" / f"{device}.csv"


def kernel_fit_path(folder: Path, chip: str, stack: str) -> Path:
    """The file of one fit; shipped fits are called alike."""
    return folder / f"{chip}.{stack}.json"


def finished_fit(path: Path, *, source: str) -> KernelFit | None:
    """The fit in a file if it is whole and made from that source; another version's is no fit."""
    try:
        fit = read_kernel_fit(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError, SpecError):
        return None
    return fit if fit.source == source else None


def write_kernel_fit(fit: KernelFit, folder: Path) -> Path:
    """Write a fit whole or not at all; where it lies now."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"cannot make {folder}: {error.strerror or error}") from None
    path = kernel_fit_path(folder, fit.chip, fit.stack)
    write_atomically(path, dump_kernel_fit(fit))
    return path


def user_kernel_fits() -> dict[tuple[str, str], KernelFit]:
    """A user's own kernel fits by chip and stack: of the database's version that is known here, and of this machine.

    What was fitted to another version's rows is left out.
    """
    sources = (SOURCE, *(str(measured_path(device)) for device in ("cpu", "cuda")))
    paths = sorted(kernel_fits_folder().glob("*.json"))
    fits = [finished_fit(path, source=source) for path in paths for source in sources]
    return {(fit.chip, fit.stack): fit for fit in fits if fit is not None}
