"""What was read is held against the name and the index beside the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from shardwise.models.catalogue import get_model
from shardwise.models.description import Model
from shardwise.models.hf.checks import check_name
from shardwise.models.hf.reader import import_model
from shardwise.models.params import n_params
from shardwise.models.paths import path_of
from shardwise.models.written import model_yaml, write_model
from shardwise.tests.models.hf.reading import LATENT, LLAMA, MIXTRAL, read


def _folder(tmp_path: Path, name: str, config: dict[str, Any], **beside: dict[str, Any]) -> Path:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    for file, fields in beside.items():
        (folder / f"{file.replace('__', '.')}.json").write_text(json.dumps(fields), "utf-8")
    return folder


def test_a_name_that_says_another_size_is_told(tmp_path: Path) -> None:
    wrong = import_model(str(_folder(tmp_path, "tiny-llama-70b", LLAMA)))
    assert any("its name says 70b, but 0.00 B parameters" in note for note in wrong.notes)
    right = import_model(str(_folder(tmp_path, "tiny-llama-3M", LLAMA)))
    assert not right.notes
    active = import_model(str(_folder(tmp_path, "tiny-14M-A13M", MIXTRAL)))
    assert any("13" in note and "active" in note for note in active.notes)


@pytest.mark.parametrize(
    "name", ["mixtral-8x7b", "qwen3-235b-a22b", "llama-3.1-405b", "gemma-7b", "deepseek-v3", "bloom-560m"]
)
def test_the_names_models_have_fit_them(name: str) -> None:
    assert check_name(get_model(name), name) == []


def test_an_index_that_holds_more_is_told(tmp_path: Path) -> None:
    bytes_of_all = n_params(read(LLAMA).model) * 2
    same = {"metadata": {"total_size": bytes_of_all}, "weight_map": {}}
    assert not import_model(str(_folder(tmp_path, "same", LLAMA, model__safetensors__index=same))).notes
    more = {"metadata": {"total_size": 2 * bytes_of_all}}
    notes = import_model(str(_folder(tmp_path, "more", LLAMA, model__safetensors__index=more))).notes
    assert any("(-50.0%)" in note for note in notes)
    odd = {"metadata": "none"}
    assert not import_model(str(_folder(tmp_path, "odd", LLAMA, model__safetensors__index=odd))).notes


def test_quantisation_beside_the_file_is_read(tmp_path: Path) -> None:
    beside = {"quantization": {"quant_algo": "FP8"}}
    assert import_model(str(_folder(tmp_path, "eight", LLAMA, hf_quant_config=beside))).model.weights_dtype == "fp8"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Tiny_Llama/config.json", "tiny-llama"),
        ("meta-llama--Llama-3.json", "llama-3"),
        ("models--org--Tiny-Llama/snapshots/0123abc/config.json", "tiny-llama"),
    ],
)
def test_names_come_from_paths(tmp_path: Path, path: str, name: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(LLAMA), "utf-8")
    assert import_model(str(file)).model.name == name
    assert import_model(str(file), name="Mine").model.name == "mine"


def test_models_are_found_by_path(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "tiny", LLAMA)
    by_file, by_folder = get_model(str(folder / "config.json")), get_model(str(folder))
    assert by_file == by_folder
    written = tmp_path / "tiny.yaml"
    write_model(by_file, written)
    assert get_model(str(written)) == by_file
    # a name of the catalogue is one, whatever lies about
    assert get_model("meta-llama/Llama-3.1-8B").name == "llama-3.1-8b"
    with pytest.raises(ValueError, match=r"there is no file nothing\.json"):
        get_model("nothing.json")
    assert path_of("llama-3.1-8b\0") is None


_T5 = {"model_type": "t5", "d_model": 64, "num_layers": 2, "num_heads": 4, "d_ff": 128, "vocab_size": 99}


@pytest.mark.parametrize("config", [LLAMA, MIXTRAL, LATENT, _T5], ids=lambda config: config["model_type"])
def test_what_is_written_is_read_again(tmp_path: Path, config: dict[str, Any]) -> None:
    model: Model = read(config).model
    path = tmp_path / "model.yaml"
    path.write_text(model_yaml(model), "utf-8")
    assert get_model(str(path)) == model


def test_a_description_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("name: x\nn_layer: 3\n", "utf-8")
    with pytest.raises(ValueError, match=r"model\.yaml"):
        get_model(str(path))


def test_imported_models_are_those_of_the_catalogue(shared_dir: Path) -> None:
    shapes = (
        "n_layers",
        "d_model",
        "d_ff",
        "n_heads",
        "n_kv_heads",
        "d_head",
        "vocab_size",
        "gated",
        "norm",
        "biases",
        "blocks",
    )
    for name in ("meta-llama--Meta-Llama-3.1-8B", "Qwen--Qwen3-32B", "EleutherAI--gpt-neox-20b", "tiiuae--falcon-7b"):
        found = import_model(str(shared_dir / "hf_configs" / f"{name}.json")).model
        known = get_model(name.replace("--", "/"))
        assert {shape: getattr(found, shape) for shape in shapes} == {shape: getattr(known, shape) for shape in shapes}
