"""From the fields of a config.json to a model, and all that was learned on the way."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...hardware_specs.dtypes import parse_dtype
from ...hardware_specs.errors import SpecError
from ..description import Model
from ..formats import default_formats
from ..params import idle_params, index_elements_per_token, kv_bytes_per_token, n_params, state_bytes_per_sequence
from ..weights import weight_bytes
from .checks import check_index, check_name
from .config import Config, Reading
from .defaults import defaults_of
from .families.registry import READERS, TEXT_OBJECTS, WRAPPERS
from .quantisation import Formats, formats_of
from .sources import Source, read_source
from .towers import TOWERS

# What a text model takes from the object around it where it has none of its own; the first of these even if it has.
_INHERITED = ("tie_word_embeddings", "dtype", "torch_dtype", "quantization_config", "architectures")
# What a plain decoder cannot do without.
_SIZES = ("d_model", "n_layers", "n_heads", "d_ff", "vocab_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A model from a config file.

    Parameters
    ----------
    scale_bytes : of scales and zero points beside each quantised element
    unknown_fields : that nobody asked for
    notes : sentences for its reader
    """

    model: Model
    scale_bytes: float
    unknown_fields: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def weight_bytes(self) -> float:
        """Of all weights, with the scales of those that are quantised."""
        return weight_bytes(self.model, scales=self.scale_bytes)

    @property
    def kv_dtype(self) -> str:
        """What keys and values are kept in: as the file says, else as activations are, in 16 bits."""
        return default_formats(self.model).kv.name

    @property
    def kv_bytes_per_token(self) -> float:
        """Keys and values (or latents) that one token leaves in all layers, while windows are not full; without an index."""
        size = parse_dtype(self.kv_dtype).bytes_per_element
        index = sum(n * index_elements_per_token(self.model.kinds[kind]) for kind, n in self.model.n_layers_of.items())
        return kv_bytes_per_token(self.model, size) - index * size

    @property
    def state_bytes_per_seq(self) -> float:
        """Recurrent states and convolution tails of one sequence, both in the format of states."""
        size = parse_dtype(self.model.state_dtype).bytes_per_element
        return state_bytes_per_sequence(self.model, state_bytes=size, conv_bytes=size)

    @property
    def n_params_active(self) -> int:
        """All parameters but those of experts that one token is not sent to; a tower's are among them."""
        return n_params(self.model) - idle_params(self.model)


def import_model(path: str, *, name: str | None = None, overrides: Sequence[str] = ()) -> Imported:
    """Read the config.json at a path, in a directory, or on standard input (``-``).

    Parameters
    ----------
    name : of the model, where not its path says it
    overrides : ``field=value`` in place of what the file says

    Raises
    ------
    SpecError : the file cannot be read, contradicts itself, or describes what no description can hold
    """
    source = read_source(path)
    return import_fields(source, name=name, overrides=overrides)


def import_fields(source: Source, *, name: str | None = None, overrides: Sequence[str] = ()) -> Imported:
    """Read what was found.

    Raises
    ------
    SpecError : it contradicts itself, or describes what no description can hold
    """
    fields = with_overrides(source.fields, overrides)
    reading = Reading(name=_name(source, fields, name))
    top, text, kind = _text_model(fields, reading)
    model = _read(text, kind)
    model, formats = _finish(model, top, text, kind, source.quantised)
    unknown = tuple(sorted(set(top.unknown()) | set(text.unknown())))
    found = Imported(
        model=model,
        scale_bytes=formats.scales,
        unknown_fields=unknown,
        notes=(),
    )
    checked = check_name(model, source.name or reading.name) + check_index(found.weight_bytes, source.stored_bytes)
    notes = (*_assumptions(reading), *reading.notes, *_on_cache(found), *checked)
    return replace(found, notes=tuple(dict.fromkeys(notes)))


def with_overrides(fields: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Fields with some of them set: ``hidden_size=64``, ``text_config.hidden_size=64``; JSON where it can be read as such.

    A name without a dot is set where the file has it, in the text model first.

    >>> with_overrides({"a": 1, "text_config": {"b": 2}}, ["b=null", "c=x"])
    {'a': 1, 'text_config': {'b': None, 'c': 'x'}}

    Raises
    ------
    SpecError : an override without ``=``
    """
    made: dict[str, Any] = json.loads(json.dumps(fields))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SpecError(f"override {text!r} must be field=value, e.g. num_hidden_layers=32")
        *path, last = key.split(".")
        inside = made
        if not path:
            inner = next((made[word] for word in TEXT_OBJECTS if isinstance(made.get(word), dict)), None)
            inside = made if inner is None or (last in made and last not in inner) else inner
        for step in path:
            inside = inside.setdefault(step, {})
            if not isinstance(inside, dict):
                raise SpecError(f"override {text!r}: {step} is no object in this file")
        inside[last] = _parsed(value)
    return made


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _name(source: Source, fields: Mapping[str, Any], given: str | None) -> str:
    """As given, or from the path, or as the file calls itself; as catalogue names are written."""
    called = fields.get("_name_or_path") or fields.get("model_type")
    found = given or source.name or str(called or "model").rstrip("/").rpartition("/")[2]
    return found.strip().lower().replace("_", "-").replace(" ", "-") or "model"


def _text_model(fields: Mapping[str, Any], reading: Reading) -> tuple[Config, Config, str]:
    """The whole file, the object that describes the text model in it, and its kind.

    Raises
    ------
    SpecError : the kind is unknown
    """
    outer = str(fields.get("model_type") or "")
    top, inner = Config(fields, reading), fields
    inherited: dict[str, Any] = {}
    path, kind = "", outer
    while (word := next((one for one in TEXT_OBJECTS if isinstance(inner.get(one), Mapping)), None)) is not None:
        inherited |= {key: inner[key] for key in _INHERITED if inner.get(key) is not None}
        top.ignore(
            word, *_INHERITED, *(one for one in inner if one.endswith("_config") or isinstance(inner[one], Mapping))
        )
        inner, path = inner[word], f"{path}{word}."
        kind = str(inner.get("model_type") or WRAPPERS.get(kind, kind))
    kind = WRAPPERS.get(kind, kind) if path else kind
    if kind in WRAPPERS and kind not in READERS:
        raise SpecError(f"{reading.name}: a {kind} holds its text model in text_config, which is missing")
    if kind not in READERS:
        raise _unknown_kind(kind, outer, Config(inner, reading))
    own = {key: value for key, value in inner.items() if value is not None or key not in inherited}
    tied = {key: value for key, value in inherited.items() if key == "tie_word_embeddings"}
    if path:
        inner = {**inherited, **own, **tied}
    else:
        top.ignore_all()
    text = Config(inner, reading, defaults=defaults_of(kind, nested=bool(path)), path=path)
    return top, text, kind


def _unknown_kind(kind: str, outer: str, inner: Config) -> SpecError:
    near = difflib.get_close_matches(kind.lower(), [*READERS, *WRAPPERS], n=3, cutoff=0.5)
    if not near:
        near = [name for name in READERS if name.split("_")[0] == kind.split("_")[0]][:3]
    lacking = inner.lacks(_SIZES)
    said = f"model_type {kind!r} is unknown" if kind else "there is no model_type"
    hint = f"nearest known: {', '.join(near)}" if near else "nearest known in what it has: llama"
    fields = f"; of a plain decoder's fields it lacks {', '.join(lacking)}" if lacking else ""
    return SpecError(
        f"{inner.name}: {said}{f' (in {outer})' if outer and outer != kind else ''}; {hint}{fields}. "
        f"Read it as a known one with --override model_type={near[0] if near else 'llama'}, and --override FIELD=VALUE for each "
        "field that means something else there"
    )


def _read(text: Config, kind: str) -> Model:
    """Let the family read it; fields that are missing go before what follows from that.

    Raises
    ------
    SpecError : fields are missing, or contradict each other
    """
    reading = text.reading
    try:
        model = READERS[kind](text)
    except SpecError:
        if not reading.missing:
            raise
    except ValueError as error:
        if not reading.missing:
            raise SpecError(f"{reading.name}: {_first_line(error)}") from None
    if reading.missing:
        missing = list(dict.fromkeys(reading.missing))
        example = missing[0].rpartition(".")[2]
        raise SpecError(
            f"{reading.name}: fields of a {kind} are missing: {', '.join(missing)}; add --override {example}=VALUE for each"
        )
    return model


def _first_line(error: ValueError) -> str:
    """What pydantic says, without its heading and link."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[1:3]) if len(lines) > 2 else " ".join(lines)


def _finish(model: Model, top: Config, text: Config, kind: str, beside: Mapping[str, Any]) -> tuple[Model, Formats]:
    """Formats, the tower in front, prediction heads behind."""
    formats = formats_of(text, model.n_layers, beside)
    model = formats.applied(model)
    outer = top.text("model_type", "")
    tower = TOWERS.get(outer)
    # an older file has the fields of its text model beside the tower, a newer one in an object of their own
    outer_part = top if text.path else text
    in_front = any(outer_part.has(word) for word in ("vision_config", "audio_config"))
    update: dict[str, Any] = {"kv_dtype": formats.kv_dtype}
    if in_front and tower is not None:
        update["n_vision_params"] = tower(outer_part, model.d_model)
    elif in_front:
        text.reading.notes.append("its text model is read alone: what sees or hears in front of it is not counted")
    if n_mtp := text.optional("n_mtp", least=0):
        text.reading.notes.append(f"{n_mtp} multi-token-prediction layer(s) are left out of all counts")
    state = text.value("state_dtype")
    if isinstance(state, str):
        update["state_dtype"] = parse_dtype(state).name
    return model.model_copy(update=update), formats


def _assumptions(reading: Reading) -> list[str]:
    if not reading.assumed:
        return []
    said = ", ".join(f"{name}={value}" for name, value in reading.assumed.items())
    return [f"not in the file, taken from the class of its family: {said}"]


def _on_cache(found: Imported) -> list[str]:
    """What the one number for the cache does not say."""
    model, notes = found.model, []
    size = parse_dtype(found.kv_dtype).bytes_per_element
    long = kv_bytes_per_token(model, size, past_tokens=float(10**9))
    index = sum(n * index_elements_per_token(model.kinds[kind]) for kind, n in model.n_layers_of.items()) * size
    if long - index < found.kv_bytes_per_token:
        notes.append(f"once its windows are full, a token leaves {long - index:,.0f} B in the cache")
    if index:
        notes.append(f"its indexer keeps {index:,.0f} B a token beside the cache")
    if model.encoder is not None:
        notes.append("keys and values of what the encoder read come once more, for every input token")
    return notes
