"""What fields of a config file seem to say and do not."""

from pathlib import Path
from typing import Any

import pytest
from shardwise.models.description import Model
from shardwise.models.hf.reader import Imported, import_model
from shardwise.models.mixers.attention import AttentionMixer
from shardwise.models.params import kv_bytes_per_token, n_params
from shardwise.tests.models.hf.reading import LATENT, LLAMA, MISTRAL, MIXTRAL, read


def _attentions(model: Model) -> list[AttentionMixer]:
    return [model.kinds[kind].mixer for kind in model.layers]


def _windows(found: Imported) -> list[int | None]:
    return [None if mixer.reach is None else mixer.reach.size for mixer in _attentions(found.model)]


@pytest.mark.parametrize(
    ("fields", "kv_heads"),
    [
        pytest.param({"num_kv_heads": 8}, 1, id="falcon-7b says as many as query heads, and has one"),
        pytest.param({"num_kv_heads": 2, "new_decoder_architecture": True}, 2, id="the newer one means it"),
        pytest.param({"num_kv_heads": 2, "multi_query": False}, 8, id="without multi-query each head has its own"),
    ],
)
def test_falcon_means_its_kv_heads_in_the_newer_architecture_alone(fields: dict[str, Any], kv_heads: int) -> None:
    config = {
        "model_type": "falcon",
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "vocab_size": 99,
    }
    assert read(config | fields).model.n_kv_heads == kv_heads


def test_latent_caches_ignore_the_kv_heads_and_the_head_dim() -> None:
    # 4 layers of 64 + 16 elements in bf16, whatever else the file says
    for heads, width in ((8, None), (1, 16), (128, 192)):
        found = read(LATENT, num_key_value_heads=heads, head_dim=width)
        assert found.kv_bytes_per_token == 4 * (64 + 16) * 2


def test_an_indexer_is_beside_the_cache() -> None:
    indexed = {"model_type": "deepseek_v32", "index_n_heads": 4, "index_head_dim": 32, "index_topk": 128}
    found = read(LATENT | indexed)
    assert found.kv_bytes_per_token == read(LATENT).kv_bytes_per_token
    assert kv_bytes_per_token(found.model, 2.0) == found.kv_bytes_per_token + 4 * 32 * 2
    assert any("256 B a token" in note for note in found.notes)


def test_a_window_that_is_switched_off_is_none() -> None:
    qwen = LLAMA | {"model_type": "qwen2", "sliding_window": 1024, "max_window_layers": 4}
    assert _windows(read(qwen, use_sliding_window=False)) == [None] * 4
    assert _windows(read(qwen)) == [None] * 4
    assert _windows(read(qwen, use_sliding_window=True, max_window_layers=2)) == [None, None, 1024, 1024]
    # saved by version 5: a window that is off is 0
    assert _windows(read(qwen, sliding_window=0, use_sliding_window=False)) == [None] * 4


def test_a_window_of_null_is_none_and_an_absent_one_is_that_of_the_class() -> None:
    assert _windows(read(MISTRAL, sliding_window=512)) == [512] * 4
    assert _windows(read(MISTRAL)) == [None] * 4
    absent = {key: value for key, value in MISTRAL.items() if key != "sliding_window"}
    found = read(absent, max_position_embeddings=32768)
    assert _windows(found) == [4096] * 4
    assert any("sliding_window=4096" in note for note in found.notes)


def test_a_window_as_long_as_the_context_is_none() -> None:
    phi = LLAMA | {"model_type": "phi3", "sliding_window": 4096}
    assert _windows(read(phi)) == [None] * 4


def test_layer_types_go_before_every_pattern() -> None:
    types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    gemma = LLAMA | {"model_type": "gemma2", "head_dim": 32, "sliding_window": 256}
    assert _windows(read(gemma)) == [256, None, 256, None]
    assert _windows(read(gemma, layer_types=types)) == [None, 256, 256, None]
    cohere = LLAMA | {"model_type": "cohere2", "sliding_window": 256}
    assert _windows(read(cohere)) == [256, 256, 256, None]


def test_text_models_in_others_take_what_is_absent_from_their_class() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 256, "num_hidden_layers": 8}
    found = read({"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"})
    assert found.model.vocab_size == 262208
    assert found.model.max_context == 131072
    # 8 query heads, 4 key-value heads of 256; five of six layers see 4096 tokens
    assert _windows(found) == [4096] * 5 + [None] + [4096] * 2
    assert [(m.n_heads, m.n_kv_heads, m.d_head) for m in _attentions(found.model)] == [(8, 4, 256)] * 8
    assert any("text_config.vocab_size=262208" in note for note in found.notes)


def test_what_is_absent_from_a_file_of_its_own_is_missing() -> None:
    with pytest.raises(ValueError, match="fields of a llama are missing: hidden_size, vocab_size"):
        read({key: value for key, value in LLAMA.items() if key not in ("hidden_size", "vocab_size")}, head_dim=32)


@pytest.mark.parametrize(
    ("model_type", "tied"),
    [("llama", False), ("qwen2", False), ("mistral", False), ("gemma", True), ("cohere", True), ("phi3", False)],
)
def test_absent_ties_depend_on_the_family(model_type: str, tied: bool) -> None:
    assert read(LLAMA | {"model_type": model_type, "head_dim": 32}).model.tied_embeddings is tied
    assert (
        read(LLAMA | {"model_type": model_type, "head_dim": 32}, tie_word_embeddings=not tied).model.tied_embeddings
        is not tied
    )


def test_the_outer_tie_goes_before_the_inner_one() -> None:
    text = LLAMA | {"tie_word_embeddings": True}
    assert not read({"model_type": "llava", "tie_word_embeddings": False, "text_config": text}).model.tied_embeddings


def test_layers_of_gemma_4_that_see_everything_have_heads_of_their_own() -> None:
    text = LLAMA | {
        "model_type": "gemma4_text", "num_hidden_layers": 6, "head_dim": 32, "global_head_dim": 64, "attention_k_eq_v": True,
        "num_global_key_value_heads": 1, "hidden_size_per_layer_input": 0, "sliding_window": 128,
    }  # fmt: skip
    local, *_, whole = _attentions(read(text).model)
    assert (local.n_kv_heads, local.d_head, local.value_is_key) == (2, 32, False)
    assert (whole.n_kv_heads, whole.d_head, whole.value_is_key) == (1, 64, True)
    # keys are normed and rotated, values are not: both are cached
    assert read(text).kv_bytes_per_token == 2 * (5 * 2 * 2 * 32 + 2 * 1 * 64)


def test_layers_that_read_the_keys_of_others_cache_none() -> None:
    text = LLAMA | {"model_type": "gemma4_text", "num_hidden_layers": 12, "head_dim": 32, "global_head_dim": 32}
    alone = read(text, hidden_size_per_layer_input=0)
    shared = read(text, hidden_size_per_layer_input=0, num_kv_shared_layers=6)
    assert shared.kv_bytes_per_token == alone.kv_bytes_per_token / 2


def test_rotary_scaling_says_how_far_positions_reach() -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    for word in ("rope_scaling", "rope_parameters"):
        assert read(LLAMA, max_position_embeddings=32768, **{word: yarn}).model.max_context == 131072
    assert read(LLAMA, max_position_embeddings=131072, rope_scaling=yarn).model.max_context == 131072
    llama3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    assert read(LLAMA, max_position_embeddings=131072, rope_scaling=llama3).model.max_context == 131072
    by_layer = {"full_attention": {"rope_type": "yarn", "factor": 2.0}, "sliding_attention": {"rope_type": "default"}}
    assert read(LLAMA, rope_parameters=by_layer).model.max_context == 4096
    assert read(LLAMA, rope_scaling={"type": "linear", "factor": 8.0}).model.max_context == 16384


def test_prediction_heads_are_left_out_of_every_count() -> None:
    found = read(LATENT, num_nextn_predict_layers=1)
    assert n_params(found.model) == n_params(read(LATENT).model)
    assert any("multi-token-prediction" in note for note in found.notes)


def test_files_of_versions_4_and_5_say_the_same() -> None:
    old = read(LLAMA, rope_theta=10000.0, rope_scaling=None)
    v5 = {key: value for key, value in LLAMA.items() if key != "torch_dtype"} | {"dtype": "bfloat16"}
    new = read(v5, rope_parameters={"rope_theta": 10000.0, "rope_type": "default"})
    assert new.model == old.model
    assert not new.unknown_fields


def test_an_intermediate_size_of_null_is_four_times_the_width() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_inner": None}
    assert read(gpt2).model.d_ff == 256


def test_the_layers_of_an_architecture_search_differ() -> None:
    nothing = {"attention": {"no_op": True, "n_heads_in_group": None}, "ffn": {"no_op": False, "ffn_mult": 1.0}}
    plain = {"attention": {"no_op": False, "n_heads_in_group": 4}, "ffn": {"no_op": False, "ffn_mult": 2.625}}
    nas = {key: value for key, value in LLAMA.items() if key != "intermediate_size"} | {
        "model_type": "nemotron-nas", "num_key_value_heads": None, "block_configs": [plain, nothing, plain, plain],
    }  # fmt: skip
    model = read(nas).model
    first, second = model.kinds[model.layers[0]], model.kinds[model.layers[1]]
    assert first.mixer.n_kv_heads == 2
    # two thirds of 2.625 times twice the width of 256 are 448, rounded up to 512
    assert (first.ffn.d_ff, second.ffn.d_ff) == (512, 256)
    assert second.mixer is None
    assert second.n_norms == 1
    assert read(nas).kv_bytes_per_token == 3 * 2 * 2 * 32 * 2


def test_unknown_fields_are_named_wherever_they_stand() -> None:
    found = read(LLAMA, frobnicate=3, attention_dropout=0.0, transformers_version="5.0")
    assert found.unknown_fields == ("frobnicate",)
    inner = read({"model_type": "llava", "grommet": 1, "text_config": LLAMA | {"frobnicate": False}})
    assert inner.unknown_fields == ("grommet", "text_config.frobnicate")
    assert n_params(found.model) == n_params(read(LLAMA).model)


def test_experts_are_named_and_counted_by_any_of_their_names() -> None:
    usual = read(MIXTRAL)
    fields = {key: value for key, value in MIXTRAL.items() if not key.startswith("num_experts") and "local" not in key}
    for experts, per_token in (("num_experts", "experts_per_token"), ("n_routed_experts", "moe_top_k")):
        other = read(fields | {experts: 8, per_token: 2})
        assert (n_params(other.model), other.n_params_active) == (n_params(usual.model), usual.n_params_active)


VECTORS = [
    ("Qwen--Qwen3-30B-A3B", 98304, 0),
    ("deepseek-ai--DeepSeek-V3", 61 * (512 + 64) * 2, 0),
    # fp32 convolution tails and states: 122,880 + 3,145,728 B a layer, four sequences are 598.50 MiB
    ("Qwen--Qwen3.5-27B", 65536, 48 * (122_880 + 3_145_728)),
    ("tiiuae--falcon-7b", 32 * 2 * 64 * 2, 0),
    ("openai--gpt-oss-120b", 36 * 2 * 8 * 64 * 2, 0),
]


@pytest.mark.parametrize(("name", "kv_bytes", "state_bytes"), VECTORS, ids=[row[0] for row in VECTORS])
def test_caches_and_states_are_those_of_engines(shared_dir: Path, name: str, kv_bytes: int, state_bytes: int) -> None:
    found = import_model(str(shared_dir / "hf_configs" / f"{name}.json"))
    assert (found.kv_bytes_per_token, found.state_bytes_per_seq) == (kv_bytes, state_bytes)


def test_latent_caches_of_glm_5_in_fp8_are_those_published() -> None:
    glm = LATENT | {
        "model_type": "glm_moe_dsa", "num_hidden_layers": 78, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "head_dim": 64,
        "index_topk": 2048, "first_k_dense_replace": 3,
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    }  # fmt: skip
    assert read(glm).kv_bytes_per_token == 44_928
