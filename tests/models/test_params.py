"""Parameter counts against published ones, to the digit where they are published so."""

import json
import re
from pathlib import Path

import pytest
from shardwise.models.catalogue import get_model, load_models
from shardwise.models.description import Model
from shardwise.models.params import (
    embedding_params,
    ffn_params,
    mixer_params,
    n_params,
    n_params_active,
)
from shardwise.tests.strategies import plain_block

EXACT = [
    # Model cards of BigScience.
    pytest.param("bloom-176b", 176_247_271_424, id="bloom-176b"),
    pytest.param("bloom-7b1", 7_069_016_064, id="bloom-7b1"),
    # Model card of EleutherAI/gpt-j-6b says 6_053_381_344: it counts 7 more copies of norms and output biases and
    # 8 of a bias on the embedding, one copy for each of its 8 training shards.
    pytest.param("gpt-j-6b", 6_053_381_344 - (28 * 3 + 2) * 7 * 4096 - 8 * 4096, id="gpt-j-6b"),
    # Parameters as Hugging Face counts them, of the repository named in each file.
    pytest.param("gpt2", 124_439_808, id="gpt2"),
    pytest.param("gpt-neox-20b", 20_554_567_680, id="gpt-neox-20b"),
    pytest.param("mpt-7b", 6_649_286_656, id="mpt-7b"),
    pytest.param("falcon-7b", 6_921_720_704, id="falcon-7b"),
    pytest.param("falcon-180b", 179_522_565_120, id="falcon-180b"),
    pytest.param("llama-7b", 6_738_415_616, id="llama-7b"),
    pytest.param("llama-65b", 65_285_660_672, id="llama-65b"),
    pytest.param("llama-2-7b", 6_738_415_616, id="llama-2-7b"),
    pytest.param("llama-2-13b", 13_015_864_320, id="llama-2-13b"),
    pytest.param("llama-2-70b", 68_976_648_192, id="llama-2-70b"),
    pytest.param("llama-3-8b", 8_030_261_248, id="llama-3-8b"),
    pytest.param("llama-3-70b", 70_553_706_496, id="llama-3-70b"),
    pytest.param("llama-3.1-8b", 8_030_261_248, id="llama-3.1-8b"),
    pytest.param("llama-3.1-70b", 70_553_706_496, id="llama-3.1-70b"),
    pytest.param("llama-3.1-405b", 405_853_388_800, id="llama-3.1-405b"),
    pytest.param("mistral-7b", 7_241_732_096, id="mistral-7b"),
    pytest.param("qwen1.5-7b", 7_721_324_544, id="qwen1.5-7b"),
    pytest.param("qwen2-7b", 7_615_616_512, id="qwen2-7b"),
    pytest.param("qwen2-72b", 72_706_203_648, id="qwen2-72b"),
    pytest.param("qwen3-8b", 8_190_735_360, id="qwen3-8b"),
    pytest.param("qwen3-32b", 32_762_123_264, id="qwen3-32b"),
]

# Hugging Face repositories whose counts the reference data has.
COUNTED_REPOSITORIES = [
    "CohereLabs--c4ai-command-r-v01",
    "EleutherAI--gpt-neox-20b",
    "Qwen--Qwen2-7B",
    "Qwen--Qwen2.5-0.5B",
    "Qwen--Qwen3-235B-A22B",
    "Qwen--Qwen3-30B-A3B",
    "Qwen--Qwen3-32B",
    "Qwen--Qwen3-32B-FP8",
    "Qwen--Qwen3-8B",
    "Qwen--Qwen3.5-27B",
    "RWKV--rwkv-4-7b-pile",
    "ai21labs--AI21-Jamba-1.5-Mini",
    "bigscience--bloom",
    "deepseek-ai--DeepSeek-R1",
    "deepseek-ai--DeepSeek-V2",
    "deepseek-ai--DeepSeek-V3",
    "deepseek-ai--DeepSeek-V3.2",
    "deepseek-ai--DeepSeek-V4-Flash",
    "google-t5--t5-11b",
    "google-t5--t5-small",
    "google--gemma-2-9b",
    "google--gemma-3-1b-it",
    "google--gemma-3-27b-it",
    "google--gemma-7b",
    "meta-llama--Llama-2-7b-hf",
    "meta-llama--Llama-3.2-1B",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct",
    "meta-llama--Meta-Llama-3-70B",
    "meta-llama--Meta-Llama-3.1-405B",
    "meta-llama--Meta-Llama-3.1-70B",
    "meta-llama--Meta-Llama-3.1-8B",
    "microsoft--Phi-3-mini-128k-instruct",
    "mistralai--Mistral-7B-Instruct-v0.2",
    "mistralai--Mistral-7B-v0.1",
    "mistralai--Mixtral-8x7B-v0.1",
    "moonshotai--Kimi-K2-Instruct",
    "mosaicml--mpt-7b",
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "openai--gpt-oss-120b",
    "openai--gpt-oss-20b",
    "openai-community--gpt2",
    "state-spaces--mamba-2.8b-hf",
    "tiiuae--falcon-7b",
]


@pytest.mark.parametrize(("name", "expected"), EXACT)
def test_count_equals_the_published_one_to_the_digit(name: str, expected: int) -> None:
    assert n_params(get_model(name)) == expected


@pytest.mark.parametrize("repository", COUNTED_REPOSITORIES)
def test_count_equals_that_of_transformers(repository: str, shared_dir: Path) -> None:
    counts = json.loads((shared_dir / "hf_configs" / "_param_counts_transformers.json").read_text())
    model = get_model(repository.replace("--", "/"))
    assert n_params(model) == counts[repository]["total"]
    # transformers counts the vision tower as active, which text does not pass
    assert n_params_active(model) + model.n_vision_params == counts[repository]["active"]


@pytest.mark.parametrize(
    ("name", "published", "last_digit"),
    [
        # Chowdhery et al. 2022 (PaLM), table 1; the 540B count is 540.356e9, 540.354e9 without norms.
        pytest.param("palm-8b", 8.63e9, 1e7, id="palm-8b"),
        pytest.param("palm-62b", 62.50e9, 1e7, id="palm-62b"),
        pytest.param("palm-540b", 540.35e9, 1e7, id="palm-540b"),
        # Smith et al. 2022 (MT-NLG), section 2.
        pytest.param("mt-nlg-530b", 530e9, 1e9, id="mt-nlg-530b"),
        # Brown et al. 2020 (GPT-3), table 2.1, and Zhang et al. 2022 (OPT), table 1.
        pytest.param("gpt-3-175b", 175e9, 1e9, id="gpt-3-175b"),
        pytest.param("opt-175b", 175e9, 1e9, id="opt-175b"),
        pytest.param("opt-6.7b", 6.7e9, 1e8, id="opt-6.7b"),
    ],
)
def test_count_equals_the_published_one_to_its_last_digit(name: str, published: float, last_digit: float) -> None:
    assert n_params(get_model(name)) == pytest.approx(published, abs=last_digit)


MODELS = list(load_models().values())


def _agrees(count: int, published: float, source: str) -> bool:
    """To the digit if Hugging Face counted, else to half a percent, or to half of what the source says it rounds to."""
    if source.endswith(("as Hugging Face counts them", "that a token is not sent to")):
        return count == published
    rounded = re.search(r"rounded to (1e\d+)$", source)
    return abs(count - published) <= max(0.005 * published, float(rounded[1]) / 2 if rounded else 0.0)


@pytest.mark.parametrize("model", [m for m in MODELS if m.n_params_published], ids=lambda model: model.name)
def test_count_agrees_with_what_the_file_calls_published(model: Model) -> None:
    assert _agrees(n_params(model), model.n_params_published, model.n_params_published_source)


@pytest.mark.parametrize("model", [m for m in MODELS if m.n_params_active_published], ids=lambda model: model.name)
def test_active_count_agrees_with_what_the_file_calls_published(model: Model) -> None:
    assert _agrees(n_params_active(model), model.n_params_active_published, model.n_params_active_published_source)


@pytest.mark.parametrize(
    ("name", "total", "active", "unit"),
    [
        # What the makers call their models, to the last digit; "active" with both tables of the vocabulary.
        pytest.param("mixtral-8x7b", 46.7e9, 12.9e9, 1e8, id="mixtral-8x7b"),
        pytest.param("mixtral-8x22b", 141e9, 39e9, 1e9, id="mixtral-8x22b"),
        pytest.param("dbrx", 132e9, 36e9, 1e9, id="dbrx"),
        pytest.param("deepseek-v2", 236e9, 21e9, 1e9, id="deepseek-v2"),
        pytest.param("qwen3-235b-a22b", 235e9, 22e9, 1e9, id="qwen3-235b-a22b"),
        pytest.param("qwen3-coder-480b-a35b", 480e9, 35e9, 1e9, id="qwen3-coder-480b-a35b"),
        pytest.param("jamba-1.5-mini", 52e9, 12e9, 1e9, id="jamba-1.5-mini"),
        pytest.param("nemotron-3-nano-30b-a3b", 31.6e9, 3.6e9, 1e8, id="nemotron-3-nano-30b-a3b"),
        pytest.param("phi-3.5-moe", 41.9e9, 6.6e9, 1e8, id="phi-3.5-moe"),
        pytest.param("qwen1.5-moe-a2.7b", 14.3e9, 2.7e9, 1e8, id="qwen1.5-moe-a2.7b"),
        pytest.param("olmoe-1b-7b", 6.9e9, 1.3e9, 1e8, id="olmoe-1b-7b"),
    ],
)
def test_total_and_active_are_what_the_makers_round_them_to(
    name: str, total: float, active: float, unit: float
) -> None:
    model = get_model(name)
    assert n_params(model) == pytest.approx(total, abs=unit / 2)
    assert n_params_active(model) == pytest.approx(active, abs=unit / 2)


@pytest.mark.parametrize(
    ("name", "active", "unit"),
    [
        # Counted without the embedding: OpenAI's and DeepSeek's model cards, and their kin's.
        pytest.param("gpt-oss-20b", 3.61e9, 1e7, id="gpt-oss-20b"),
        pytest.param("gpt-oss-120b", 5.13e9, 1e7, id="gpt-oss-120b"),
        pytest.param("deepseek-v3", 37e9, 1e9, id="deepseek-v3"),
        pytest.param("kimi-k2", 32e9, 1e9, id="kimi-k2"),
    ],
)
def test_active_without_the_embedding_is_what_the_makers_round_it_to(name: str, active: float, unit: float) -> None:
    model = get_model(name)
    assert n_params_active(model) - model.vocab_size * model.d_model == pytest.approx(active, abs=unit / 2)


def test_the_parts_of_one_layer_add_up_to_the_published_split_of_gpt_2() -> None:
    # GPT-2 small, a layer: c_attn 1769472 + 2304, c_proj 589824 + 768; FFN 2 * 2359296 + 3072 + 768; 4 * 768 for two norms.
    model = get_model("gpt2")
    assert mixer_params(model, plain_block(model)) == 1_769_472 + 2_304 + 589_824 + 768
    assert ffn_params(model, plain_block(model)) == 2 * 2_359_296 + 3_072 + 768
    assert model.n_norms(plain_block(model)) * 2 * 768 == 4 * 768
    assert embedding_params(model) == 50_257 * 768 + 1_024 * 768 + 2 * 768


def test_qk_norm_adds_two_head_wide_scales_a_layer() -> None:
    model = get_model("qwen3-8b")
    assert n_params(model) - n_params(model.model_copy(update={"qk_norm": False})) == 36 * 2 * 128


@pytest.mark.parametrize("name", ["palm-540b", "palm-540b-multihead"])
def test_the_padded_models_of_the_catalogue_are_padded_copies(name: str) -> None:
    # Pope et al. 2022, section 4: 48 heads padded to 64
    model, padded = get_model(name), get_model(f"{name}-padded")
    apart = {
        "name",
        "source",
        "notes",
        "aliases",
        "n_heads",
        "n_kv_heads",
        "n_params_published",
        "n_params_published_source",
    }
    assert padded.model_dump(exclude=apart) == model.model_dump(exclude=apart)
    assert padded.n_heads == 64
    assert padded.n_kv_heads == (64 if model.n_kv_heads == model.n_heads else 1)


def test_padding_the_heads_of_palm_adds_what_the_paper_says() -> None:
    # Pope et al. 2022, section 4: 16 * 256 * 18432 * 2 * 118 = 17.8e9, "18e9 parameters"
    added = n_params(get_model("palm-540b-padded")) - n_params(get_model("palm-540b"))
    assert added == 16 * 256 * 18_432 * 2 * 118


def test_multihead_and_multiquery_attention_of_palm_are_nearly_equal_in_size() -> None:
    # Pope et al. 2022, section 4.2: d_head is halved to keep the attention parameters; K and V are the 1 % left over.
    multiquery, multihead = (
        mixer_params(get_model(name), plain_block(get_model(name))) for name in ("palm-540b", "palm-540b-multihead")
    )
    assert multihead == pytest.approx(multiquery, rel=0.025)
