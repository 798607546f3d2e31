"""What an hour of one chip costs, each price with its source.

Prices move by the month and differ by a factor of five between providers: they rank plans, they are no quotation.
"""

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


def price_usd_per_h(chip_name: str, kind: Kind = "on_demand") -> Price | None:
    """Pick the median row of a chip: a real offer, the cheaper of the middle two.

    Parameters
    ----------
    chip_name : catalogue name or alias
    kind : rows of other kinds are left aside

    Returns
    -------
    None where no such row is known; nothing is guessed from other kinds or chips.

    Raises
    ------
    UnknownNameError : no such chip

    Examples
    --------
    >>> price_usd_per_h("TPU v5e").usd_per_h
    1.2
    >>> price_usd_per_h("tpu-v7x") is None
    True
    """
    name = get_chip(chip_name).name
    rows = sorted(
        (price for price in load_prices() if price.chip == name and price.kind == kind),
        key=lambda price: price.usd_per_h,
    )
    return rows[(len(rows) - 1) // 2] if rows else None
