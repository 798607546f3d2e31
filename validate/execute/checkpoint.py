"""Real weights: a Hugging Face safetensors checkpoint read as the tensors of a program."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from ...hardware_specs.errors import SpecError
from ...models.description import PLAIN
from ...models.program import Tensor
from .hf_names import BARE, FAMILIES, Family
from .weights import ENDS, NO_BLOCK, WeightPlan

_INDEX = "model.safetensors.index.json"
_READ = ("F64", "F32", "F16", "BF16")
_N_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One tensor of a file, and which third of it where q, k and v are packed."""

    name: str
    third: int | None


class Checkpoint:
    """The weights of a checkpoint, by the names a program gives them.

    Parameters
    ----------
    plan : every weight of the program
    dtype : what they are handed out in, whatever the files hold

    Raises
    ------
    SpecError : files that are not there or no safetensors, and tensors that are missing, left over, or of another shape
        or format than the model's; a model that is no plain decoder
    """

    def __init__(self, path: str, plan: WeightPlan, dtype: torch.dtype) -> None:
        self.path, self._plan, self._model, self._dtype = path, plan, plan.model, dtype
        if plan.model.stack:
            raise SpecError(
                f"{plan.model.name} is no plain decoder, whose checkpoints alone are read; leave out --checkpoint"
            )
        self._tensors = {**plan.tensors[PLAIN], **plan.tensors[NO_BLOCK]}
        self._files = _open(Path(path))
        self._family = self._find_family()
        self._prefix = "" if self._embedding in self._files else self._family.prefix
        self._check()

    def __call__(self, layer: int, name: str) -> torch.Tensor:
        """See `Weights`."""
        if name == "unembedding" and self._model.tied_embeddings:
            return self(layer, "embedding").T
        tensor = self._tensors[name]
        pieces = [self._read(piece, tensor) for piece in self._pieces(layer, name)]
        whole = torch.stack(pieces) if len(pieces) > 1 else pieces[0]
        if name == "positions":
            whole = whole.roll(-self._family.n_unused_positions, 0)
        return whole.reshape(self._plan.shape(self._kind(name), name)).to(self._dtype)

    @property
    def _embedding(self) -> str:
        return self._family.weights["embedding"][0]

    def _find_family(self) -> Family:
        for family in FAMILIES.values():
            names = [f"{family.layer.format(0)}{name}" for name in family.weights["w_out"]]
            if any(f"{prefix}{name}" in self._files for name in names for prefix in ("", family.prefix)):
                return family
        raise SpecError(
            f"{self.path} names its tensors like no family known here ({', '.join(FAMILIES)}): "
            f"{', '.join(sorted(self._files)[:_N_SHOWN])}"
        )

    def _pieces(self, layer: int, name: str) -> Iterator[_Piece]:
        """The tensors of the files that make one weight."""
        inside = "" if layer == ENDS else self._family.layer.format(layer)
        for i, found in enumerate(self._family.weights.get(name, (name,))):
            third = None
            if found in self._family.packed:
                third = 0 if name.endswith("q") else i + 1
            yield _Piece(name=found if found in BARE else f"{self._prefix}{inside}{found}", third=third)

    def _read(self, piece: _Piece, tensor: Tensor) -> torch.Tensor:
        found: torch.Tensor = self._files[piece.name].get_tensor(piece.name)
        if piece.third is not None:
            found = found.chunk(3, -1)[piece.third]
        return found.T if self._is_turned(tensor) else found

    def _is_turned(self, tensor: Tensor) -> bool:
        """Whether the file holds [out, in] where the program wants [in, out]."""
        if tensor.name == "unembedding":
            return True
        return bool(self._made(tensor)) and tensor.name != "embedding" and self._family.is_transposed

    def _kind(self, name: str) -> str:
        return NO_BLOCK if name in self._plan.tensors[NO_BLOCK] else PLAIN

    def _made(self, tensor: Tensor) -> tuple[str, ...]:
        """Dimensions of what a matrix makes, () for a vector."""
        return self._plan.made(self._kind(tensor.name), tensor.name)

    def _check(self) -> None:
        """Hold names, shapes and formats to the model's, from the files' headers alone."""
        used: set[str] = set()
        for layer, tensor in self._wanted():
            for piece in self._pieces(layer, tensor.name):
                used.add(piece.name)
                self._check_piece(piece, tensor)
        names = [name for name in self._files if not name.endswith(self._family.ignored or "\0")]
        tied = BARE if self._model.tied_embeddings else ()
        left = sorted(set(names) - used - set(tied))
        if left:
            raise SpecError(
                f"{self.path} has {len(left)} tensors that {self._model.name} ({self._model.n_layers} layers) has no place "
                f"for, {', '.join(left[:_N_SHOWN])} first; execute a plan of the checkpoint's own model"
            )

    def _wanted(self) -> Iterator[tuple[int, Tensor]]:
        """Every weight of every layer, and those of the ends."""
        for tensor in self._tensors.values():
            if self._kind(tensor.name) == PLAIN:
                yield from ((layer, tensor) for layer in range(self._model.n_layers))
            elif not (tensor.name == "unembedding" and self._model.tied_embeddings):
                yield ENDS, tensor

    def _check_piece(self, piece: _Piece, tensor: Tensor) -> None:
        if piece.name not in self._files:
            raise SpecError(
                f"{self.path} has no {piece.name}, which {self._model.name} keeps its {tensor.name} in; "
                f"execute a plan of the checkpoint's own model"
            )
        header = self._files[piece.name].get_slice(piece.name)
        shape, wanted = tuple(header.get_shape()), self._shape_in_file(piece, tensor)
        if shape != wanted:
            raise SpecError(
                f"{piece.name} of {self.path} is {_text(shape)}, {self._model.name} has {_text(wanted)}; "
                f"execute a plan of the checkpoint's own model, without --scale-model"
            )
        if header.get_dtype() not in _READ:
            raise SpecError(
                f"{piece.name} of {self.path} is in {header.get_dtype()}, which is not read; "
                f"convert the checkpoint to one of {', '.join(_READ)}"
            )

    def _shape_in_file(self, piece: _Piece, tensor: Tensor) -> tuple[int, ...]:
        whole, made_dims = self._plan.shape(self._kind(tensor.name), tensor.name), self._made(tensor)
        shape = dict(zip(tensor.form.letters, whole[len(whole) - len(tensor.form.dims) :], strict=True))
        if not made_dims:
            n = prod(shape.values()) * (3 if piece.third is not None else 1)
            return (n,) if tensor.name != "positions" else tuple(shape.values())
        made = prod(size for dim, size in shape.items() if dim in made_dims)
        given = prod(shape.values()) // made
        made *= 3 if piece.third is not None else 1
        return (given, made) if not self._is_turned(tensor) and tensor.name != "embedding" else (made, given)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _open(path: Path) -> dict[str, Any]:
    """Each tensor's name and the open file that holds it."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise SpecError("checkpoints need safetensors: pip install 'shardwise[kernels]'") from None
    found: dict[str, Any] = {}
    for file in _files(path):
        try:
            opened = safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise SpecError(f"{file} is no safetensors file: {error}") from None
        found |= dict.fromkeys(opened.keys(), opened)
    return found


def _files(path: Path) -> list[Path]:
    """The files of a checkpoint: one, those its index names, or all of a folder."""
    if not path.exists():
        raise SpecError(f"no checkpoint {path}; give a .safetensors file or a folder of them")
    if not path.is_dir():
        return [path]
    index = path / _INDEX
    if not index.exists():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise SpecError(f"{path} holds no .safetensors file; give the folder of a Hugging Face checkpoint")
        return files
    try:
        named = sorted({str(file) for file in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, AttributeError) as error:
        raise SpecError(f"{index} is no index of a checkpoint: {error!r}") from None
    missing = [name for name in named if not (path / name).exists()]
    if missing:
        raise SpecError(f"{path} lacks {len(missing)} of {len(named)} files its index names, {missing[0]} first")
    return [path / name for name in named]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a checkpoint's config.json says beside the shapes; None where it says nothing."""

    theta: float | None = None
    norm_eps: float | None = None
    notes: tuple[str, ...] = ()


def read_settings(path: Path) -> Settings:
    """The settings beside a checkpoint; a stretched rotary embedding is not executed, and said so."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.exists():
        return Settings(notes=(f"no config.json beside the checkpoint: rotary base {1e4:g}, norm epsilon {1e-5:g}",))
    try:
        config = json.loads(file.read_text())
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = config.get("rope_theta", rope.get("rope_theta"))
        eps = next((config[k] for k in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon") if k in config), None)
        kind = rope.get("rope_type", rope.get("type", "default"))
        return Settings(
            theta=None if theta is None else float(theta),
            norm_eps=None if eps is None else float(eps),
            notes=()
            if kind == "default"
            else (f"rotary scaling {kind!r} of the checkpoint is left out, sharded and unsharded alike",),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise SpecError(f"{file} is no model's configuration: {error}") from None
