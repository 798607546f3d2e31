"""The sharded program with our kernels in the place of torch's operations."""

import pytest
from shardwise.kernels import interpreter
from shardwise.tests.strategies import small_model
from shardwise.validate.execute.comm import MeshShape
from shardwise.validate.execute.ranks import run_ranks
from shardwise.validate.execute.run import TOLERANCE, compare
from shardwise.validate.execute.spec import PhaseSpec, RunSpec

_TINY = {"n_layers": 1, "d_model": 32, "d_ff": 64, "n_heads": 4, "d_head": 16, "vocab_size": 64}
_LLAMA = {"gated": True, "activation": "silu", "n_kv_heads": 2}
_BLOOM = {"n_kv_heads": 4, "positions": "alibi", "norm": "layernorm", "norm_bias": True}


@pytest.mark.parametrize(
    ("model", "prefill", "decode", "page_size"),
    [
        pytest.param(_LLAMA, "ws-1d-allreduce/heads", "ws-1d-allreduce/heads", 4, id="llama, pages"),
        pytest.param(_LLAMA, "ws-1d/heads", "ws-1d/context", 1, id="llama, context"),
        pytest.param(_BLOOM, "ws-1d/batch", "ws-1d/batch", 1, id="bloom"),
    ],
)
def test_a_program_run_with_our_kernels_equals_the_unsharded_model(model, prefill, decode, page_size, device) -> None:
    if device == "cuda":
        pytest.skip("ranks are processes of one CPU here")
    interpreter.install()
    phases = [PhaseSpec(layout=text.split("/")[0], attention=text.split("/")[1]) for text in (prefill, decode)]
    spec = RunSpec(
        model=small_model(**(_TINY | model)),
        mesh=MeshShape(axes={"x": 2, "y": 1, "z": 1}),
        prefill=phases[0],
        decode=phases[1],
        batch=2,
        input_tokens=5,
        output_tokens=2,
        page_size=page_size,
        kernels="triton",
    )
    (reports,) = run_ranks([spec], limit_s=120)
    error, equal = compare(spec, reports)
    assert error <= TOLERANCE["fp32"]
    assert equal
