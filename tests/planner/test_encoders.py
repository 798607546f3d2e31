"""Plans of models with an encoder, and of models that are read both ways."""

from itertools import product
from typing import Any

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.catalogue import get_model, load_models
from shardwise.models.params import n_params
from shardwise.planner.api import estimate, plan
from shardwise.planner.deploy import ServingOptions, deploy
from shardwise.planner.explain import explain_plan
from shardwise.planner.whatif.ask import what_if

READING = [m.name for m in load_models().values() if m.bidirectional]


def t5(**changes: Any) -> Any:
    """One deployment of T5-11B priced by the roofline."""
    asked = {"input_tokens": 512, "output_tokens": 64, "batch": 8, "bound": True}
    return estimate("t5-11b", "h100-sxm:8", **(asked | changes)).best


@pytest.mark.parametrize("page_size", [1, 48])
@pytest.mark.parametrize("name", ["t5-small", "ul2-20b", "switch-base-128"])
def test_plans_with_an_encoder_pass_their_certificates(name: str, page_size: int) -> None:
    """`plan` checks each: bytes counted again in whole numbers, the cache of the input in pages of its own."""
    result = plan(
        name, "h100-sxm:4", input_tokens=500, output_tokens=30, batch=16, page_size=page_size, tp=4, top=20, bound=True
    )
    assert len(result.plans) > 3
    assert {phase.pp for p in result.plans for phase in (p.prefill, p.decode)} == {1}


def test_both_stacks_lie_in_memory_with_what_is_kept_of_the_input() -> None:
    found, model = t5(), get_model("t5-11b")
    assert found.decode.memory.weights == pytest.approx(4 * n_params(model) / 8, rel=1e-3)  # fp32 in 8 parts
    positions = 512 + 1 + 64
    assert found.decode.memory.kv_cache == 24 * 2 * 2 * 8 * positions * 128 * 128 / 8


def test_decode_reads_the_input_no_more() -> None:
    """The encoder and what is kept of the input are steps of prefill alone."""
    found = t5()
    read = [step.step for step in found.prefill.breakdown if step.step.startswith("encoder")]
    assert {"encoder: attention", "encoder cross: cross kv"} <= set(read)
    assert not [step.step for step in found.decode.breakdown if step.step.startswith("encoder")]
    assert "cross attention" in {step.step for step in found.decode.breakdown}


def test_a_longer_input_costs_decode_its_cross_attention_alone() -> None:
    short, long = ({s.step: s.total_s for s in t5(input_tokens=n).decode.breakdown} for n in (512, 1024))
    assert {name for name in short if long[name] != short[name]} == {"cross attention"}


def test_no_flop_is_counted_twice_in_its_utilisation() -> None:
    """Each stack is counted for the tokens that pass it, so none comes above what the chips really do."""
    found = t5(batch=64)
    for phase in (found.prefill, found.decode):
        assert 0 < phase.mfu < phase.hfu <= 1
    read = plan("bert-large", "h100-sxm:1", input_tokens=128, output_tokens=0, batch=64, bound=True).best.prefill
    assert 0 < read.mfu < read.hfu <= 1


@pytest.mark.parametrize("name", READING)
def test_every_model_read_both_ways_is_planned_without_a_decode(name: str) -> None:
    result = plan(name, "h100-sxm:2", input_tokens=256, output_tokens=0, batch=32, bound=True, top=2)
    best = result.best
    assert best.decode.breakdown == ()
    assert (best.decode.latency_s, best.decode.memory.kv_cache, best.prefill.memory.kv_cache) == (0.0, 0.0, 0.0)
    assert best.request_latency_s == best.prefill.latency_s > 0
    assert explain_plan(result).headline.endswith("nothing is generated.")


def test_a_what_if_of_a_model_read_both_ways_finds_what_its_plans_do() -> None:
    asked = what_if("bert-large", "h100-sxm:2", vary=["input=128,512", "batch=1,8"], output_tokens=0)
    for row, (n, batch) in zip(asked.rows(), product((128, 512), (1, 8)), strict=True):
        best = plan("bert-large", "h100-sxm:2", input_tokens=n, output_tokens=0, batch=batch).best
        assert row["ttft_s"] == pytest.approx(best.prefill.step_s, rel=1e-9)
        assert row["prefill_mfu"] == pytest.approx(best.prefill.mfu, rel=1e-9)


def test_a_pool_of_its_own_is_no_plan_for_a_decode_that_is_none() -> None:
    result = plan("bert-large", "h100-sxm:..2", input_tokens=128, output_tokens=0, bound=True, top=3)
    assert all(p.shared and p.prefill.batch == p.decode.batch for p in result.plans)


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        pytest.param("bert-base", {"output_tokens": 8}, "plan it with --output 0", id="output of an encoder"),
        pytest.param("bert-base", {"output_tokens": 0, "tpot_s": 1.0}, "says nothing", id="limit on no token"),
        pytest.param("bert-base", {"output_tokens": 0, "decode_on": "h100-sxm:1"}, "a pool for decode", id="pool"),
        pytest.param("t5-small", {"output_tokens": 0}, "at least one output token", id="no output of a decoder"),
        pytest.param("t5-small", {"output_tokens": 8, "pp": 2}, "lie on one stage", id="stages"),
        pytest.param("t5-small", {"output_tokens": 8, "rate_per_s": 1.0}, "decoders alone", id="traffic"),
    ],
)
def test_what_such_models_do_not_do_is_refused_in_words(model: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        plan(model, "h100-sxm:2", **({"input_tokens": 64} | changes))


def test_the_serving_simulator_refuses_an_encoder() -> None:
    result = estimate("t5-small", "h100-sxm:1", input_tokens=64, output_tokens=8)
    with pytest.raises(SpecError, match="decoders alone"):
        deploy(result, ServingOptions())
