"""One rule for names in catalogues: case, punctuation and brackets do not matter."""

import re
from collections.abc import Iterable, Mapping

from .errors import SpecError


def name_key(text: str) -> str:
    """What is compared when two names are.

    >>> name_key("A100-SXM4-80GB (330W cap)") == name_key("a100 sxm4 80gb")
    True
    """
    bare = re.sub(r"\(.*?\)|\[.*?\]", "", text)
    return re.sub(r"[^a-z0-9]", "", bare.lower())


def index_by_name(aliases: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """From every name and alias (as `name_key`) to the catalogue name.

    Raises
    ------
    SpecError : one alias stands for two entries
    """
    index: dict[str, str] = {}
    for name, others in aliases.items():
        for text in (name, *others):
            if index.setdefault(name_key(text), name) != name:
                raise SpecError(f"{text!r} names both {index[name_key(text)]!r} and {name!r}; take it out of one")
    return index
