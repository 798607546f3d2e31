"""Every chip the project knows, by name: those of the datasheets, and the host that was measured."""

from functools import cache
from importlib.resources import files

from .chip import Chip, read_chip
from .cpu_host import cpu_host
from .errors import UnknownNameError
from .names import index_by_name, name_key


@cache
def load_chips() -> dict[str, Chip]:
    """Every chip of the catalogue by name."""
    folder = files(__package__) / "data" / "chips"
    chips = [read_chip(path.read_text("utf-8"), path.name) for path in folder.iterdir() if path.name.endswith(".yaml")]
    return {chip.name: chip for chip in sorted([*chips, cpu_host()], key=lambda chip: chip.name)}


@cache
def _index() -> dict[str, str]:
    return index_by_name({chip.name: chip.aliases for chip in load_chips().values()})


def get_chip(name: str) -> Chip:
    """Find a chip by catalogue name or alias, whatever its case, punctuation or bracketed remarks."""
    try:
        return load_chips()[_index()[name_key(name)]]
    except KeyError:
        raise UnknownNameError("chip", name, load_chips()) from None
