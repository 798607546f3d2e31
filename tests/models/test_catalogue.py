"""Names in the catalogue: every one resolves, to one model; and its shape is that of the config it is from."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import pytest
from shardwise.hardware_specs.dtypes import parse_dtype
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.models.catalogue import get_model, gpt_model, load_models
from shardwise.models.description import Model
from shardwise.models.mixers.attention import AttentionMixer
from shardwise.models.written import read_model

MODELS = list(load_models().values())
NOT_END_TO_END = ("kernel_", "prices")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_name_and_alias_resolves_to_its_model(model) -> None:
    for name in (model.name, model.name.upper(), model.name.replace("-", " "), *model.aliases):
        assert get_model(name) is model


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_file_is_complete_and_consistent(model) -> None:
    assert model.source
    formats = (model.weights_dtype, model.mixer_dtype, model.expert_dtype, model.embedding_dtype, model.state_dtype)
    assert all(parse_dtype(name).name == name for name in formats if name is not None)
    assert (model.positions == "learned") == (model.n_learned_positions > 0)
    assert model.max_context is None or model.positions != "learned" or model.max_context <= model.n_learned_positions
    assert (model.n_params_published is None) == (not model.n_params_published_source)
    assert (model.n_params_nominal is not None) == model.name.startswith(("palm", "mt-nlg"))
    assert not (model.norm == "rmsnorm" and model.norm_bias)
    assert (model.n_params_active_published is None) == (not model.n_params_active_published_source)
    assert model.n_norms_per_block == 2 or model.block == "parallel" or model.stack


def test_every_file_is_named_after_its_model() -> None:
    paths = [path for path in (files("shardwise.models") / "data").iterdir() if path.name.endswith(".yaml")]
    assert {path.name.removesuffix(".yaml") for path in paths} == set(load_models())


def test_the_catalogue_has_models_of_every_family() -> None:
    blocks = [block for model in MODELS for block in model.kinds.values()]
    mixers = {block.mixer.kind for block in blocks if block.mixer is not None}
    assert mixers == {"attention", "latent", "mamba", "mamba2", "delta", "linear", "rwkv", "compressed"}
    assert {block.ffn.kind for block in blocks if block.ffn is not None} == {"dense", "experts"}
    reaches = {b.mixer.reach.pattern for b in blocks if isinstance(b.mixer, AttentionMixer) and b.mixer.reach}
    assert reaches == {"window", "chunk", "sparse"}
    assert any(model.encoder for model in MODELS)
    assert any(model.bidirectional for model in MODELS)
    assert len(MODELS) >= 60


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("PaLM 540B", "palm-540b"),
        ("PaLM 540B (published)", "palm-540b"),
        ("MT-NLG 530B", "mt-nlg-530b"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b"),
        ("Llama 3.3 70B", "llama-3.1-70b"),
        ("neuralmagic_Llama-2-7b-chat-hf-FP8", "llama-2-7b"),
        ("bigscience/bloom", "bloom-176b"),
        ("GPTJ 6B", "gpt-j-6b"),
        ("nvidia/Qwen3-32B-NVFP4", "qwen3-32b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b-v0.1"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral-8x7b"),
        ("DeepSeek-R1/V3", "deepseek-v3"),
        ("Qwen/Qwen3.5-397B-A17B", "qwen3.5-397b-a17b"),
        ("Deci/DeciLM-7B", "decilm-7b"),
        ("GPT-OSS 120B", "gpt-oss-120b"),
        ("zhipuai/GLM-5", "glm-5"),
        ("google-t5/t5-11b", "t5-11b"),
    ],
)
def test_names_as_others_write_them(text: str, name: str) -> None:
    assert get_model(text).name == name


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no model 'llama-3.1-71b'; did you mean .*llama-3.1-70b"):
        get_model("llama-3.1-71b")


@pytest.mark.parametrize("text", ["GPT-20B (h=6144,L=44)", "GPT (h=6144, L=44, heads=48)", "gpt-h6144-l44"])
def test_a_bracketed_shape_defines_a_gpt(text: str) -> None:
    # FasterTransformer docs/gpt_guide.md, Performance of GPT-20B: 48 heads of 128, 44 layers, vocabulary 51200.
    model = get_model(text)
    assert model == gpt_model(6144, 44)
    assert (model.name, model.n_heads, model.d_head, model.d_ff, model.vocab_size) == (
        "gpt-h6144-l44",
        48,
        128,
        24576,
        51200,
    )


def test_a_bracketed_shape_may_name_the_heads() -> None:
    # FasterTransformer docs/gpt_guide.md, Performance of GPT-1.3B: 32 heads of 64, 24 layers.
    model = get_model("GPT-1.3B (h=2048,L=24,heads=32)")
    assert (model.name, model.n_heads, model.d_head) == ("gpt-h2048-l24-heads32", 32, 64)
    assert get_model(model.name) == model


@pytest.mark.parametrize(("text", "divisor"), [("GPT (h=6000,L=44)", 128), ("GPT (h=6144,L=44,heads=50)", 50)])
def test_a_bracketed_shape_whose_heads_do_not_fit_is_refused(text: str, divisor: int) -> None:
    with pytest.raises(SpecError, match=f"is not a multiple of {divisor}"):
        get_model(text)


def test_a_misspelt_field_is_refused_with_the_file_it_stands_in() -> None:
    with pytest.raises(SpecError, match=r"(?s)mine\.yaml.*n_layer\b"):
        read_model("{name: mine, n_layer: 3}", "mine.yaml")


def test_every_model_of_the_measurements_resolves(shared_dir: Path) -> None:
    unknown = set()
    for path in (shared_dir / "measured").glob("*.csv"):
        if path.name.startswith(NOT_END_TO_END):
            continue
        with path.open(newline="") as file:
            names = {row["model"] for row in csv.DictReader(file)}
        for name in names:
            try:
                get_model(name)
            except UnknownNameError:
                unknown.add((path.name, name))
    assert not unknown


# Fields of config.json under their several names, and how the description calls them.
CONFIG_FIELDS = {
    "n_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "d_ff": ("intermediate_size",),
    "n_heads": ("num_attention_heads", "n_head", "n_heads"),
    "n_kv_heads": ("num_key_value_heads",),
    "d_head": ("head_dim",),
    "vocab_size": ("vocab_size",),
    "max_context": ("max_position_embeddings", "n_positions"),
    "tied_embeddings": ("tie_word_embeddings",),
}
OF_A_BLOCK = ("n_heads", "n_kv_heads", "d_head")
# A config cut down for somebody's test: 48 layers and 12 K/V heads, where dbrx has 40 and 8.
CUT_DOWN = "databricks--dbrx-base.json"


def _described(model: Model, field: str) -> set[object]:
    """What a description says of one field: of a stack, what its blocks with attention say."""
    if not model.stack:
        return {getattr(model, field)}
    if field == "d_ff" or (field == "max_context" and model.positions == "relative"):
        return set()
    if field in OF_A_BLOCK:
        mixers = [block.mixer for block in model.kinds.values()]
        return {getattr(mixer, field) for mixer in mixers if isinstance(mixer, AttentionMixer)}
    return {getattr(model, field)}


def test_shapes_equal_those_of_the_config_files(shared_dir: Path) -> None:
    n_compared = 0
    for path in (shared_dir / "hf_configs").glob("*--*.json"):
        config = json.loads(path.read_text())
        config |= config.get("text_config", {})
        try:
            model = get_model(path.stem.replace("--", "/"))
        except SpecError:
            continue
        if path.name == CUT_DOWN:
            continue
        for field, keys in CONFIG_FIELDS.items():
            for key in keys:
                if config.get(key) is not None and (said := _described(model, field)):
                    assert (field, said) == (field, {config[key]}), path.name
                    n_compared += 1
    assert n_compared > 250
