"""How long requests are."""

import csv
import gzip
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.errors import SpecError

Tokens = NDArray[np.int64]
MOST_TOKENS = 10_000_000


class Lengths(Protocol):
    """Input and output tokens of requests."""

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """Input and output tokens of `n` requests, each (n,) and at least 1."""
        ...


def _check_tokens(**tokens: float) -> None:
    for name, value in tokens.items():
        if not (math.isfinite(value) and 1 <= value <= MOST_TOKENS):
            raise SpecError(f"{name}={value} must lie between 1 and {MOST_TOKENS:,} tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Every request alike."""

    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        """Refuse lengths that no request has."""
        _check_tokens(input_tokens=self.input_tokens, output_tokens=self.output_tokens)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """The same n times."""
        return np.full(n, self.input_tokens), np.full(n, self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformRatio:
    """Each length alike between `ratio` times the nominal one and the nominal one, as InferenceX draws them with 0.8."""

    input_tokens: int
    output_tokens: int
    ratio: float

    def __post_init__(self) -> None:
        """Refuse what is no ratio."""
        _check_tokens(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        if not 0.0 < self.ratio <= 1.0:
            raise SpecError(f"ratio={self.ratio} must lie in (0, 1]")

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """Drawn apart for input and output."""
        lengths = (self.input_tokens, self.output_tokens)
        drawn = [rng.integers(max(1, round(self.ratio * length)), length, n, endpoint=True) for length in lengths]
        return drawn[0], drawn[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNormal:
    """Lognormal lengths of a mean and a coefficient of variation (standard deviation over mean)."""

    input_mean: float
    output_mean: float
    input_cv: float = 1.0
    output_cv: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        _check_tokens(input_mean=self.input_mean, output_mean=self.output_mean)
        if not (0.0 <= self.input_cv < 100.0 and 0.0 <= self.output_cv < 100.0):
            raise SpecError(
                f"coefficients of variation {self.input_cv} and {self.output_cv} must lie between 0 and 100"
            )

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """Drawn apart for input and output, whole and at least 1."""
        return (
            _lognormal(rng, self.input_mean, self.input_cv, n),
            _lognormal(rng, self.output_mean, self.output_cv, n),
        )


def _lognormal(rng: np.random.Generator, mean: float, cv: float, n: int) -> Tokens:
    variance = math.log1p(cv**2)
    drawn = rng.lognormal(math.log(mean) - variance / 2.0, math.sqrt(variance), n)
    return np.clip(np.rint(drawn), 1, MOST_TOKENS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Empirical:
    """Pairs of lengths that were seen, drawn with replacement."""

    pairs: tuple[tuple[int, int], ...]
    _table: Tokens = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse an empty set, and requests without a token."""
        if not self.pairs:
            raise SpecError("no pair of lengths to draw from")
        for n_in, n_out in self.pairs:
            _check_tokens(input_tokens=n_in, output_tokens=n_out)
        object.__setattr__(self, "_table", np.array(self.pairs, np.int64))

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """Pairs as they were seen together."""
        drawn = self._table[rng.integers(len(self.pairs), size=n)]
        return drawn[:, 0], drawn[:, 1]


_COLUMNS = ("num_prefill_tokens", "num_decode_tokens")


def read_lengths(path: Path) -> Empirical:
    """Read pairs of lengths from a CSV with the columns num_prefill_tokens and num_decode_tokens, plain or gzipped.

    Raises
    ------
    SpecError : no such file, other columns, or a row that is no pair of counts
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if not set(_COLUMNS) <= set(rows.fieldnames or ()):
                raise SpecError(f"{path} has no columns {' and '.join(_COLUMNS)}")
            return Empirical(tuple(_pair(path, line, row) for line, row in enumerate(rows, start=2)))
    except (OSError, UnicodeDecodeError, EOFError, zlib.error, csv.Error) as error:
        raise SpecError(f"cannot read lengths from {path}: {error}") from error


def _pair(path: Path, line: int, row: dict[str, str]) -> tuple[int, int]:
    try:
        n_in, n_out = (int(row[name]) for name in _COLUMNS)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{path}, line {line}: {error}") from error
    if min(n_in, n_out) < 1:
        raise SpecError(
            f"{path}, line {line}: {n_in} input and {n_out} output tokens; a request has at least one of each"
        )
    return n_in, n_out
