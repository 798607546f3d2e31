import pytest

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.hardware_specs.catalogue import get_chip
from shardwise.models.catalogue import get_model
from shardwise.validate.execute.comm import MeshShape
from shardwise.validate.execute.run import trace
from shardwise.validate.execute.spec import PhaseSpec, RunSpec


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["heads", "batch"])
@pytest.mark.parametrize("prefill", ["ws-2d", "wg-x", "wg-xy", "wg-xyz"])
def test_the_collectives_of_palm_540b_on_64_chips_send_what_was_priced_byte_for_byte(prefill, attention) -> None:
    spec = RunSpec(
        model=get_model("palm-540b"),
        mesh=MeshShape(axes={"x": 4, "y": 4, "z": 4}),
        prefill=PhaseSpec(layout=prefill, attention=attention),
        decode=PhaseSpec(layout="ws-2d", attention=attention, looped=True),
        batch=512,
        input_tokens=2048,
        output_tokens=1,
        dtype="bf16",
    )
    found = trace(spec, get_chip("tpu-v4"), "shardwise", limit_s=300)
    assert found.bytes_equal
    assert sum(pair.priced for pair in found.bytes.values()) > 0


def test_stages_and_replicas_are_traced_like_chips() -> None:
    spec = RunSpec(
        model=get_model("llama-2-70b"),
        mesh=MeshShape(axes={"x": 4, "y": 1, "z": 1}, pp=4, dp=2),
        prefill=PhaseSpec(layout="ws-1d-allreduce", attention="heads", n_passes=4),
        decode=PhaseSpec(layout="ws-1d-allreduce", attention="heads", n_passes=4),
        batch=16,
        input_tokens=128,
        output_tokens=1,
        dtype="bf16",
    )
    found = trace(spec, get_chip("h100-sxm"), "shardwise", limit_s=300)
    assert found.bytes_equal
    assert set(found.bytes) == {"xyz", "pp"}
