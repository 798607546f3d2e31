"""Text files: YAML read safely, by the C parser where there is one, and files written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import yaml

from .errors import SpecError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises
    ------
    yaml.YAMLError : the text is no YAML

    Examples
    --------
    >>> read_yaml("{name: tpu-v4, n: 64}")
    {'name': 'tpu-v4', 'n': 64}
    """
    return yaml.load(text, Loader=_LOADER)


def write_atomically(path: Path, text: str) -> None:
    """Write beside the file, then put it in its place: a reader sees the old text or the new.

    Raises
    ------
    SpecError : the file cannot be written
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
