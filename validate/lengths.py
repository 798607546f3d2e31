"""Request lengths as measured tables write them: a number, a number with a remark, or the name of a data set."""

import math
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..hardware_specs.documents import read_yaml
from ..hardware_specs.errors import SpecError
from ..hardware_specs.names import name_key


class DatasetLengths(BaseModel):
    """Lengths of a data set's requests, and the models that "dataset" alone stands for it with.

    `input_cv` and `output_cv` are coefficients of variation, the standard deviation over the mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    aliases: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    mean_input_tokens: float = Field(gt=0)
    mean_output_tokens: float = Field(gt=0)
    input_cv: float = Field(ge=0)
    output_cv: float = Field(ge=0)
    n_beams: int = Field(default=1, gt=0, description="sequences that a request decodes side by side")
    lengths: str
    source: str

    @property
    def input_log_sigma(self) -> float:
        """Standard deviation of the logarithm of the lognormal distribution with this mean and spread."""
        return math.sqrt(math.log1p(self.input_cv**2))

    @property
    def output_log_sigma(self) -> float:
        """The same of the output."""
        return math.sqrt(math.log1p(self.output_cv**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLengths:
    """Whole mean input and output tokens of a row's requests, None where it is blank; how far they spread.

    `input_cv` and `output_cv` are 0 where a number says how long every request is.
    """

    input_tokens: int | None
    output_tokens: int | None
    input_cv: float = 0.0
    output_cv: float = 0.0
    n_beams: int = 1


@cache
def load_datasets() -> tuple[DatasetLengths, ...]:
    """Every data set whose lengths are known."""
    text = (files(__package__) / "data" / "datasets.yaml").read_text("utf-8")
    return TypeAdapter(tuple[DatasetLengths, ...]).validate_python(read_yaml(text))


def find_dataset(text: str, model: str) -> DatasetLengths | None:
    """The data set that `text` names: by its own name, or as "dataset" by the model's catalogue name.

    >>> find_dataset("ShareGPT, max 1024", "llama-3-8b").name, find_dataset("dataset", "gpt-j-6b").name
    ('sharegpt', 'cnn-dm')
    """
    key = name_key(text)
    if key == "dataset":
        return next((d for d in load_datasets() if model in d.models), None)
    for dataset in load_datasets():
        if any(key.startswith(name_key(name)) for name in (dataset.name, *dataset.aliases)):
            return dataset
    return None


def parse_number(text: str) -> float | None:
    """A plain number, remarks in brackets left out; None for anything else.

    >>> parse_number("5000 (inferred)"), parse_number("27K context")
    (5000.0, None)
    """
    try:
        return float(re.sub(r"\(.*?\)", "", text).replace("_", "x"))
    except ValueError:
        return None


def request_lengths(input_text: str, output_text: str, model: str) -> RequestLengths:
    """Read the input and output tokens of a request.

    A data set named for the input gives the output too, unless that is a number: then it is the mean, and the spread is the
    data set's.

    Raises
    ------
    SpecError : text that is neither a number of tokens nor a known data set

    >>> found = request_lengths("dataset", "290.1", "llama-2-70b")
    >>> found.input_tokens, found.output_tokens, found.output_cv
    (222, 290, 0.79)
    """
    dataset = find_dataset(input_text, model)
    if dataset is None:
        n_in = _tokens("input_len", input_text, model)
        return RequestLengths(input_tokens=n_in, output_tokens=_tokens("output_len", output_text, model))
    is_number = parse_number(output_text) is not None
    n_out = _tokens("output_len", output_text, model) if is_number else round(dataset.mean_output_tokens)
    return RequestLengths(
        input_tokens=round(dataset.mean_input_tokens),
        output_tokens=n_out,
        input_cv=dataset.input_cv,
        output_cv=dataset.output_cv,
        n_beams=dataset.n_beams,
    )


def _tokens(name: str, text: str, model: str) -> int | None:
    if not text.strip():
        return None
    if name_key(text) == "dataset":
        raise SpecError(f"{name} {text!r}: no data set is known for {model}; write the mean number of tokens")
    number = parse_number(text)
    if number is None or not 0 <= number < 1e8:
        raise SpecError(f"{name} {text!r} is no number of tokens and no known data set")
    return round(number)
