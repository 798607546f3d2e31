"""Configs as tests write them."""

from typing import Any

from shardwise.models.hf.reader import Imported, import_fields
from shardwise.models.hf.sources import Source

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": None}
LATENT: dict[str, Any] = LLAMA | {
    "model_type": "deepseek_v3",
    "num_key_value_heads": 8,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 128,
    "first_k_dense_replace": 1,
}


def read(
    fields: dict[str, Any], *, name: str = "model", quantised: dict[str, Any] | None = None, **changed: Any
) -> Imported:
    """Import a config of a name with no size in it, with some fields changed."""
    return import_fields(Source(name=name, fields=fields | changed, quantised=quantised or {}))
