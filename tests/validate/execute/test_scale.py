import pytest

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.hardware_specs.errors import SpecError
from shardwise.models.catalogue import get_model, load_models
from shardwise.models.description import Model
from shardwise.models.feed_forward import ExpertsFfn
from shardwise.models.params import n_params
from shardwise.validate.execute.comm import MeshShape
from shardwise.validate.execute.executable import check_model
from shardwise.validate.execute.scale import scaled_model


def _can_run(model: Model) -> bool:
    try:
        check_model(model)
    except SpecError:
        return False
    return True


_DECODERS = sorted(name for name, model in load_models().items() if _can_run(model))


@pytest.mark.parametrize("name", _DECODERS)
@pytest.mark.parametrize("n_chips", [2, 8])
def test_a_smaller_model_is_a_model_that_divides_as_the_large_one(name, n_chips) -> None:
    model = get_model(name)
    scaled = scaled_model(model, MeshShape(axes={"x": n_chips, "y": 1, "z": 1}), 64)
    assert Model.model_validate(scaled.model_dump()) == scaled
    assert n_params(scaled) < n_params(model)
    assert list(scaled.kinds) == list(model.kinds)
    for kind, block in model.kinds.items():
        small = scaled.kinds[kind]
        if isinstance(block.ffn, ExpertsFfn):
            assert small.ffn.n_experts_per_token == block.ffn.n_experts_per_token <= small.ffn.n_experts
            assert block.ffn.n_experts % n_chips or small.ffn.n_experts % n_chips == 0
        if block.ffn is not None:
            assert block.ffn.d_ff % n_chips or small.ffn.d_ff % n_chips == 0


def test_layers_of_every_kind_stay_in_their_order() -> None:
    mesh = MeshShape(axes={"x": 1, "y": 1, "z": 1}, pp=2)
    assert scaled_model(get_model("deepseek-v3"), mesh, 16).layers == ("dense", "moe", "moe")
    assert len(scaled_model(get_model("gemma-3-27b"), mesh, 8).layers) == 62 // 8


def test_what_no_program_runs_is_named() -> None:
    with pytest.raises(SpecError, match="t5-11b reads its input both ways; only decoders are executed"):
        check_model(get_model("t5-11b"))
