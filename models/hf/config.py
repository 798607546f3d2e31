"""One object of a config.json: fields by any of their names, with what their absence stands for; knows what was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...hardware_specs.errors import SpecError
from .aliases import MAY_DIFFER, is_neutral, names_of

# No dimension of a model is larger, and a mistyped one shall not fill the memory.
_MOST = 10**9
_MOST_LAYERS = 10_000
_MOST_FACTOR = 1000.0


@dataclass(slots=True)
class Reading:
    """What is learned of one file while it is read.

    Parameters
    ----------
    name : of the model
    notes : sentences for its reader
    missing : fields that must be there and are not
    assumed : fields that are not there, with what their family's class has for them
    """

    name: str
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    assumed: dict[str, Any] = field(default_factory=dict)


class Config:
    """Fields of one JSON object.

    Parameters
    ----------
    fields : the object
    reading : shared by all objects of one file
    defaults : what the class of this family has where a field is absent; `null` is not absent
    path : names of the objects around it, each with a dot behind it
    """

    def __init__(
        self, fields: Mapping[str, Any], reading: Reading, *, defaults: Mapping[str, Any] | None = None, path: str = ""
    ) -> None:
        self.reading = reading
        self.path = path
        self._fields = fields
        self._defaults = defaults or {}
        self._seen: set[str] = set()
        self._parts: list[Config] = []

    @property
    def name(self) -> str:
        """Of the model."""
        return self.reading.name

    def value(self, word: str) -> Any:
        """Look a field up by any of its names; None where it is absent or null.

        Raises
        ------
        SpecError : two names of one size hold different values
        """
        names = names_of(word)
        self._seen.update(names)
        found = {name: self._fields[name] for name in names if self._fields.get(name) is not None}
        if len({repr(value) for value in found.values()}) > 1 and word not in MAY_DIFFER:
            both = ", ".join(f"{self.path}{name}={value!r}" for name, value in found.items())
            raise SpecError(f"{self.name}: {both} name one size; keep one of them, or --override the others with null")
        if found:
            return next(iter(found.values()))
        if any(name in self._fields for name in names):
            return None
        default = self._defaults.get(names[0])
        if default is not None:
            self.reading.assumed[self.path + names[0]] = default
        return default

    def has(self, word: str) -> bool:
        """Whether the file itself holds it, and not null."""
        return any(self._fields.get(name) is not None for name in names_of(word))

    def optional(self, word: str, *, least: int = 1) -> int | None:
        """A whole number of at least `least`, or None.

        Raises
        ------
        SpecError : it is no such number
        """
        value = self.value(word)
        if value is None:
            return None
        most = _MOST_LAYERS if word == "n_layers" else _MOST
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not whole or not least <= value <= most:
            raise SpecError(
                f"{self.name}: {self._written(word)}={value!r} must be a whole number from {least} to {most}; "
                f"mend it, or --override {self._written(word)}=N"
            )
        return int(value)

    def count(self, word: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least `least`; without it and without a default the file is refused, all such fields at once."""
        value = self.optional(word, least=least)
        if value is not None:
            return value
        if default is None:
            self.reading.missing.append(self._written(word))
            return max(least, 1)
        return default

    def factor(self, word: str, default: float) -> float:
        """A number above 0 that multiplies a size.

        Raises
        ------
        SpecError : it is none
        """
        value = self.value(word)
        if value is None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= _MOST_FACTOR:
            raise SpecError(f"{self.name}: {self._written(word)}={value!r} must be a number above 0")
        return float(value)

    def flag(self, word: str, default: bool) -> bool:
        """True or false.

        Raises
        ------
        SpecError : it is neither
        """
        value = self.value(word)
        if value is None:
            return default
        if not isinstance(value, bool) and value not in (0, 1):
            raise SpecError(f"{self.name}: {self._written(word)}={value!r} must be true or false")
        return bool(value)

    def text(self, word: str, default: str) -> str:
        """A string.

        Raises
        ------
        SpecError : it is none
        """
        value = self.value(word)
        if value is None:
            return default
        if not isinstance(value, str):
            raise SpecError(f"{self.name}: {self._written(word)}={value!r} must be text")
        return value

    def items(self, word: str) -> list[Any] | None:
        """A list.

        Raises
        ------
        SpecError : it is none
        """
        value = self.value(word)
        if value is not None and not isinstance(value, list | tuple):
            raise SpecError(f"{self.name}: {self._written(word)}={value!r} must be a list")
        return None if value is None else list(value)

    def part(self, word: str, *, defaults: Mapping[str, Any] | None = None) -> "Config":
        """The object in a field; an empty one where there is none.

        Raises
        ------
        SpecError : it is no object
        """
        value = self.value(word)
        if value is not None and not isinstance(value, Mapping):
            raise SpecError(f"{self.name}: {self._written(word)}={value!r} must be an object")
        part = Config(
            value or {}, self.reading, defaults=defaults, path=f"{self.path}{self._written(word, bare=True)}."
        )
        self._parts.append(part)
        return part

    def ignore(self, *words: str) -> None:
        """Fields that are known, and change nothing here."""
        for word in words:
            self._seen.update(names_of(word))

    def ignore_all(self) -> None:
        """Every field of this object is known."""
        self._seen.update(self._fields)

    def unknown(self) -> list[str]:
        """Fields nobody asked for, with those of the objects in it."""
        own = [
            f"{self.path}{name}"
            for name, value in self._fields.items()
            if name not in self._seen and not is_neutral(name, value)
        ]
        return sorted(set(own + [name for part in self._parts for name in part.unknown()]))

    def lacks(self, words: Sequence[str]) -> list[str]:
        """Those of `words` that the file does not hold, by their usual names."""
        return [names_of(word)[0] for word in words if not self.has(word)]

    def _written(self, word: str, *, bare: bool = False) -> str:
        names = names_of(word)
        name = next((name for name in names if name in self._fields), names[0])
        return name if bare else self.path + name
