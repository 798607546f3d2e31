"""What can be varied: each key with how its values are read and which fields of a question they set."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import parse_pool
from ...hardware_specs.dtypes import parse_dtype
from ...hardware_specs.errors import SpecError
from ...hardware_specs.units import parse_quantity
from ...models.catalogue import reference_of
from ...models.layouts import parse_layout
from ...simulator.cost.engines import get_engine
from ..request import MAX_BATCH

_MAX_TOKENS = 10_000_000
_FACTOR = re.compile(r"x(\d*\.?\d+)")
_SHAPE = re.compile(r"(?:\.\.)?[1-9]\d{0,9}(?:x[1-9]\d{0,9})*")
PRICE_KINDS = ("on_demand", "spot", "reserved_3y", "ownership")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What takes the place of a claimed figure: a factor on it, or another figure in SI."""

    factor: float | None = None
    value: float | None = None

    def over(self, claimed: float) -> float:
        """The figure over the claimed one.

        >>> Change(factor=2.0).over(5.0), Change(value=10.0).over(5.0)
        (2.0, 2.0)
        """
        return self.factor if self.factor is not None else (self.value or 0.0) / claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value of a varied key: as written, the fields it sets, and its place on an axis where it is a number."""

    text: str
    sets: Mapping[str, object]
    number: float | None

    @property
    def plain(self) -> int | float | str:
        """As rows have it: a number where it was written as one."""
        if self.text.isdecimal():
            return int(self.text)
        try:
            return float(self.text)
        except ValueError:
            return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of ``--vary``: how a value is read, an example, and whether ``a..b`` stands for whole numbers between."""

    name: str
    says: str
    example: str
    read: Callable[[str], Value]
    counts: bool = False


def _name(text: str, *fields: str, value: str | None = None) -> Value:
    return Value(text=text, sets=dict.fromkeys(fields, value or text), number=None)


def _hardware(text: str) -> Value:
    return _name(get_chip(text).name, "hardware")


def _pool(text: str) -> Value:
    slices = parse_pool(text)
    chip, _, shape = text.partition(":")
    sets = {"hardware": get_chip(chip).name, "chips": shape.strip()}
    return Value(text=text, sets=sets, number=float(max(s.n_chips for s in slices)))


def _chips(text: str) -> Value:
    if not _SHAPE.fullmatch(text):
        raise SpecError(f"chips {text!r}: write a count or a shape, e.g. 8, 2x8, 4x4x4 or ..64")
    size = math.prod(int(part) for part in text.removeprefix("..").split("x"))
    return Value(text=text, sets={"chips": text}, number=float(size))


def _dtype(field: str) -> Callable[[str], Value]:
    return lambda text: _name(parse_dtype(text).name, field)


def _layout(*fields: str) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        parts = text.split("+")
        if len(parts) > len(fields):
            raise SpecError(f"layout {text!r}: write one, e.g. ws-2d/batch{', or PREFILL+DECODE' * (len(fields) > 1)}")
        for part in parts:
            parse_layout(part)
        chosen = parts * len(fields) if len(parts) == 1 else parts
        return Value(text=text, sets=dict(zip(fields, chosen, strict=False)), number=None)

    return read


def _count(name: str, most: int, *fields: str) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        if not (text.isdecimal() and len(text) < 12 and 1 <= int(text) <= most):
            raise SpecError(f"{name} {text!r} must be a whole number between 1 and {most:,}")
        return Value(text=str(int(text)), sets=dict.fromkeys(fields, int(text)), number=float(int(text)))

    return read


def _rate(text: str) -> Value:
    value = _float(text)
    if value is None or not 0.0 < value < 1e9:
        raise SpecError(f"rate {text!r} must be a positive number of requests a second")
    return Value(text=text, sets={"rate_per_s": value}, number=value)


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _time(name: str) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        seconds = parse_quantity(text, "s")
        if not seconds > 0.0:
            raise SpecError(f"{name} {text!r} must be a positive time, e.g. 500ms")
        return Value(text=text, sets={f"{name}_s": seconds}, number=seconds)

    return read


def _figure(field: str, unit: str) -> Callable[[str], Value]:
    """A factor as ``x1.5``, or a quantity in `unit`."""

    def read(text: str) -> Value:
        factor = _FACTOR.fullmatch(text)
        if factor is None and text[:1] == "x":
            raise SpecError(f"{field.replace('_', '-')} {text!r}: a factor is written as x2 or x1.5")
        change = Change(factor=float(factor[1])) if factor else Change(value=parse_quantity(text, unit))
        number = change.factor if change.factor is not None else change.value
        if not number or not 0.0 < number < 1e30:
            raise SpecError(f"{field.replace('_', '-')} {text!r} must be above zero")
        return Value(text=text, sets={field: change}, number=number)

    return read


def _price(text: str) -> Value:
    """A factor, a rate, or the kind of offer; a bare number is USD an hour."""
    kind = text.replace("-", "_")
    if kind in PRICE_KINDS:
        return Value(text=text, sets={"price": kind}, number=None)
    if _float(text) is None:
        return _figure("price", "USD/h")(text)
    return replace(_figure("price", "USD/h")(f"{text} USD/h"), text=text)


def _share(text: str) -> Value:
    value = _float(text)
    if value is None or not 0.0 < value <= 1.0:
        raise SpecError(f"memory share {text!r} must lie in (0, 1]")
    return Value(text=text, sets={"memory_share": value}, number=value)


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(name="model", says="model", example="llama-3-8b", read=lambda t: _name(reference_of(t), "model")),
        Key(name="on", says="pool", example="h100-sxm:8", read=_pool),
        Key(name="hardware", says="chip", example="h100-sxm", read=_hardware),
        Key(name="chips", says="chips", example="8", read=_chips, counts=True),
        Key(name="weights", says="weight format", example="int8", read=_dtype("weights")),
        Key(name="kv-dtype", says="cache format", example="fp8", read=_dtype("kv_dtype")),
        Key(
            name="page-size",
            says="tokens a KV page",
            example="16",
            read=_count("page size", 65536, "page_size"),
            counts=True,
        ),
        Key(name="layout", says="layout", example="ws-2d/batch", read=_layout("prefill", "decode")),
        Key(name="prefill", says="prefill layout", example="wg-xyz/batch", read=_layout("prefill")),
        Key(name="decode", says="decode layout", example="ws-2d/batch", read=_layout("decode")),
        Key(
            name="batch",
            says="batch",
            example="64",
            read=_count("batch", MAX_BATCH, "prefill_batch", "decode_batch"),
            counts=True,
        ),
        Key(
            name="prefill-batch",
            says="prefill batch",
            example="4",
            read=_count("prefill batch", MAX_BATCH, "prefill_batch"),
            counts=True,
        ),
        Key(
            name="decode-batch",
            says="decode batch",
            example="64",
            read=_count("decode batch", MAX_BATCH, "decode_batch"),
            counts=True,
        ),
        Key(
            name="input",
            says="input tokens",
            example="2048",
            read=_count("input", _MAX_TOKENS, "input_tokens"),
            counts=True,
        ),
        Key(
            name="output",
            says="output tokens",
            example="256",
            read=_count("output", _MAX_TOKENS, "output_tokens"),
            counts=True,
        ),
        Key(
            name="context",
            says="tokens of a request, input and output",
            example="8192",
            read=_count("context", _MAX_TOKENS, "context_tokens"),
            counts=True,
        ),
        Key(name="tp", says="tensor parallel", example="8", read=_count("tp", 4096, "tp"), counts=True),
        Key(name="pp", says="pipeline stages", example="2", read=_count("pp", 4096, "pp"), counts=True),
        Key(name="dp", says="replicas", example="2", read=_count("dp", 4096, "dp"), counts=True),
        Key(name="engine", says="engine", example="vllm", read=lambda t: _name(get_engine(t).name, "engine")),
        Key(name="rate", says="requests a second", example="4", read=_rate),
        Key(name="ttft", says="limit on TTFT", example="500ms", read=_time("ttft")),
        Key(name="tpot", says="limit on TPOT", example="50ms", read=_time("tpot")),
        Key(name="link", says="bandwidth between chips of a domain", example="x2", read=_figure("link", "B/s")),
        Key(name="network", says="bandwidth between domains", example="x2", read=_figure("network", "B/s")),
        Key(name="hbm-bandwidth", says="HBM bandwidth", example="x1.5", read=_figure("hbm_bandwidth", "B/s")),
        Key(name="hbm", says="memory of a chip", example="141GiB", read=_figure("hbm", "B")),
        Key(name="flops", says="dense peak", example="x2", read=_figure("flops", "flop/s")),
        Key(name="price", says="price of a chip-hour", example="2.50", read=_price),
        Key(name="memory-share", says="part of HBM a plan may fill", example="0.9", read=_share),
    )
}
