"""``--vary KEY=VALUE,VALUE,...`` read into axes.

Numbers may come as ranges: ``1..8`` (every whole one), ``1..512*2`` (times 2), ``0.5..4+0.5`` (in steps), and factors on
a claimed figure as ``x1..x4*2``.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...hardware_specs.errors import SpecError, UnknownNameError
from .keys import KEYS, Key, Value

_RANGE = re.compile(r"(x?)(\d*\.?\d+)\.\.(x?)(\d*\.?\d+)(?:([*+])(\d*\.?\d+))?")
# No axis has more values than this, whatever is asked for.
_MAX_VALUES = 1_000_000
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One varied key and its values, in the order they were given."""

    key: str
    says: str
    values: tuple[Value, ...]

    @property
    def column(self) -> str:
        """The column of the rows that holds its values."""
        return self.key.replace("-", "_")

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The values as numbers; None where one is none."""
        found = [value.number for value in self.values if value.number is not None]
        return tuple(found) if len(found) == len(self.values) else None


def parse_vary(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Read every ``--vary``.

    Raises
    ------
    SpecError : what does not parse, a key or a field that is set twice

    Examples
    --------
    >>> [value.text for value in parse_vary(["batch=1,2..4,8..32*2"])[0].values]
    ['1', '2', '3', '4', '8', '16', '32']
    """
    axes = [_axis(text) for text in texts]
    owners: dict[str, str] = {}
    for axis in axes:
        for field in axis.values[0].sets:
            if field in owners:
                twice = (
                    f"{axis.key} is varied twice" if owners[field] == axis.key else f"{owners[field]} and {axis.key}"
                )
                raise SpecError(f"--vary: {twice}: both set {field.replace('_', ' ')}; name all values in one --vary")
            owners[field] = axis.key
    for several, single in (("context_tokens", "input_tokens"),):
        if several in owners and single in owners:
            raise SpecError(f"--vary: {owners[several]} and {owners[single]} both set the input tokens; vary one")
    return tuple(axes)


def n_points(axes: Sequence[Axis]) -> int:
    """How many points the axes span together."""
    return math.prod(len(axis.values) for axis in axes)


def _axis(text: str) -> Axis:
    name, equals, rest = text.partition("=")
    name = name.strip().lower().replace("_", "-")
    if not equals:
        raise SpecError(f"--vary {text!r} does not parse: write KEY=VALUE,VALUE,..., e.g. chips=8,16,32")
    if name not in KEYS:
        raise UnknownNameError("key to --vary", name, KEYS)
    key, texts = KEYS[name], [part.strip() for part in rest.split(",")]
    if not all(texts):
        raise SpecError(f"--vary {text!r} does not parse: a value is missing; write e.g. {name}={key.example}")
    values = [value for part in texts for value in _values(key, part, text)]
    seen: set[str] = set()
    for value in values:
        if value.text in seen:
            raise SpecError(f"--vary {text!r}: {value.text} comes twice")
        seen.add(value.text)
    return Axis(key=name, says=key.says, values=tuple(values))


def _values(key: Key, part: str, whole: str) -> Iterator[Value]:
    found = _RANGE.fullmatch(part)
    texts = iter([part]) if found is None else _spread(key, found, whole)
    for text in texts:
        try:
            yield key.read(text)
        except UnknownNameError:
            raise
        except SpecError as error:
            raise SpecError(f"--vary {whole!r} does not parse: {error}; e.g. {key.name}={key.example}") from None


def _spread(key: Key, found: re.Match[str], whole: str) -> Iterator[str]:
    """The values of a range as text."""
    first, last, grows = float(found[2]), float(found[4]), found[5]
    step = float(found[6]) if grows else 1.0
    if found[1] != found[3]:
        raise SpecError(f"--vary {whole!r} does not parse: write x on both ends of {found[0]!r}, or on none")
    if not grows and (not key.counts or found[1]):
        raise SpecError(
            f"--vary {whole!r} does not parse: say the steps of {found[0]!r}: {found[0]}*2 doubles, {found[0]}+0.5 adds"
        )
    if last < first or (grows == "*" and (step <= 1.0 or first <= 0.0)) or step <= 0.0:
        raise SpecError(
            f"--vary {whole!r} does not parse: {found[0]!r} must rise, by steps above 0 or a factor above 1"
        )
    n = math.log(last / first, step) if grows == "*" else (last - first) / step
    count = int(n + _ROUNDING) + 1
    if count > _MAX_VALUES:
        raise SpecError(f"--vary {whole!r}: {found[0]!r} are {count:,} values; at most {_MAX_VALUES:,} are taken")
    for i in range(count):
        value = first * step**i if grows == "*" else first + step * i
        yield found[1] + (f"{value:.0f}" if value == round(value) else f"{value:.10g}")
