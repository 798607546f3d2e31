"""Published results, carried over with their sources, as typed rows."""

from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ...hardware_specs.documents import read_yaml

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SwitchPoint(BaseModel):
    """Tokens from which one layout moves less than another."""

    model_config = _STRICT
    start: str = Field(alias="from")
    end: str = Field(alias="to")
    tokens: float


class Figure3(BaseModel):
    """Communication volume of one FFN layer by layout and tokens, in GB a chip."""

    model_config = _STRICT
    mesh: dict[str, float]
    d_model: int
    d_ff: int
    volumes_gb: dict[str, dict[int, float]]
    switch_tokens: tuple[SwitchPoint, ...]


class MaxContext(BaseModel):
    """A row of Table 1."""

    model_config = _STRICT
    model: str
    attention: Literal["heads", "batch"]
    batch: int
    max_context: float


class Timing(BaseModel):
    """A timed phase with its layout; `use` says whether constants may be fitted on it.

    `n_layers` is for figures that time a model cut short.
    """

    model_config = _STRICT
    id: str
    source: str
    use: Literal["fit", "judge", "quote"]
    model: str
    n_layers: int | None = None
    chips: int
    phase: Literal["prefill", "decode"]
    ffn: str
    attention: Literal["heads", "batch"]
    weights: str
    batch: int
    input: int
    output: int
    value_s: float
    per_pass: bool = False
    mfu: float | None = None


class TableD2Row(BaseModel):
    """A cell of Table D.2: 20 tokens in, 8 out; GPUs with their tp and pp, TPUs in the 2D layout."""

    model_config = _STRICT
    model: str
    chip: str
    chips: int
    tp: int | None = None
    pp: int | None = None
    phase: Literal["prefill", "generate", "total"]
    batch: int
    value_s: float
    mfu: float


class OutOfMemory(BaseModel):
    """Whether FasterTransformer ran out of memory."""

    model_config = _STRICT
    model: str
    chip: str
    tp: int
    input: int
    output: int
    batch: int
    ran_out: bool


class Claim(BaseModel):
    """A conclusion of the paper in our words, and the times it gives for it."""

    model_config = _STRICT
    id: str
    source: str
    says: str
    timings: tuple[Timing, ...] = ()


class PaperHardware(BaseModel):
    """The chip as the paper states it."""

    model_config = _STRICT
    chip: str
    flop_per_s: str
    hbm_bytes: str


class Pope2022(BaseModel):
    """The paper's numbers."""

    model_config = _STRICT
    citation: str
    title: str
    hardware: PaperHardware
    fig3: Figure3
    table1: tuple[MaxContext, ...]
    timings: tuple[Timing, ...]
    table_d2: tuple[TableD2Row, ...]
    out_of_memory: tuple[OutOfMemory, ...]
    claims: tuple[Claim, ...]


@cache
def load_pope2022() -> Pope2022:
    """Every published number of the paper that the project carries."""
    text = (files(__package__) / "pope2022.yaml").read_text("utf-8")
    return Pope2022.model_validate(read_yaml(text))


class EndToEnd(BaseModel):
    """Requests of one model on one node: [tp, input tokens, output tokens, batch, milliseconds]."""

    model_config = _STRICT
    citation: str
    title: str
    model: str
    chip: str
    weights: str
    end_to_end_ms: tuple[tuple[int, int, int, int, float], ...]


@cache
def load_fastertransformer() -> EndToEnd:
    """The performance table of FasterTransformer's GPT guide."""
    text = (files(__package__) / "fastertransformer.yaml").read_text("utf-8")
    return EndToEnd.model_validate(read_yaml(text))


class CrossoverClaim(BaseModel):
    """What a paper or manual says of one way against another.

    `low` and `high` are its number, or the ends of it, of the `measure`; `why` says what a prediction that differs leaves out.
    """

    model_config = _STRICT
    id: str
    crossover: str
    citation: str
    source: str
    says: str
    measure: str
    low: float | None = None
    high: float | None = None
    why: str = ""


@cache
def load_crossover_claims() -> dict[str, CrossoverClaim]:
    """Claims about crossovers by their ids."""
    text = (files(__package__) / "crossovers.yaml").read_text("utf-8")
    rows = TypeAdapter(tuple[CrossoverClaim, ...]).validate_python(read_yaml(text))
    return {row.id: row for row in rows}
