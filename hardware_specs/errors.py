"""Errors a user can mend, and the one helper that finds near matches.

::

    ValueError
    └── SpecError            the input names something that does not exist or does not fit
        └── UnknownNameError a name is not in a catalogue; carries the nearest ones
"""

import difflib
from collections.abc import Iterable


class SpecError(ValueError):
    """The input is wrong in a way its author can mend; the text says how."""


class UnknownNameError(SpecError):
    """A name is in no catalogue."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(f"no {kind} {name!r}; {hint}")
