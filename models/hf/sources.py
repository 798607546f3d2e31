"""Where a config file comes from: a file, a directory, a hub's cache, standard input; read with limits."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ...hardware_specs.errors import SpecError

# Real files have some kilobytes, and up to a megabyte where they name every module that is not quantised.
LIMIT_BYTES = 16_000_000
_CONFIG, _INDEX, _QUANT = "config.json", "model.safetensors.index.json", "hf_quant_config.json"
_SNAPSHOT = re.compile(r"models--(?P<name>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What was found.

    Parameters
    ----------
    name : of the model, from the path; empty where there is none
    fields : the object in config.json
    quantised : the one in hf_quant_config.json beside it
    stored_bytes : what the index of its shards says they hold, None without an index
    """

    name: str
    fields: Mapping[str, Any]
    quantised: Mapping[str, Any] = field(default_factory=dict)
    stored_bytes: float | None = None


def read_source(path: str) -> Source:
    """Read a config.json, the one in a directory, or standard input for ``-``.

    Raises
    ------
    SpecError : there is none, it is too long, or no object in JSON
    """
    if path == "-":
        return Source(name="", fields=parse_object(_limited(sys.stdin.buffer, "standard input"), "standard input"))
    file = Path(path)
    if file.is_dir():
        file = file / _CONFIG
        if not file.is_file():
            raise SpecError(f"{path} is a directory without {_CONFIG}")
    fields = _object(file)
    beside = file.parent
    index = _beside(beside / _INDEX)
    total = index.get("metadata", {}).get("total_size") if isinstance(index.get("metadata", {}), Mapping) else None
    return Source(
        name=_name_of(file),
        fields=fields,
        quantised=_beside(beside / _QUANT),
        stored_bytes=float(total) if isinstance(total, int | float) else None,
    )


def holds_config(file: Path) -> bool:
    """Whether a file is a config.json, whatever it is called."""
    try:
        return file.is_file() and file.stat().st_size <= LIMIT_BYTES and "model_type" in _object(file)
    except (SpecError, OSError):
        return False


def _object(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return parse_object(_limited(stream, str(file)), str(file))
    except OSError as error:
        raise SpecError(f"cannot read {file}: {error.strerror or error}") from None


def _beside(file: Path) -> dict[str, Any]:
    """A file that helps if it is there, and may be long."""
    if not file.is_file() or file.stat().st_size > LIMIT_BYTES:
        return {}
    return _object(file)


def _limited(stream: BinaryIO, origin: str) -> bytes:
    """All of it, up to the limit: more is not even read."""
    data = stream.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise SpecError(
            f"{origin} is longer than {LIMIT_BYTES // 1_000_000} MB, which no config.json is; is it the weights, or a tokenizer?"
        )
    return data


def parse_object(data: bytes, origin: str) -> dict[str, Any]:
    """Parse JSON that must hold one object.

    Raises
    ------
    SpecError : it is no JSON, or something else
    """
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise SpecError(f"{origin} is no text in UTF-8; a config.json is") from None
    except json.JSONDecodeError as error:
        whole = len(data.strip()) > 0
        what = "is no JSON, or ends too early" if whole else "is empty"
        raise SpecError(f"{origin} {what}: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (RecursionError, ValueError):
        raise SpecError(f"{origin} is nested too deeply, or has a number too long, to be a config.json") from None
    if not isinstance(found, dict):
        raise SpecError(f"{origin} holds no object but a {type(found).__name__}; a config.json is {{...}}")
    return found


def _name_of(file: Path) -> str:
    """The model's name from its path: of the hub's cache, of the file if it has one of its own, of its directory."""
    for part in reversed(file.absolute().parts):
        if snapshot := _SNAPSHOT.fullmatch(part):
            return snapshot["name"].rpartition("--")[2]
    stem = file.stem.removesuffix("_config")
    if stem.lower() not in ("config", ""):
        return stem.rpartition("--")[2]
    return file.absolute().parent.name
