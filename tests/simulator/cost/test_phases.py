"""Phases: a decode is the sum of its steps, a pipeline its stages and bubbles."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.models.catalogue import get_model
from shardwise.models.layouts import AttentionSharding
from shardwise.models.params import ffn_params, mixer_params
from shardwise.models.sizes import Sizes, TokenGroup
from shardwise.simulator.cost.constants import BOUND
from shardwise.simulator.cost.machine import Machine
from shardwise.simulator.cost.phases import (
    PhaseSetting,
    bind,
    engine_microbatches,
    model_flop_utilization,
    price_phase,
    token_group,
)
from shardwise.simulator.cost.price import Engine, pass_time_s, price_pass
from shardwise.simulator.types import PhaseName, Workload
from shardwise.tests.strategies import BF16, machine_of, plain_block, small_model

_BOUND = Engine(constants=BOUND)


def _setting(
    model: str, phase: PhaseName, layout: str, attention: AttentionSharding, n_in: int, n_out: int
) -> PhaseSetting:
    return PhaseSetting(
        model=get_model(model),
        phase=phase,
        layout=layout,
        attention=attention,
        formats=BF16,
        workload=Workload(input_tokens=n_in, output_tokens=n_out),
    )


def _decode_loop_s(setting: PhaseSetting, machine: Machine, batch: float, engine: Engine) -> float:
    """The sum over output tokens of a pass over one more cached token each."""
    program, _ = bind(setting, machine, batch, ("x", "y", "z"), engine)
    total = 0.0
    for step in range(setting.workload.output_tokens):
        past = float(setting.workload.input_tokens + step)
        sizes = Sizes(program, machine.mesh, [TokenGroup(n_sequences=batch, new_tokens=1.0, past_tokens=past)])
        total += float(pass_time_s(price_pass(program, sizes, BF16, machine, engine)))
    return total


@pytest.mark.parametrize("materialised", [False, True])
@pytest.mark.parametrize(
    ("model", "pool", "sizes", "layout", "attention", "batch", "n_in", "n_out"),
    [
        ("palm-540b-padded", "tpu-v4:4x4x4", (4, 4, 4), "ws-2d", "batch", 512.0, 2048, 64),
        ("palm-540b-padded", "tpu-v4:4x4x4", (4, 4, 4), "ws-2d", "heads", 64.0, 20, 8),
        ("llama-3.1-70b", "h100-sxm:8", (8, 1, 1), "ws-1d", "heads", 64.0, 128, 2000),
        ("llama-3.1-8b", "h100-sxm:1", (1, 1, 1), "ws-1d-allreduce", "heads", 256.0, 1, 500),
        ("mt-nlg-530b", "tpu-v4:4x4x4", (4, 4, 4), "wg-x", "batch", 64.0, 60, 20),
        ("llama-3.1-70b", "h100-sxm:8", (8, 1, 1), "ws-1d", "context", 8.0, 4096, 800),
    ],
)
def test_a_decode_of_many_tokens_is_the_sum_over_its_steps(
    model: str,
    pool: str,
    sizes: tuple[int, int, int],
    layout: str,
    attention: AttentionSharding,
    batch: float,
    n_in: int,
    n_out: int,
    materialised: bool,
) -> None:
    engine = replace(_BOUND, materialised_scores=materialised)
    setting, machine = _setting(model, "decode", layout, attention, n_in, n_out), machine_of(pool, sizes)
    latency_s = float(price_phase(setting, machine, np.array([batch]), engine).latency_s[0])
    # a step is linear in the context but for whole shards of it and the kink where memory overtakes compute
    assert latency_s == pytest.approx(_decode_loop_s(setting, machine, batch, engine), rel=1e-3, abs=0)


def test_one_output_token_is_one_pass_over_the_input() -> None:
    setting = _setting("palm-540b", "decode", "ws-2d", "batch", 2048, 1)
    assert token_group(setting, 64.0) == TokenGroup(n_sequences=64.0, new_tokens=1.0, past_tokens=2048.0)
    machine = machine_of("tpu-v4:4x4x4", (4, 4, 4))
    price = price_phase(setting, machine, np.array([64.0]), _BOUND)
    assert price.latency_s == price.pass_s
    assert float(price.latency_s[0]) == pytest.approx(_decode_loop_s(setting, machine, 64.0, _BOUND), rel=1e-15, abs=0)


def test_a_prefill_is_one_pass_over_all_input_tokens() -> None:
    setting = _setting("palm-540b", "prefill", "ws-2d", "heads", 2048, 64)
    assert token_group(setting, 4.0) == TokenGroup(n_sequences=4.0, new_tokens=2048.0, past_tokens=0.0)
    price = price_phase(setting, machine_of("tpu-v4:4x4x4", (4, 4, 4)), np.array([4.0]), _BOUND)
    assert price.latency_s == price.pass_s


def test_flop_of_all_chips_are_two_a_parameter_and_token_beside_attention_and_the_logits() -> None:
    model = small_model()
    setting = PhaseSetting(
        model=model,
        phase="prefill",
        layout="ws-2d",
        attention="heads",
        formats=BF16,
        workload=Workload(input_tokens=32, output_tokens=0),
    )
    price = price_phase(setting, machine_of("tpu-v4:4x4x4", (4, 4, 4)), np.array([64.0]), _BOUND)
    matrices = (
        2 * 64 * 32 * model.n_layers * (mixer_params(model, plain_block(model)) + ffn_params(model, plain_block(model)))
    )
    pairs = 64 * 32 * 33 / 2
    scores = model.n_layers * 4 * pairs * model.n_heads * model.d_head
    logits = 2 * 64 * model.d_model * model.vocab_size
    # all terms are whole numbers; the share of visible pairs is rounded once
    assert 64 * float(price.flop[0]) == pytest.approx(matrices + scores + logits, rel=1e-12, abs=0)


@given(pp=st.sampled_from([2, 3, 4]), n_micro=st.integers(1, 16))
def test_a_pipeline_is_never_quicker_than_its_stages_and_its_slowest_stage(pp: int, n_micro: int) -> None:
    model, machine = small_model(n_layers=12), machine_of("h100-sxm:4", (4, 1, 1))
    batch = np.array([48.0])
    for phase in ("prefill", "decode"):
        one = PhaseSetting(
            model=model,
            phase=phase,
            layout="ws-1d",
            attention="heads",
            formats=BF16,
            workload=Workload(input_tokens=64, output_tokens=8),
        )
        micro_batch = np.ceil(batch / n_micro)
        whole = price_phase(one, machine, micro_batch, _BOUND).pass_s
        piped = price_phase(replace(one, pp=pp), machine, batch, _BOUND, n_microbatches=float(n_micro)).pass_s
        assert piped >= whole
        # m micro-batches keep each of pp stages busy for at least 1/pp of the pass (the stage's handover is extra)
        assert piped >= n_micro * whole / pp


def test_one_stage_and_one_micro_batch_are_the_plain_pass_and_two_take_twice_as_long() -> None:
    setting = _setting("llama-3.1-8b", "prefill", "ws-1d", "heads", 512, 1)
    machine = machine_of("h100-sxm:8", (8, 1, 1))
    half = price_phase(setting, machine, np.array([16.0]), _BOUND).pass_s
    both = price_phase(setting, machine, np.array([32.0]), _BOUND, n_microbatches=2.0).pass_s
    # without a pipeline the second micro-batch follows the first; sums in another order
    assert both == pytest.approx(2 * half, rel=1e-12, abs=0)


def test_replicas_share_the_batch() -> None:
    setting = _setting("llama-3.1-8b", "decode", "ws-1d", "heads", 512, 16)
    machine = machine_of("h100-sxm:4", (4, 1, 1))
    alone = price_phase(setting, machine, np.array([16.0]), _BOUND).latency_s
    assert price_phase(replace(setting, dp=2), machine, np.array([32.0]), _BOUND).latency_s == alone


@pytest.mark.parametrize(
    ("batch", "new_tokens", "pp", "parts"),
    [(128, 20, 3, 4), (96, 1, 3, 3), (7, 20, 1, 1), (256, 128, 3, 32), (3, 4096, 3, 3)],
)
def test_an_engine_splits_a_batch_by_stages_then_in_halves(batch: int, new_tokens: int, pp: int, parts: int) -> None:
    assert engine_microbatches(batch, new_tokens, pp, 1024) == parts


def test_mfu_counts_two_flop_a_parameter_and_token_with_the_papers_parameters() -> None:
    # Pope2022: N = 540e9 for the padded model too
    assert model_flop_utilization(get_model("palm-540b-padded"), 10.0, 1e15) == 2 * 540e9 * 10.0 / 1e15
    exact = 3 * (
        mixer_params(small_model(), plain_block(small_model()))
        + ffn_params(small_model(), plain_block(small_model()))
        + 2 * 256
    ) + (2 * 512 * 256 + 256)
    assert model_flop_utilization(small_model(), 10.0, 1e15) == 2.0 * exact * 10.0 / 1e15
