"""What an hour of one chip costs, each price with its source.

Prices move by the month and differ by a factor of five between providers: they rank plans, they are no quotation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .catalogue import get_chip, load_chips
from .documents import read_yaml
from .errors import SpecError
from .units import parse_quantity

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Kind = Literal["on_demand", "spot", "reserved_3y", "ownership"]
# How a command line names the kinds.
KIND_NAMES: Mapping[str, Kind] = {
    "on-demand": "on_demand",
    "spot": "spot",
    "reserved": "reserved_3y",
    "ownership": "ownership",
}


def _read_rate(raw: Any) -> float:
    if not isinstance(raw, str):
        raise SpecError(f"write a price with its unit, e.g. '3.99 USD/h', not {raw!r}")
    return parse_quantity(raw, "USD/h")


class Price(BaseModel):
    """One price of one chip for one hour; `ownership` is a cost model's figure, not an offer."""

    model_config = _STRICT
    chip: str = Field(description="catalogue name")
    usd_per_h: Annotated[float, BeforeValidator(_read_rate), Field(gt=0)]
    kind: Kind
    provider: str
    date: str | None = Field(default=None, pattern=r"^\d{4}(-\d{2}){0,2}$", description="as exact as the source is")
    source: str


class _PriceFile(BaseModel):
    model_config = _STRICT
    sources: dict[str, str]
    prices: tuple[Price, ...]


def read_prices(text: str, origin: str) -> tuple[Price, ...]:
    """Read price rows from YAML and put the source's text in place of its key.

    Parameters
    ----------
    text : a document with `sources` (key to text) and `prices` (rows of `Price`, `source` being a key)
    origin : names the file in errors

    Raises
    ------
    SpecError : no such chip or source, a bare number, an unknown field
    """
    try:
        document = _PriceFile.model_validate(read_yaml(text))
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{origin}: {error}") from error
    for price in document.prices:
        if price.chip not in load_chips():
            raise SpecError(f"{origin}: no chip {price.chip!r} in the catalogue; write its catalogue name")
        if price.source not in document.sources:
            raise SpecError(f"{origin}: source {price.source!r} is not in sources {sorted(document.sources)}")
    return tuple(price.model_copy(update={"source": document.sources[price.source]}) for price in document.prices)


@cache
def load_prices() -> tuple[Price, ...]:
    """Every price of the catalogue, in the order of the file."""
    path = files(__package__) / "data" / "prices.yaml"
    return read_prices(path.read_text("utf-8"), path.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """How chips are paid for.

    Parameters
    ----------
    kind : kind of catalogue price that must be known; None takes the price on demand where one is known
    own_usd_per_h : a user's own price of a chip-hour, whatever the chip
    own_by_chip : the same by catalogue name; chips left out are paid by `kind`
    """

    kind: Kind | None = None
    own_usd_per_h: float | None = None
    own_by_chip: Mapping[str, float] = field(default_factory=dict)


class ChipPrice(BaseModel):
    """What one chip-hour is paid with: a median offer of the catalogue beside the offers' ends, or a user's own price.

    `offer` names provider and date, `source` where it was read.
    """

    model_config = _STRICT
    usd_per_h: float
    kind: Kind | Literal["own"]
    offer: str
    source: str
    n_offers: int
    low_usd_per_h: float
    high_usd_per_h: float


def parse_payment(text: str | float | None) -> Payment:
    """Read how chips are paid for.

    Parameters
    ----------
    text : ``on-demand``, ``spot``, ``reserved`` (3 years), ``ownership``; USD a chip-hour as ``2.5`` or ``2.5 USD/h``; or
        ``h100-sxm=2.5,l40s=0.8`` by chip, others on demand; None is on demand where a price is known

    Raises
    ------
    SpecError : none of these, or a price that is no positive number

    Examples
    --------
    >>> parse_payment("spot").kind, parse_payment("2.5").own_usd_per_h, dict(parse_payment("H100=2.5").own_by_chip)
    ('spot', 2.5, {'h100-sxm': 2.5})
    """
    if text is None:
        return Payment()
    if not isinstance(text, str):
        return Payment(own_usd_per_h=_own_price(text))
    if text in KIND_NAMES:
        return Payment(kind=KIND_NAMES[text])
    if "=" in text:
        pairs = [part.partition("=") for part in text.split(",")]
        return Payment(own_by_chip={get_chip(chip.strip()).name: _own_price(price) for chip, _, price in pairs})
    return Payment(own_usd_per_h=_own_price(text))


def _own_price(text: str | float) -> float:
    try:
        price = float(text)
    except ValueError:
        price = _priced_text(str(text))
    if not (math.isfinite(price) and price > 0):
        raise SpecError(f"a price of {text} must be a positive number of USD a chip-hour")
    return price


def _priced_text(text: str) -> float:
    if any(letter.isdigit() for letter in text):
        return parse_quantity(text, "USD/h")
    kinds = ", ".join(KIND_NAMES)
    raise SpecError(
        f"price {text!r} is unknown; choose {kinds}, or say USD a chip-hour as 2.5 or h100-sxm=2.5,l40s=0.8"
    )


def chip_price(chip_name: str, payment: Payment) -> ChipPrice | None:
    """What a chip-hour costs under a payment; None where nobody asked for a price and none is known.

    Raises
    ------
    SpecError : a kind of price was asked for that is not known of this chip
    UnknownNameError : no such chip

    Examples
    --------
    >>> price = chip_price("h100-sxm", Payment())
    >>> price.usd_per_h, price.n_offers, price.low_usd_per_h, price.high_usd_per_h
    (3.99, 11, 2.4024, 12.29)
    """
    name = get_chip(chip_name).name
    own = payment.own_by_chip.get(name, payment.own_usd_per_h)
    if own is not None:
        said = "your own price"
        return ChipPrice(
            usd_per_h=own, kind="own", offer=said, source=said, n_offers=1, low_usd_per_h=own, high_usd_per_h=own
        )
    price = catalogue_price(name, payment.kind or "on_demand")
    if price is not None or payment.kind is None:
        return price
    known = [word for word, kind in KIND_NAMES.items() if _offers(name, kind)]
    raise SpecError(
        f"no price of {name} is known as {_word(payment.kind)}; known: {', '.join(known) or 'none'}; "
        "or say your own USD a chip-hour, e.g. --price 2.5"
    )


def _word(kind: Kind) -> str:
    return next(word for word, known in KIND_NAMES.items() if known == kind)


def _offers(name: str, kind: Kind) -> list[Price]:
    """Rows of a chip and kind, the cheapest first."""
    rows = (price for price in load_prices() if price.chip == name and price.kind == kind)
    return sorted(rows, key=lambda price: price.usd_per_h)


def catalogue_price(chip_name: str, kind: Kind) -> ChipPrice | None:
    """The cheaper of the middle two of a chip's offers of a kind: a real offer; None where there is none.

    Raises
    ------
    UnknownNameError : no such chip
    """
    offers = _offers(get_chip(chip_name).name, kind)
    if not offers:
        return None
    row = offers[(len(offers) - 1) // 2]
    return ChipPrice(
        usd_per_h=row.usd_per_h,
        kind=row.kind,
        offer=row.provider if row.date is None else f"{row.provider}, {row.date}",
        source=row.source,
        n_offers=len(offers),
        low_usd_per_h=offers[0].usd_per_h,
        high_usd_per_h=offers[-1].usd_per_h,
    )
