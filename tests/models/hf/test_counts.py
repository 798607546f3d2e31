"""Parameters of every family against counts of Hugging Face's own classes, to the digit."""

import json
from pathlib import Path
from typing import Any

import pytest
from shardwise.models.hf.families.registry import READERS, WRAPPERS
from shardwise.models.hf.reader import import_model
from shardwise.models.params import idle_params, n_params
from shardwise.tests.models.hf.reading import read


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(__file__).parent / name).read_text("utf-8").splitlines()]


# One config a line, with what transformers 5.23.0 counts on the meta device: all parameters, and those of routed experts.
_COUNTED = _rows("counted.jsonl")
# The same of models with a tower.
_TOWERS = _rows("counted_towers.jsonl")
# Sizes of models whose repositories bring their own code, and the billions of parameters on their cards.
_PUBLISHED = _rows("published.jsonl")
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_k", "num_selected_experts")
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int:
    return next((config[name] for name in names if config.get(name)), 1)


@pytest.mark.parametrize("row", _COUNTED, ids=lambda row: row["config"]["model_type"])
def test_every_family_counts_as_its_class_does(row: dict[str, Any]) -> None:
    config = row["config"]
    found = read(config)
    assert n_params(found.model) == row["n_params"]
    n_experts, per_token = _first(config, _EXPERTS), _first(config, _PER_TOKEN)
    assert idle_params(found.model) == row["n_expert_params"] * (n_experts - per_token) // n_experts
    assert found.unknown_fields == ()


@pytest.mark.parametrize("row", _TOWERS, ids=lambda row: row["name"])
def test_towers_count_as_their_classes_do(row: dict[str, Any]) -> None:
    model = read(row["config"]).model
    assert n_params(model) == row["n_params"]
    assert model.n_vision_params > 0


def test_most_families_are_counted() -> None:
    counted = {row["config"]["model_type"] for row in _COUNTED}
    # those whose code transformers does not hold, that are names of another, or that it counts inside another alone
    elsewhere = {
        "Yi", "aquila", "minicpm", "internlm", "internlm2", "baichuan", "RefinedWeb", "RefinedWebModel", "stablelm_epoch",
        "chatglm", "qwen", "deci", "nemotron-nas", "deepseek", "kimi_k2", "dots1", "dbrx", "step3p5", "qwen2_vl", "qwen2_5_vl",
        "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_moe_text",
    }  # fmt: skip
    assert set(READERS) - counted <= elsewhere
    assert set(WRAPPERS.values()) <= set(READERS)


def _exact(shared_dir: Path) -> dict[str, dict[str, Any]]:
    counts = json.loads((shared_dir / "hf_configs" / "_param_counts_transformers.json").read_text("utf-8"))
    return {name: row for name, row in counts.items() if "total" in row}


def test_files_of_the_hub_count_as_their_classes_do(shared_dir: Path) -> None:
    exact = _exact(shared_dir)
    wrong = {}
    for name, row in exact.items():
        found = import_model(str(shared_dir / "hf_configs" / f"{name}.json"))
        counted = (n_params(found.model), found.n_params_active)
        if counted != (row["total"], row["active"]):
            wrong[name] = (counted, row)
    assert not wrong
    assert len(exact) >= 43


def test_files_of_the_hub_hold_no_field_nobody_knows(shared_dir: Path) -> None:
    paths = sorted((shared_dir / "hf_configs").glob("*--*.json"))
    unknown = {path.name: found for path in paths if (found := import_model(str(path)).unknown_fields)}
    assert not unknown


def test_vision_towers_are_counted_where_the_class_has_one(shared_dir: Path) -> None:
    for name, row in _exact(shared_dir).items():
        model = import_model(str(shared_dir / "hf_configs" / f"{name}.json")).model
        if row.get("vision"):
            assert 0 < row["vision"] <= model.n_vision_params < 1.02 * row["vision"]
        else:
            assert model.n_vision_params == 0


@pytest.mark.parametrize("row", _PUBLISHED, ids=lambda row: row["name"])
def test_families_with_code_of_their_own_count_as_published(row: dict[str, Any]) -> None:
    # published in billions to three digits
    assert n_params(read(row["config"]).model) / 1e9 == pytest.approx(row["published_billions"], rel=0.005)
