"""Bytes that a token and a sequence leave behind, against figures others publish."""

import pytest
from shardwise.models.catalogue import get_model
from shardwise.models.params import (
    index_elements_per_token,
    kv_bytes_per_token,
    n_params,
    state_bytes_per_sequence,
)

GIB = 2.0**30
LONG = 2**18  # "256K" tokens


@pytest.mark.parametrize(
    ("name", "bytes_per_element", "expected"),
    [
        # Pope et al. 2022: 2 * 118 layers * 1 head * 256 * 2 bytes.
        pytest.param("palm-540b", 2.0, 120_832, id="palm-540b"),
        # Kwon et al. 2023 (vLLM), section 3: "800KB (2 x 5120 x 40 x 2)" a token.
        pytest.param("opt-13b", 2.0, 800 * 1024, id="opt-13b"),
        # DeepSeek-AI 2025, "Insights into DeepSeek-V3", table 1: 70.272, 327.680 and 516.096 KB a token.
        pytest.param("deepseek-v3", 2.0, 70_272, id="deepseek-v3"),
        pytest.param("qwen2.5-72b", 2.0, 327_680, id="qwen2.5-72b"),
        pytest.param("llama-3.1-405b", 2.0, 516_096, id="llama-3.1-405b"),
        # 2 * 80 layers * 8 heads * 128 * 2 bytes = 320 KiB, as in many accounts of Llama 3 70B.
        pytest.param("llama-3.1-70b", 2.0, 327_680, id="llama-3.1-70b"),
        pytest.param("llama-3.1-70b", 1.0, 163_840, id="llama-3.1-70b-fp8"),
        # llama.cpp on Qwen3.6-27B: 16384.00 MiB at 262,144 tokens (lmstudio-ai/lmstudio-bug-tracker#1862).
        pytest.param("qwen3.5-27b", 2.0, 65_536, id="qwen3.5-27b"),
        pytest.param("qwen3.6-27b", 2.0, 65_536, id="qwen3.6-27b"),
        # vllm-project/vllm#34076: 24.0 GiB at 262,144 tokens.
        pytest.param("qwen3-30b-a3b", 2.0, 98_304, id="qwen3-30b-a3b"),
    ],
)
def test_cache_bytes_of_a_token(name: str, bytes_per_element: float, expected: float) -> None:
    assert kv_bytes_per_token(get_model(name), bytes_per_element) == expected


@pytest.mark.parametrize(
    ("name", "published_gib"),
    [
        # Lieber et al. 2024 (Jamba), table 1: 16-bit cache of 256K tokens. Its Mistral is counted without a window.
        pytest.param("llama-2-7b", 128, id="llama-2-7b"),
        pytest.param("mistral-7b", 32, id="mistral-7b"),
        pytest.param("mixtral-8x7b", 32, id="mixtral-8x7b"),
        pytest.param("jamba-1.5-mini", 4, id="jamba-1.5-mini"),
        # Jamba team 2024 (Jamba-1.5), table 1, the same.
        pytest.param("llama-3.1-8b", 32, id="llama-3.1-8b"),
        pytest.param("mixtral-8x22b", 56, id="mixtral-8x22b"),
        pytest.param("llama-3.1-70b", 80, id="llama-3.1-70b"),
        pytest.param("mistral-large-123b", 88, id="mistral-large-123b"),
        pytest.param("jamba-1.5-large", 9, id="jamba-1.5-large"),
    ],
)
def test_cache_of_a_long_context(name: str, published_gib: float) -> None:
    assert kv_bytes_per_token(get_model(name), 2.0) * LONG == published_gib * GIB


@pytest.mark.parametrize(
    ("name", "published_elements"),
    [
        # DeepSeek-AI 2024 (DeepSeek-V2), table 9: 34.6K and 15.6K elements a token, against 860.2K and 110.6K with MHA.
        pytest.param("deepseek-v2", 34_560, id="deepseek-v2"),
        pytest.param("deepseek-v2-lite", 15_552, id="deepseek-v2-lite"),
    ],
)
def test_elements_of_a_latent_cache(name: str, published_elements: int) -> None:
    assert kv_bytes_per_token(get_model(name), 1.0) == published_elements


def test_the_latent_of_glm_5_without_its_indexer() -> None:
    # inference-sim/inference-sim#1709, quoting llm-d: 44,928 B a token in fp8, 78 * (512 + 64).
    model = get_model("glm-5")
    indexed = sum(n * index_elements_per_token(model.kinds[kind]) for kind, n in model.n_layers_of.items())
    assert kv_bytes_per_token(model, 1.0) - indexed == 44_928


def test_the_cache_of_a_batch_on_opt_175b() -> None:
    # Sheng et al. 2023 (FlexGen), section 3: batch 512, 512 tokens in and 32 out take 1.2 TB of cache.
    assert kv_bytes_per_token(get_model("opt-175b"), 2.0) * 512 * (512 + 32) / 2.0**40 == pytest.approx(1.2, abs=0.05)


def test_the_states_of_gated_deltanet() -> None:
    # lmstudio-ai/lmstudio-bug-tracker#1862: 598.50 MiB for 4 sequences of Qwen3.6-27B, convolutions in fp32 too.
    model = get_model("qwen3.6-27b")
    assert 4 * state_bytes_per_sequence(model, state_bytes=4.0, conv_bytes=4.0) == 598.5 * 2**20


def test_the_states_of_rwkv() -> None:
    # BlinkDL/RWKV-LM: 5 numbers a channel and layer.
    assert state_bytes_per_sequence(get_model("rwkv-4-7b"), state_bytes=4.0, conv_bytes=0.0) == 5 * 32 * 4096 * 4


@pytest.mark.parametrize("name", ["mamba-2.8b", "codestral-mamba-7b", "rwkv-4-14b", "linear-transformer-cifar10"])
def test_recurrent_models_keep_a_state_and_no_cache(name: str) -> None:
    model = get_model(name)
    assert kv_bytes_per_token(model, 2.0) == 0
    assert 0 < state_bytes_per_sequence(model, state_bytes=4.0, conv_bytes=2.0) < n_params(model)


@pytest.mark.parametrize(
    ("name", "window", "layers_that_go_on"),
    [
        pytest.param("mistral-7b-v0.1", 4096, 0, id="mistral-7b-v0.1"),
        pytest.param("gemma-2-9b", 4096, 21, id="gemma-2-9b"),
        pytest.param("gemma-3-27b", 1024, 10, id="gemma-3-27b"),
        pytest.param("gpt-oss-120b", 128, 18, id="gpt-oss-120b"),
        pytest.param("llama-4-scout", 8192, 12, id="llama-4-scout"),
    ],
)
def test_layers_with_a_window_take_no_more_once_it_is_full(name: str, window: int, layers_that_go_on: int) -> None:
    model = get_model(name)
    first, last, beyond = (kv_bytes_per_token(model, 2.0, past_tokens=n) for n in (0, window - 1, window))
    assert first == last
    assert beyond == first * layers_that_go_on / model.n_layers
