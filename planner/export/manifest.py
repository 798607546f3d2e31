"""YAML that a YAML 1.1 reader takes as it is meant: text that looks like a truth value is quoted."""

from collections.abc import Sequence
from typing import Any

import yaml

# YAML 1.1's words for truth, which YAML 1.2 (and PyYAML, for the first two) take as text.
_TRUTH = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false"})


class Quoted(str):
    """Text that is quoted whatever it looks like."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Quotes what another reader would not read as text."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists are indented under their key."""
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    quotes = isinstance(value, Quoted) or value.lower() in _TRUTH
    style = '"' if quotes else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Quoted, _text)


def dump(document: Any) -> str:
    """One document, keys in the order they were given.

    >>> print(dump({"env": [{"name": "UCX_PROTO_INFO", "value": "y"}]}), end="")
    env:
      - name: UCX_PROTO_INFO
        value: "y"
    """
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True))


def manifest(comments: Sequence[str], *documents: Any) -> str:
    """Comments and one document or several."""
    return "\n".join(comments) + "\n" + "---\n".join(dump(document) for document in documents)


def environment(values: dict[str, str]) -> list[dict[str, Any]]:
    """Variables of a container, every value quoted: a bare ``y`` or ``1`` is refused by the API server."""
    return [{"name": name, "value": Quoted(value)} for name, value in values.items()]
