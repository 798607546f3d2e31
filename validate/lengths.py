"""Request lengths as measured tables write them: a number, a number with a remark, or the name of a data set."""

import re
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..hardware_specs.documents import read_yaml
from ..hardware_specs.errors import SpecError
from ..hardware_specs.names import name_key


class DatasetLengths(BaseModel):
    """Mean lengths of a data set's requests, and the models that "dataset" alone stands for it with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    aliases: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    mean_input_tokens: float = Field(gt=0)
    mean_output_tokens: float = Field(gt=0)
    lengths: str
    source: str


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


def request_lengths(input_text: str, output_text: str, model: str) -> tuple[int | None, int | None]:
    """Whole input and output tokens of a request; None where the text is blank.

    A data set named for the input gives the output too, unless that is a number.

    Raises
    ------
    SpecError : text that is neither a number of tokens nor a known data set

    >>> request_lengths("dataset", "290.1", "llama-2-70b")
    (200, 290)
    """
    dataset = find_dataset(input_text, model)
    n_in = round(dataset.mean_input_tokens) if dataset is not None else _tokens("input_len", input_text, model)
    if dataset is not None and parse_number(output_text) is None:
        return n_in, round(dataset.mean_output_tokens)
    return n_in, _tokens("output_len", output_text, model)


def _tokens(name: str, text: str, model: str) -> int | None:
    if not text.strip():
        return None
    if name_key(text) == "dataset":
        raise SpecError(f"{name} {text!r}: no data set is known for {model}; write the mean number of tokens")
    number = parse_number(text)
    if number is None or not 0 <= number < 1e8:
        raise SpecError(f"{name} {text!r} is no number of tokens and no known data set")
    return round(number)
