"""What configuration classes have where a file leaves a field out: sizes of text models inside others, and what is no size."""

from typing import Any

_GEMMA3_TEXT = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
_GEMMA4_TEXT = _GEMMA3_TEXT | {
    "vocab_size": 262144,
    "num_hidden_layers": 30,
    "sliding_window": 512,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "global_head_dim": 512,
}
_GEMMA3N_TEXT = {
    "vocab_size": 262400,
    "hidden_size": 2048,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "intermediate_size": 16384,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "altup_num_inputs": 4,
    "num_kv_shared_layers": 15,
    "laurel_rank": 64,
}
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_MISTRAL = _LLAMA | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
_QWEN2 = _LLAMA | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}
_QWEN2_VL = _QWEN2 | {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
_GEMMA = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 8192,
}
_LLAMA4 = {
    "vocab_size": 202048,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "attention_chunk_size": 8192,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
}

# A file that stands by itself holds its sizes; one text model inside another holds only those its class does not.
NESTED: dict[str, dict[str, Any]] = {
    "gemma3_text": _GEMMA3_TEXT,
    "gemma3n_text": _GEMMA3N_TEXT,
    "gemma4_text": _GEMMA4_TEXT,
    "gemma": _GEMMA,
    "gemma2": _GEMMA
    | {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
    },
    "llama": _LLAMA,
    "llama4_text": _LLAMA4,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen2_vl_text": _QWEN2_VL,
    "qwen2_5_vl_text": _QWEN2_VL,
}

# What is no size, or what files that stand by themselves leave out all the same.
ANYWHERE: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256, "sliding_window": 4096, "max_position_embeddings": 8192},
    "gemma3_text": {"head_dim": 256, "vocab_size": 262208, "max_position_embeddings": 131072, "sliding_window": 4096},
    "gemma4_text": {key: _GEMMA4_TEXT[key] for key in ("vocab_size_per_layer_input", "hidden_size_per_layer_input")}
    | {"global_head_dim": 512, "head_dim": 256, "sliding_window": 512, "max_position_embeddings": 131072},
    "gemma3n_text": _GEMMA3N_TEXT,
    "qwen3": {"head_dim": 128},
    "glm4_moe_lite": {"first_k_dense_replace": 1},
    "kimi_linear": {"first_k_dense_replace": 1},
    "qwen3_next": {"head_dim": 256},
    "nemotron_h": {"head_dim": 128, "ssm_state_size": 128, "n_groups": 8},
    "step3p5": {"first_k_dense_replace": 3},
    "mistral": {"sliding_window": 4096},
    "llama4_text": {"head_dim": 128, "attention_chunk_size": 8192, "intermediate_size_mlp": 16384},
    "falcon": {"max_position_embeddings": 2048},
    "gpt2": {"n_positions": 1024},
    "gpt_bigcode": {"n_positions": 1024},
    "gptj": {"n_positions": 2048},
    "codegen": {"n_positions": 2048},
    "gpt_neo": {"max_position_embeddings": 2048, "window_size": 256},
    "gpt_neox": {"max_position_embeddings": 2048},
    "gpt_oss": {"sliding_window": 128, "head_dim": 64},
    "opt": {"max_position_embeddings": 2048},
    "phi": {"max_position_embeddings": 2048},
    "mpt": {"max_seq_len": 2048},
    "dbrx": {"max_seq_len": 2048},
    "glm_moe_dsa": {"index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048},
    "bert": {"max_position_embeddings": 512, "type_vocab_size": 2},
    "bart": {"max_position_embeddings": 1024},
}


def defaults_of(model_type: str, *, nested: bool) -> dict[str, Any]:
    """Fields and what they are where a file of this family leaves them out."""
    return ANYWHERE.get(model_type, {}) | (NESTED.get(model_type, {}) if nested else {})
