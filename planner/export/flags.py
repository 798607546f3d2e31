"""What the flags of an engine are called, by version: data in ``data/engines/*.yaml``, one file a version.

Code asks for a flag by what it means (``tensor_parallel``); a new version is a new file.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ...hardware_specs.documents import read_yaml
from ...hardware_specs.errors import SpecError, UnknownNameError
from ...models.layouts import AttentionSharding

# A value of a flag: True writes the bare flag, None leaves it out.
Value = str | int | float | bool | None


class Raw(str):
    """Text for the shell to expand, not to be quoted."""

    __slots__ = ()


class FlagTable(BaseModel):
    """The command line of one version of an engine or load generator.

    Parameters
    ----------
    also : other versions, whose flags were read and are the same
    command : the words it begins with
    vendors : makers of the chips it runs on
    profiles : engine profiles whose prices stand for this engine
    layouts, attention : what it runs as the planner priced it
    flags, server_flags : by meaning; those of the engine, and those of the server around it
    keys : fields of its configuration file, dotted
    formats : by kind (activations, weights, kv_dtype) what our number formats are called; weights: those it makes while loading
    page_tokens : sizes of a page it takes; none where it has no such flag
    exchanges : by what the servers do, what sends tokens to their experts
    images : container of this version, by the chip's maker
    gone : flags of older versions and what became of them
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    engine: str
    title: str
    version: str
    also: tuple[str, ...] = ()
    source: str
    command: tuple[str, ...]
    vendors: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    attention: tuple[AttentionSharding, ...] = ()
    flags: dict[str, str]
    server_flags: dict[str, str] = Field(default_factory=dict)
    keys: tuple[str, ...] = ()
    formats: dict[str, dict[str, str]] = Field(default_factory=dict)
    page_tokens: tuple[int, ...] = ()
    exchanges: dict[str, str] = Field(default_factory=dict)
    images: dict[str, str] = Field(default_factory=dict)
    gone: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Engine and version, as comments name it."""
        return f"{self.title} {self.version}"

    def words(self, pairs: Iterable[tuple[str, Value]]) -> list[str]:
        """Flags and their values, in order; pairs without a value are left out.

        Raises
        ------
        SpecError : this version has no flag of that meaning
        """
        made: list[str] = []
        for meaning, value in pairs:
            if value is None or value is False:
                continue
            flag = self.flags.get(meaning) or self.server_flags.get(meaning)
            if flag is None:
                raise SpecError(
                    f"{self.name} has no flag for {meaning.replace('_', ' ')}; known versions: "
                    f"{', '.join(versions(self.engine))}"
                )
            made.append(flag)
            if value is not True:
                made.append(
                    value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
                )
        return made

    def checked(self, document: dict[str, Any]) -> dict[str, Any]:
        """A configuration file's document, every field of which this version has.

        Raises
        ------
        SpecError : it has a field that this version does not know
        """
        for name, held in document.items():
            fields = {f"{name}.{key}" for key in held} if isinstance(held, dict) else {name}
            if unknown := sorted(fields - set(self.keys) if name not in self.keys else ()):
                raise SpecError(f"{self.name} has no {', '.join(unknown)} in its configuration file")
        return document

    def has(self, meaning: str) -> bool:
        """Whether this version has such a flag."""
        return meaning in self.flags or meaning in self.server_flags

    def format(self, kind: str, name: str) -> str | None:
        """What the engine calls one of our number formats; None where it has none."""
        return self.formats.get(kind, {}).get(name)


@cache
def tables() -> dict[str, tuple[FlagTable, ...]]:
    """Every table, by engine, the newest version first."""
    found: dict[str, list[FlagTable]] = {}
    for path in files(__package__).joinpath("data", "engines").iterdir():
        table = FlagTable.model_validate(read_yaml(path.read_text("utf-8")))
        alike = [table.model_copy(update={"version": version}) for version in table.also]
        found.setdefault(table.engine, []).extend([table, *alike])
    return {name: tuple(sorted(held, key=lambda t: _number(t.version), reverse=True)) for name, held in found.items()}


def versions(engine: str) -> tuple[str, ...]:
    """The versions there is a table of, the newest first."""
    return tuple(table.version for table in tables()[engine])


def load_table(engine: str, version: str | None = None) -> tuple[FlagTable, str | None]:
    """The table of a version: its own, or the nearest older one and a word about it; the newest where none is named.

    Raises
    ------
    SpecError : no such engine, no version, or one older than every table
    """
    if engine not in tables():
        raise UnknownNameError("engine with a flag table", engine, tables())
    held = tables()[engine]
    if version is None:
        return held[0], None
    if not re.fullmatch(r"v?\d+(\.\d+)*\w*", version):
        raise SpecError(f"engine version {version!r} is none; write e.g. {held[0].version}")
    for table in held:
        width = len(_number(table.version))
        asked = _number(version)[:width]
        if asked == _number(table.version)[: len(asked)]:
            return table, None
        if _number(table.version) < _number(version):
            return table, f"there is no flag table of {table.title} {version}; flags are those of {table.version}"
    raise SpecError(
        f"{held[0].title} {version} is older than every flag table ({', '.join(versions(engine))}); "
        "leave --engine-version out, or add one in planner/export/data/engines/"
    )


def _number(version: str) -> tuple[int, ...]:
    """A version as numbers, to compare.

    >>> _number("v0.5.23") > _number("0.5.9"), _number("1.2.0rc1")
    (True, (1, 2, 0))
    """
    return tuple(int(part) for part in re.findall(r"\d+", re.sub(r"(rc|post|dev|a|b)\d+.*$", "", version)))
