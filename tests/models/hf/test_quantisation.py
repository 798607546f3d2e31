"""Formats of checkpoints: what is converted, what is kept, and the bytes that makes."""

from pathlib import Path
from typing import Any

import pytest
from shardwise.models.hf.reader import import_model
from shardwise.models.params import n_params
from shardwise.models.weights import params_by_part
from shardwise.tests.models.hf.reading import LATENT, LLAMA, MIXTRAL, read

_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
_INT4_EXPERTS = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True}}},
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
}


@pytest.mark.parametrize(
    ("quantised", "weights", "embedding"),
    [
        pytest.param(None, "bf16", None, id="none"),
        pytest.param({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "bf16", id="fp8"),
        pytest.param(_GPTQ, "int4", "bf16", id="gptq"),
        pytest.param(_AWQ, "int4", "bf16", id="awq"),
        pytest.param({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", "bf16", id="int8"),
        pytest.param({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "bf16", id="nvfp4"),
        pytest.param({"quant_method": "fbgemm_fp8"}, "fp8", "bf16", id="fbgemm"),
    ],
)
def test_methods_name_a_format(quantised: dict[str, Any] | None, weights: str, embedding: str | None) -> None:
    model = read(LLAMA, quantization_config=quantised).model
    assert (model.weights_dtype, model.embedding_dtype, model.mixer_dtype) == (weights, embedding, None)


def test_the_element_type_is_that_of_what_is_not_converted() -> None:
    assert read(LLAMA, torch_dtype="float16").model.weights_dtype == "fp16"
    found = read({key: value for key, value in LLAMA.items() if key != "torch_dtype"})
    assert found.model.weights_dtype == "bf16"
    assert "the file gives no dtype; bf16 is taken" in found.notes
    # an fp8 checkpoint keeps torch_dtype bfloat16
    assert read(LLAMA, quantization_config={"quant_method": "fp8"}).kv_dtype == "bf16"


def test_modules_that_are_not_converted_keep_their_format() -> None:
    kept = {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"], "quant_method": "mxfp4"}
    model = read(MIXTRAL, quantization_config=kept).model
    assert (model.weights_dtype, model.expert_dtype, model.embedding_dtype) == ("bf16", "mxfp4", None)
    attention = {"quant_method": "fp8", "ignored_layers": ["self_attn"]}
    model = read(LLAMA, quantization_config=attention).model
    assert (model.weights_dtype, model.mixer_dtype, model.embedding_dtype) == ("fp8", "bf16", "bf16")


def test_experts_alone_are_converted_where_all_else_is_named() -> None:
    found = read(LATENT, quantization_config=_INT4_EXPERTS)
    assert (found.model.weights_dtype, found.model.expert_dtype) == ("bf16", "int4")
    parts = params_by_part(found.model)
    # half a byte, and a scale of two bytes for 32 of them
    assert found.weight_bytes == parts.experts * (0.5 + 2 / 32) + (n_params(found.model) - parts.experts) * 2


def test_scales_are_weighed_with_what_they_scale() -> None:
    model = read(LLAMA).model
    parts = params_by_part(model)
    inside, rest = parts.mixers + parts.feed_forward, parts.rest * 2
    assert read(LLAMA, quantization_config=_GPTQ).weight_bytes == pytest.approx(inside * (0.5 + 2 / 128) + rest)
    assert read(LLAMA, quantization_config=_AWQ).weight_bytes == pytest.approx(inside * (0.5 + 2.5 / 128) + rest)
    blocks = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert read(LLAMA, quantization_config=blocks).weight_bytes == pytest.approx(inside * (1 + 4 / 128**2) + rest)


def test_the_file_modelopt_puts_beside_is_read() -> None:
    beside = {
        "quantization": {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "exclude_modules": ["lm_head", "*self_attn*"],
        }
    }
    found = read(LATENT, quantised=beside)
    assert (found.model.weights_dtype, found.model.mixer_dtype) == ("nvfp4", "bf16")
    assert found.kv_dtype == "fp8"
    assert found.kv_bytes_per_token == read(LATENT).kv_bytes_per_token / 2


def test_a_scheme_for_the_cache_is_read() -> None:
    scheme = {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    assert read(LLAMA, quantization_config=scheme).kv_dtype == "fp8"


def test_experts_may_have_a_format_of_their_own() -> None:
    mixed = {"expert_dtype": "fp4", "quantization_config": {"quant_method": "fp8", "scale_fmt": "ue8m0"}}
    model = read(LATENT | mixed).model
    assert (model.weights_dtype, model.expert_dtype) == ("fp8", "mxfp4")


def test_an_unknown_method_is_said_and_converts_nothing() -> None:
    found = read(LLAMA, quantization_config={"quant_method": "sorcery"})
    assert found.model.weights_dtype == "bf16"
    assert any("sorcery" in note for note in found.notes)


# Bytes of the published checkpoints: 65,248,815,744 and 13,761,264,768 are the total_size of their indices.
@pytest.mark.parametrize(
    ("name", "stored"), [("openai--gpt-oss-120b", 65_248_815_744), ("openai--gpt-oss-20b", 13_761_264_768)]
)
def test_gpt_oss_weighs_what_its_checkpoint_does(shared_dir: Path, name: str, stored: int) -> None:
    assert import_model(str(shared_dir / "hf_configs" / f"{name}.json")).weight_bytes == stored
