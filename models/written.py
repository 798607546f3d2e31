"""A description as the YAML that the catalogue holds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ..hardware_specs.documents import read_yaml, write_atomically
from ..hardware_specs.errors import SpecError
from .blocks import Block
from .description import Model


def read_model(text: str, origin: str) -> Model:
    """Read one model from YAML; `origin` names the file in errors.

    Raises
    ------
    SpecError : the text is no YAML, or no model
    """
    try:
        return Model.model_validate(read_yaml(text))
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{origin}: {error}") from error


def model_yaml(model: Model) -> str:
    """Everything that is not as it would be anyway, in the order of the fields.

    >>> from shardwise.models.catalogue import get_model
    >>> print(model_yaml(get_model("llama-3.1-8b")).splitlines()[0])
    name: llama-3.1-8b
    """
    found = model.model_dump(mode="json", exclude_defaults=True)
    _name_kinds(found, model.blocks)
    if model.encoder is not None:
        _name_kinds(found["encoder"], model.encoder.blocks)
    return yaml.safe_dump(found, sort_keys=False, width=110)


def _name_kinds(found: dict[str, Any], blocks: dict[str, Block]) -> None:
    """Parts of blocks are told apart by their kind, which is as it would be anyway for each."""
    for name, block in blocks.items():
        written: Iterable[tuple[str, Any]] = (("mixer", block.mixer), ("ffn", block.ffn))
        for part, made in written:
            if made is not None:
                found["blocks"][name][part] = {"kind": made.kind} | found["blocks"][name][part]


def write_model(model: Model, path: Path) -> None:
    """Write a model where `get_model` can read it.

    Raises
    ------
    SpecError : the file cannot be written
    """
    write_atomically(path, model_yaml(model))
