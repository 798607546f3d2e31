"""What each part of a checkpoint is kept in: `quantization_config` and the file ModelOpt puts beside it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...hardware_specs.dtypes import DTYPES, parse_dtype
from ...hardware_specs.errors import SpecError
from ..description import Model
from ..feed_forward import ExpertsFfn
from .config import Config

_DEFAULT = "bf16"
# Methods that keep all they convert in one format.
_METHODS = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "modelopt_fp8": "fp8",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
    "modelopt_fp4": "nvfp4",
    "bitnet": "int4",
}
_BY_BITS = {4: "int4", 8: "int8"}
# Bytes of a scale, and of a zero point, a group of weights has.
_SCALE_BYTES, _ZERO_POINT_BYTES, _BLOCK_SCALE_BYTES = 2.0, 0.5, 4.0
_MODULES = {
    "mixer": "model.layers.{i}.self_attn.o_proj",
    "ffn": "model.layers.{i}.mlp.down_proj",
    "shared": "model.layers.{i}.mlp.shared_experts.down_proj",
    "expert": "model.layers.{i}.mlp.experts.0.down_proj",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Of a checkpoint.

    Parameters
    ----------
    native : of what is not converted, and of activations
    converted : of what is; None without quantisation
    kept : parts that are not converted: mixer, ffn, shared, expert
    expert : of the experts, where that is said apart
    kv_dtype : of keys and values, where the file says
    scales : bytes beside each converted element
    """

    native: str
    converted: str | None = None
    kept: frozenset[str] = frozenset()
    expert: str | None = None
    kv_dtype: str | None = None
    scales: float = 0.0

    def applied(self, model: Model) -> Model:
        """The model in these formats."""
        if self.converted is None and self.expert is None:
            return model.model_copy(update={"weights_dtype": self.native})
        converted = self.converted or self.native
        by_part = {part: self.native if part in self.kept else converted for part in _MODULES}
        dense, has_experts = by_part[_main_part(model)], model.has_experts
        experts = self.expert or by_part["expert"]
        return model.model_copy(
            update={
                "weights_dtype": dense,
                "mixer_dtype": None if by_part["mixer"] == dense else by_part["mixer"],
                "expert_dtype": None if not has_experts or experts == dense else experts,
                "embedding_dtype": None if self.native == dense else self.native,
            }
        )


def _main_part(model: Model) -> str:
    """The part whose format stands for the model: dense parts, or shared experts, or mixers where there are neither."""
    parts = [block.ffn for block in model.kinds.values() if block.ffn is not None]
    if any(not isinstance(ffn, ExpertsFfn) for ffn in parts):
        return "ffn"
    return "shared" if any(isinstance(ffn, ExpertsFfn) and ffn.d_ff_shared for ffn in parts) else "mixer"


def formats_of(config: Config, n_layers: int, beside: Mapping[str, Any] | None = None) -> Formats:
    """Formats of a checkpoint.

    Parameters
    ----------
    config : the text model's, with `quantization_config` and the element type
    n_layers : a layer in the middle stands for all
    beside : what `hf_quant_config.json` holds
    """
    native = _element_type(config)
    quantised = config.part("quantization_config")
    stated = config.value("expert_dtype") or quantised.value("expert_dtype")
    raw: dict[str, Any] = dict(config.value("quantization_config") or {}) or dict(
        (beside or {}).get("quantization") or {}
    )
    quantised.ignore_all()
    if not raw:
        return Formats(native=native, expert=_expert_format(stated, raw))
    converted, scales = _converted(config, raw)
    patterns = _exceptions(raw)
    i = n_layers // 2
    kept = {part for part, module in _MODULES.items() if _matches(module.format(i=i), patterns)}
    return Formats(
        native=native,
        converted=converted,
        kept=frozenset(kept),
        expert=_expert_format(stated, raw),
        kv_dtype=_kv_format(raw),
        scales=scales,
    )


def _element_type(config: Config) -> str:
    name = config.value("dtype")
    if name is None or name == "auto":
        config.reading.notes.append(f"the file gives no dtype; {_DEFAULT} is taken")
        return _DEFAULT
    found = parse_dtype(str(name).removeprefix("torch.")).name
    if found == "fp32":
        config.reading.notes.append(
            "its checkpoint is in fp32; activations and cache are taken as bf16, as engines run it"
        )
    return found


def _converted(config: Config, raw: Mapping[str, Any]) -> tuple[str | None, float]:
    """What the converted weights are kept in, and the bytes of scales beside each element."""
    method = str(raw.get("quant_method") or raw.get("quant_algo") or "").lower().replace("-", "_")
    weights = _weights_entry(raw)
    if weights is not None:
        return _by_entry(weights)
    if method in _METHODS or method in DTYPES:
        return _METHODS.get(method, method), _block_scales(raw.get("weight_block_size"))
    algorithm = str(raw.get("quant_algo") or "").lower()
    for start, name in (
        ("nvfp4", "nvfp4"),
        ("mxfp4", "mxfp4"),
        ("w4a8_mxfp4", "mxfp4"),
        ("w4", "int4"),
        ("fp8", "fp8"),
        ("int8", "int8"),
        ("w8", "int8"),
    ):
        if algorithm.startswith(start):
            return name, 0.0
    bits = _bits(raw)
    if bits in _BY_BITS:
        group = raw.get("group_size") or raw.get("q_group_size")
        whole = isinstance(group, int) and group > 0
        symmetric = bool(raw.get("sym", False)) and not raw.get("zero_point", False)
        each = _SCALE_BYTES + (0.0 if symmetric else _ZERO_POINT_BYTES)
        return _BY_BITS[bits], each / group if whole and isinstance(group, int) else 0.0
    config.reading.notes.append(f"quantisation {method or raw!r} is unknown; weights are taken as not quantised")
    return None, 0.0


def _block_scales(block: Any) -> float:
    """Bytes of scales an element has where every block of a matrix has one."""
    sized = isinstance(block, list) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)
    return _BLOCK_SCALE_BYTES / (block[0] * block[1]) if sized else 0.0


def _bits(raw: Mapping[str, Any]) -> int | None:
    """Width of a weight as the several methods write it."""
    if raw.get("load_in_4bit"):
        return 4
    if raw.get("load_in_8bit"):
        return 8
    found = raw.get("bits") or raw.get("w_bit") or raw.get("nbits") or raw.get("weight_bits")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _weights_entry(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The weights of the first group of compressed-tensors."""
    groups = raw.get("config_groups")
    if not isinstance(groups, Mapping):
        return None
    entries = [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
    return next((entry for entry in entries if isinstance(entry, Mapping)), None)


def _by_entry(weights: Mapping[str, Any]) -> tuple[str | None, float]:
    bits, kind, group = weights.get("num_bits"), weights.get("type", "int"), weights.get("group_size")
    if kind == "float":
        name = {8: "fp8", 4: "nvfp4" if group in (None, 16) else "mxfp4"}.get(bits if isinstance(bits, int) else 0)
        return name, 0.0
    each = _SCALE_BYTES + (0.0 if weights.get("symmetric", True) else _ZERO_POINT_BYTES)
    name = _BY_BITS.get(bits if isinstance(bits, int) else 0)
    return name, each / group if isinstance(group, int) and group > 0 else 0.0


def _expert_format(stated: Any, raw: Mapping[str, Any]) -> str | None:
    """DeepSeek-V4 names what its experts are in; with power-of-two scales that is mxfp4."""
    if stated is None:
        return None
    if str(stated).lower() in ("fp4", "float4"):
        return "mxfp4" if raw.get("scale_fmt") == "ue8m0" else "nvfp4"
    return parse_dtype(str(stated)).name


def _kv_format(raw: Mapping[str, Any]) -> str | None:
    scheme = raw.get("kv_cache_scheme")
    algorithm = raw.get("kv_cache_quant_algo") or raw.get("kv_cache_quant_method")
    if isinstance(scheme, Mapping):
        algorithm = (
            {"float": "fp8", "int": "int8"}.get(str(scheme.get("type"))) if scheme.get("num_bits") == 8 else None
        )
    try:
        return None if not algorithm else parse_dtype(str(algorithm)).name
    except SpecError:
        return None


def _exceptions(raw: Mapping[str, Any]) -> list[str]:
    """Patterns of modules that are not converted."""
    found: list[str] = []
    for name in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "llm_int8_skip_modules"):
        listed = raw.get(name)
        found += [str(one) for one in listed] if isinstance(listed, Sequence) and not isinstance(listed, str) else []
    return found


def _matches(module: str, patterns: Sequence[str]) -> bool:
    """Whether a module is meant by any of the patterns: an expression, a name with stars, or a part of its path."""
    for pattern in patterns:
        if pattern.startswith("re:"):
            if _found(pattern[3:], module):
                return True
        elif "*" in pattern:
            stars = ".*".join(re.escape(part) for part in pattern.split("*"))
            if re.match(f"(?:.*\\.)?{stars}(?:\\..*)?$", module):
                return True
        elif f".{pattern}." in f".{module}.":
            return True
    return False


def _found(expression: str, module: str) -> bool:
    try:
        return re.match(expression, module) is not None
    except re.error:
        return False
