"""Models that are no names of a catalogue but files: a description of ours, or a Hugging Face config."""

import os
from pathlib import Path

from ..hardware_specs.errors import SpecError
from .description import Model
from .hf.reader import import_model
from .written import read_model

_OURS, _SUFFIXES = (".yaml", ".yml"), (".json", ".yaml", ".yml")


def path_of(name: str) -> Path | None:
    """The file or directory that is meant; None where the text is a name.

    What ends like a file is one, and so is what has a separator and exists: ``meta-llama/Llama-3.1-8B`` is a name
    unless it is a directory here.

    Raises
    ------
    SpecError : it ends like a file, and there is none
    """
    ends = name.lower().endswith(_SUFFIXES)
    try:
        exists = Path(name).exists()
    except (OSError, ValueError):
        return None
    if ends and not exists:
        raise SpecError(f"there is no file {name}; a model is a name of `shardwise show models`, or a path to a file")
    return Path(name) if exists and (ends or os.sep in name or name == ".") else None


def model_at(path: Path) -> Model:
    """Read a description, a config.json, or the one in a directory.

    Raises
    ------
    SpecError : it cannot be read, or describes no model
    """
    if path.suffix.lower() not in _OURS:
        return import_model(str(path)).model
    try:
        return read_model(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from None
