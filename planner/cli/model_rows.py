"""Models as rows of a table and in full, for `show`."""

from typing import Any

from ...hardware_specs.dtypes import parse_dtype
from ...models.blocks import Mixer
from ...models.description import Model
from ...models.mixers.attention import AttentionMixer
from ...models.params import kv_bytes_per_token, n_params, n_params_active, state_bytes_per_sequence

Row = dict[str, Any]

# Fields of the one kind of block of a plain model, which say nothing of one with a stack.
_OF_THE_PLAIN_BLOCK = {"d_ff", "n_heads", "n_kv_heads", "d_head", "gated", "activation", "qk_norm"}
# Keys, values and the tails of convolutions in bf16.
_CACHED_BYTES = 2.0


def model_row(model: Model) -> Row:
    """One line of the list."""
    mixers = [block.mixer for block in model.kinds.values() if block.mixer is not None]
    return {
        "model": model.name,
        "parameters": f"{n_params(model) / 1e9:.4g}e9",
        "active": f"{n_params_active(model) / 1e9:.4g}e9",
        "layers": model.n_layers,
        "KV B/token": f"{kv_bytes_per_token(model, _CACHED_BYTES):,.0f}",
        "mixers": ", ".join(dict.fromkeys(_mixer(mixer) for mixer in mixers)),
    }


def model_in_full(model: Model) -> Row:
    """What its file says, and what is counted from it."""
    silent = _OF_THE_PLAIN_BLOCK if model.stack else {"blocks", "stack"}
    return model.model_dump(mode="json", exclude=silent, exclude_none=True) | {
        "n_params": n_params(model),
        "n_params_active": n_params_active(model),
        "kv_bytes_per_token": kv_bytes_per_token(model, _CACHED_BYTES),
        "kv_bytes_per_token_beyond_windows": kv_bytes_per_token(model, _CACHED_BYTES, past_tokens=float("inf")),
        "state_bytes_per_sequence": _state_bytes(model),
    }


def _state_bytes(model: Model) -> float:
    state = parse_dtype(model.state_dtype).bytes_per_element
    return state_bytes_per_sequence(model, state_bytes=state, conv_bytes=_CACHED_BYTES)


def _mixer(mixer: Mixer) -> str:
    """Query and K/V heads of attention, and its reach; the kind of any other."""
    if not isinstance(mixer, AttentionMixer):
        return mixer.kind
    reach = "" if mixer.reach is None else f" {mixer.reach.pattern} {mixer.reach.size}"
    return f"{mixer.n_heads}/{mixer.n_kv_heads}{reach}"
