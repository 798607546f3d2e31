"""Which layers of a stack have experts, as the families write it."""

from typing import Any

from ...hardware_specs.errors import SpecError
from .config import Config
from .reach import refuse_kind

_SPARSE = ("sparse", "moe", "hash_moe")
_DENSE = ("dense", "mlp")


def sparse_layers(config: Config, n_layers: int) -> list[bool]:
    """For every layer whether its feed-forward part is a mixture of experts.

    The list by layers goes before the rules: the first ones dense, one of a period, those named as dense or sparse.

    Raises
    ------
    SpecError : a list that does not fit the stack, or a kind of layer nobody knows
    """
    kinds = config.items("mlp_layer_types")
    if kinds is not None:
        return _by_kind(config, kinds, n_layers)
    named = config.value("moe_layers") if config.has("moe_layers") else config.value("moe_layers_enum")
    if named is not None:
        chosen = set(_numbers(config, named))
        return [i in chosen for i in range(n_layers)]
    first = config.optional("n_dense_first", least=0) or 0
    only_dense = set(_numbers(config, config.value("mlp_only_layers") or []))
    by_rule = _by_period(config, n_layers)
    return [i >= first and i not in only_dense and by_rule[i] for i in range(n_layers)]


def _by_kind(config: Config, kinds: list[Any], n_layers: int) -> list[bool]:
    if len(kinds) < n_layers:
        raise SpecError(f"{config.name}: mlp_layer_types names {len(kinds)} layers, num_hidden_layers={n_layers}")
    if unknown := next((kind for kind in kinds if kind not in _SPARSE + _DENSE), None):
        raise refuse_kind(config, str(unknown), _SPARSE + _DENSE, word="mlp_layer_types")
    return [kind in _SPARSE for kind in kinds[:n_layers]]


def _by_period(config: Config, n_layers: int) -> list[bool]:
    frequency = config.value("moe_layer_freq")
    if isinstance(frequency, list):
        if len(frequency) < n_layers:
            raise SpecError(f"{config.name}: moe_layer_freq has {len(frequency)} entries, num_hidden_layers={n_layers}")
        return [bool(one) for one in frequency[:n_layers]]
    period = config.optional("moe_layer_freq") or 1
    step = config.optional("decoder_sparse_step") or config.optional("interleave_moe_layer_step") or 1
    interval = config.optional("moe_layer_interval") or 1
    return [i % period == 0 and (i + 1) % step == 0 and (i + 1) % interval == 0 for i in range(n_layers)]


def _numbers(config: Config, named: Any) -> list[int]:
    """Places of layers, as a list or as text with commas between them."""
    items = named.split(",") if isinstance(named, str) else named
    try:
        return [int(item) for item in items if str(item).strip()]
    except (TypeError, ValueError):
        raise SpecError(f"{config.name}: {named!r} must be a list of layer numbers") from None
