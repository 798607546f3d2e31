"""Files that cannot be read, and configs that contradict themselves: one sentence with the numbers and the way out."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.hf.families.registry import READERS
from shardwise.models.hf.reader import import_model, with_overrides
from shardwise.models.hf.sources import LIMIT_BYTES
from shardwise.tests.models.hf.reading import LATENT, LLAMA, MISTRAL, MIXTRAL, read

_MAMBA2 = {
    "model_type": "mamba2", "hidden_size": 64, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 64, "state_size": 16,
    "vocab_size": 99,
}  # fmt: skip
_QWEN2 = LLAMA | {"model_type": "qwen2"}
_MAMBA = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 999, "vocab_size": 99}
_NEMOTRON = LLAMA | {"model_type": "nemotron_h", "hybrid_override_pattern": "*-"}


@pytest.mark.parametrize(
    ("config", "changed", "says"),
    [
        pytest.param(LLAMA, {"num_attention_heads": 6}, "num_attention_heads=6 does not divide hidden_size=256", id="heads"),
        pytest.param(LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads=3 does not divide", id="kv heads"),
        pytest.param(MIXTRAL, {"num_local_experts": 0}, "num_local_experts=0 must be a whole number from 1", id="no experts"),
        pytest.param(MIXTRAL, {"num_experts_per_tok": 9}, "a token is sent to 9 of 8 experts", id="top-k above experts"),
        pytest.param(LATENT, {"num_experts_per_tok": 0}, "num_experts_per_tok=0 must be", id="top-k of none"),
        pytest.param(MISTRAL, {"sliding_window": 0}, "sliding_window=0 must be a whole number from 1", id="window of none"),
        pytest.param(MISTRAL, {"sliding_window": -5}, "sliding_window=-5 must be", id="window below none"),
        pytest.param(_QWEN2, {"sliding_window": -5}, "sliding_window=-5 must be", id="window that is off"),
        pytest.param(LLAMA, {"hidden_size": "256"}, "hidden_size='256' must be a whole number", id="text for a number"),
        pytest.param(LLAMA, {"hidden_size": 10**30}, "must be a whole number from 1 to 1000000000", id="far too wide"),
        pytest.param(LLAMA, {"num_hidden_layers": 10**6}, "must be a whole number from 1 to 10000", id="far too deep"),
        pytest.param(LLAMA, {"vocab_size": 1.5}, "vocab_size=1.5 must be", id="half a token"),
        pytest.param(LLAMA, {"vocab_size": True}, "vocab_size=True must be", id="true for a number"),
        pytest.param(LLAMA, {"vocab_size": float("nan")}, "vocab_size=nan must be", id="no number"),
        pytest.param(LLAMA, {"attention_bias": "yes"}, "attention_bias='yes' must be true or false", id="text for a flag"),
        pytest.param(LLAMA, {"rope_scaling": 4}, "rope_scaling=4 must be an object", id="number for an object"),
        pytest.param(LLAMA, {"torch_dtype": "float7"}, "no dtype 'float7'", id="dtype"),
        pytest.param(LLAMA, {"layer_types": ["full_attention"]}, "layer_types names 1 layers, num_hidden_layers=4", id="types"),
        pytest.param(LLAMA, {"layer_types": ["telepathy"] * 4}, "'telepathy', a kind of block", id="kind"),
        pytest.param(LLAMA, {"n_layer": 5}, "num_hidden_layers=4, n_layer=5 name one size", id="two names"),
        pytest.param(LATENT, {"qk_head_dim": 99}, "qk_head_dim=99, but qk_nope_head_dim=32", id="parts of a head"),
        pytest.param(_MAMBA, {}, "intermediate_size=999, but expand=2 times hidden_size=64", id="channels"),
        pytest.param(_MAMBA2, {}, "num_heads=4 times head_dim=64 is 256, but expand times hidden_size is 128", id="mamba heads"),
        pytest.param(_NEMOTRON, {}, "its pattern has 2 layers, num_hidden_layers=4", id="pattern"),
        pytest.param(_NEMOTRON, {"hybrid_override_pattern": "*-X*"}, "'X', a kind of block", id="letter"),
        pytest.param(LLAMA | {"model_type": "nemotron-nas"}, {"block_configs": []}, "block_configs has 0 layers", id="search"),
        pytest.param({"model_type": "gemma3"}, {}, "holds its text model in text_config, which is missing", id="no text model"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_in_a_sentence(config: dict[str, Any], changed: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as error:
        read(config, **changed)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_model_type_names_the_nearest_and_what_is_missing() -> None:
    with pytest.raises(SpecError) as error:
        read({key: value for key, value in LLAMA.items() if key != "vocab_size"}, model_type="lama")
    assert "model_type 'lama' is unknown; nearest known: llama" in str(error.value)
    assert "it lacks vocab_size" in str(error.value)
    assert "--override model_type=llama" in str(error.value)


def test_a_file_without_a_model_type_is_refused() -> None:
    with pytest.raises(SpecError, match="there is no model_type"):
        read({"hidden_size": 64})


def test_an_unknown_type_inside_another_is_told() -> None:
    with pytest.raises(SpecError, match=r"model_type 'zzz' is unknown \(in llava\)"):
        read({"model_type": "llava", "text_config": {"model_type": "zzz"}})


def test_all_missing_fields_are_named_at_once() -> None:
    with pytest.raises(SpecError) as error:
        read({"model_type": "llama", "num_attention_heads": 7})
    for field in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"):
        assert field in str(error.value)


@pytest.mark.parametrize("kind", sorted(READERS))
def test_an_empty_file_of_any_family_is_refused_in_a_sentence(kind: str) -> None:
    with pytest.raises(SpecError, match=r"missing|must have"):
        read({"model_type": kind}, hidden_size=None)


_BAD_VALUES = (0, -1, 1.5, "x", True, [], {}, [[1]], 10**18, float("inf"))


@pytest.mark.parametrize("value", _BAD_VALUES, ids=repr)
def test_no_value_of_any_field_ends_in_a_traceback(shared_dir: Path, value: object) -> None:
    for path in sorted((shared_dir / "hf_configs").glob("*--*.json"))[::5]:
        fields = json.loads(path.read_text("utf-8"))
        objects = [fields, *(inner for inner in fields.values() if isinstance(inner, dict))]
        for inside in objects:
            for field in [name for name in inside if name not in ("rope_scaling",)]:
                kept = inside[field]
                inside[field] = value
                with contextlib.suppress(SpecError):
                    read(fields)
                inside[field] = kept


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"model_type": "llama", "hidden_', "is no JSON, or ends too early"),
        (b"", "is empty"),
        (b"[1, 2]", "holds no object but a list"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "a number too long"),
    ],
    ids=["truncated", "empty", "list", "binary", "nested", "digits"],
)
def test_what_is_no_config_is_said(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(SpecError, match=says):
        import_model(str(path))


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(SpecError, match="longer than 16 MB"):
        import_model(str(path))


def test_standard_input_has_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        n_read = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= LIMIT_BYTES + 1
            Endless.n_read += size
            return b" " * size

    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": Endless()}))
    with pytest.raises(SpecError, match="standard input is longer than 16 MB"):
        import_model("-")
    assert Endless.n_read == LIMIT_BYTES + 1


def test_paths_that_lead_nowhere_are_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*: No such file"):
        import_model(str(tmp_path / "nothing.json"))
    with pytest.raises(SpecError, match=r"is a directory without config\.json"):
        import_model(str(tmp_path))


def test_overrides_are_set_where_the_file_has_them() -> None:
    nested = {"model_type": "llava", "text_config": {"hidden_size": 8}, "vision_config": {"hidden_size": 9}}
    assert with_overrides(nested, ["hidden_size=16"])["text_config"] == {"hidden_size": 16}
    assert with_overrides(nested, ["vision_config.hidden_size=3"])["vision_config"] == {"hidden_size": 3}
    assert with_overrides(nested, ["model_type=paligemma"])["model_type"] == "paligemma"
    assert nested["text_config"] == {"hidden_size": 8}
    with pytest.raises(SpecError, match="must be field=value"):
        with_overrides(nested, ["hidden_size"])
