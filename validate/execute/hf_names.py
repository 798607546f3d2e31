"""Where the tensors of a program are found in Hugging Face checkpoints, by family."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Names of one family of checkpoints.

    Parameters
    ----------
    layer : what the names of a layer's tensors begin with
    prefix : what all names begin with; some files leave it out
    weights : tensor of a program -> its copies in the file, those of a norm or a projection first the weight, then the bias
    packed : tensors in the file that hold q, k and v side by side
    is_transposed : matrices lie [out, in] (linear layers), else [in, out] (convolutions)
    n_unused_positions : rows at the head of the position table that no token uses
    ignored : ends of names that hold no weights
    """

    prefix: str
    layer: str
    weights: Mapping[str, tuple[str, ...]]
    packed: tuple[str, ...] = ()
    is_transposed: bool = True
    n_unused_positions: int = 0
    ignored: tuple[str, ...] = ()


_Q, _K, _V = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

FAMILIES = {
    # Llama, Mistral, Qwen2 (biases of q, k, v), Qwen3 (norms of q and k)
    "Llama": Family(
        prefix="model.",
        layer="layers.{}.",
        weights={
            "w_q": (f"{_Q}.weight",),
            "w_kv": (f"{_K}.weight", f"{_V}.weight"),
            "w_o": ("self_attn.o_proj.weight",),
            "w_in": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
            "w_out": ("mlp.down_proj.weight",),
            "norms": ("input_layernorm.weight", "post_attention_layernorm.weight"),
            "norms of q and k": ("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
            "bias of q": (f"{_Q}.bias",),
            "bias of kv": (f"{_K}.bias", f"{_V}.bias"),
            "embedding": ("embed_tokens.weight",),
            "unembedding": ("lm_head.weight",),
            "final norm": ("norm.weight",),
        },
        ignored=("rotary_emb.inv_freq",),
    ),
    "OPT": Family(
        prefix="model.decoder.",
        layer="layers.{}.",
        weights={
            "w_q": (f"{_Q}.weight",),
            "w_kv": (f"{_K}.weight", f"{_V}.weight"),
            "w_o": ("self_attn.out_proj.weight",),
            "w_in": ("fc1.weight",),
            "w_out": ("fc2.weight",),
            "norms": (
                "self_attn_layer_norm.weight", "self_attn_layer_norm.bias", "final_layer_norm.weight", "final_layer_norm.bias",
            ),
            "bias of q": (f"{_Q}.bias",),
            "bias of kv": (f"{_K}.bias", f"{_V}.bias"),
            "bias of o": ("self_attn.out_proj.bias",),
            "bias of w_in": ("fc1.bias",),
            "bias of w_out": ("fc2.bias",),
            "embedding": ("embed_tokens.weight",),
            "positions": ("embed_positions.weight",),
            "final norm": ("final_layer_norm.weight", "final_layer_norm.bias"),
        },
        n_unused_positions=2,
    ),
    "GPT-2": Family(
        prefix="transformer.",
        layer="h.{}.",
        weights={
            "w_q": ("attn.c_attn.weight",),
            "w_kv": ("attn.c_attn.weight", "attn.c_attn.weight"),
            "w_o": ("attn.c_proj.weight",),
            "w_in": ("mlp.c_fc.weight",),
            "w_out": ("mlp.c_proj.weight",),
            "norms": ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"),
            "bias of q": ("attn.c_attn.bias",),
            "bias of kv": ("attn.c_attn.bias", "attn.c_attn.bias"),
            "bias of o": ("attn.c_proj.bias",),
            "bias of w_in": ("mlp.c_fc.bias",),
            "bias of w_out": ("mlp.c_proj.bias",),
            "embedding": ("wte.weight",),
            "positions": ("wpe.weight",),
            "final norm": ("ln_f.weight", "ln_f.bias"),
        },
        packed=("attn.c_attn.weight", "attn.c_attn.bias"),
        is_transposed=False,
        ignored=("attn.bias", "attn.masked_bias"),
    ),
}  # fmt: skip

# Names that never have the prefix
BARE = ("lm_head.weight",)
