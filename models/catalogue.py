"""The models of the catalogue by name: one YAML file each in `data/`."""

import re
from functools import cache
from importlib.resources import files

from ..hardware_specs.errors import SpecError, UnknownNameError
from ..hardware_specs.names import index_by_name, name_key
from .description import Biases, Model
from .paths import model_at, path_of
from .written import read_model

_HIDDEN, _LAYERS, _HEADS = (rf"(?P<{key}>[1-9]\d*)" for key in ("hidden", "layers", "heads"))
_GPT_SHAPE = re.compile(
    rf"gpt[^()]*\(\s*h\s*=\s*{_HIDDEN}\s*,\s*L\s*=\s*{_LAYERS}\s*(?:,\s*heads\s*=\s*{_HEADS}\s*)?\)", re.IGNORECASE
)
_GPT_NAME = re.compile(rf"gpt-h{_HIDDEN}-l{_LAYERS}(?:-heads{_HEADS})?", re.IGNORECASE)


@cache
def load_models() -> dict[str, Model]:
    """Every model of the catalogue by name."""
    folder = files(__package__) / "data"
    paths = [path for path in folder.iterdir() if path.name.endswith(".yaml")]
    models = [read_model(path.read_text("utf-8"), path.name) for path in paths]
    return {model.name: model for model in sorted(models, key=lambda model: model.name)}


@cache
def _index() -> dict[str, str]:
    return index_by_name({model.name: model.aliases for model in load_models().values()})


def gpt_model(d_model: int, n_layers: int, n_heads: int | None = None) -> Model:
    """Describe a GPT by width and depth, as FasterTransformer times them; without `n_heads`, heads of 128.

    References
    ----------
    [FasterTransformer] docs/gpt_guide.md, section "Performance".

    Examples
    --------
    >>> gpt_model(6144, 44).n_heads
    48
    """
    divisor = 128 if n_heads is None else n_heads
    if divisor < 1 or d_model % divisor:
        raise SpecError(f"h={d_model} is not a multiple of {divisor}; write e.g. 'GPT (h=6144,L=44,heads=48)'")
    heads = d_model // 128 if n_heads is None else n_heads
    return Model(
        name=f"gpt-h{d_model}-l{n_layers}" + (f"-heads{heads}" if heads * 128 != d_model else ""),
        source="NVIDIA/FasterTransformer docs/gpt_guide.md, section Performance",
        n_layers=n_layers,
        d_model=d_model,
        d_ff=4 * d_model,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=d_model // heads,
        vocab_size=51200,
        max_context=2048,
        gated=False,
        activation="gelu",
        block="serial",
        norm="layernorm",
        norm_bias=True,
        n_norms_per_block=2,
        positions="learned",
        n_learned_positions=2048,
        tied_embeddings=True,
        biases=Biases(qkv=True, attention_out=True, ffn=True),
        weights_dtype="fp16",
    )


def reference_of(name: str) -> str:
    """What finds the model again from anywhere: the whole path if it is named by one, else its name in the catalogue.

    Raises
    ------
    SpecError : as `get_model`
    """
    path = path_of(name)
    return get_model(name).name if path is None else str(path.resolve())


def get_model(name: str) -> Model:
    """Find a model by catalogue name or alias, whatever its case, punctuation, bracketed remarks or organisation.

    A path to a description in YAML, to a Hugging Face config.json, or to a directory that holds one is read.
    A name such as ``GPT-20B (h=6144,L=44)``, optionally with ``,heads=48``, defines a GPT of that shape.

    Examples
    --------
    >>> get_model("meta-llama/Llama-3.1-8B-Instruct").name
    'llama-3.1-8b'

    Raises
    ------
    SpecError : there is no such file, or it describes no model
    UnknownNameError : the name is in no list; names the nearest
    """
    if shape := _GPT_SHAPE.fullmatch(name.strip()) or _GPT_NAME.fullmatch(name.strip()):
        return gpt_model(int(shape["hidden"]), int(shape["layers"]), int(shape["heads"]) if shape["heads"] else None)
    if (path := path_of(name)) is not None:
        return model_at(path)
    return named_model(name)


def named_model(name: str) -> Model:
    """A model of the catalogue; no file is read for it, whatever the name.

    Raises
    ------
    UnknownNameError : the name is in no list; names the nearest
    """
    known = _index().get(name_key(name)) or _index().get(name_key(name.rpartition("/")[2]))
    if known is None:
        raise UnknownNameError("model", name, load_models())
    return load_models()[known]
