"""The cache's way between the phases of one slice."""

import pytest
import shardwise
from shardwise.models.forms import parse_form
from shardwise.models.layouts import AttentionSharding
from shardwise.models.program import Tensor
from shardwise.simulator.cost.constants import BOUND
from shardwise.simulator.cost.handoff import cache_collectives, handoff_s
from shardwise.simulator.cost.phases import PhaseSetting, lower_phase
from shardwise.simulator.cost.price import Engine
from shardwise.simulator.types import Workload
from shardwise.tests.strategies import BF16, machine_of, small_model

_ENGINE = Engine(constants=BOUND)


def _setting(n_kv_heads: int, attention: AttentionSharding) -> PhaseSetting:
    return PhaseSetting(
        model=small_model(n_kv_heads=n_kv_heads),
        phase="prefill",
        layout="ws-2d",
        attention=attention,
        formats=BF16,
        workload=Workload(input_tokens=100, output_tokens=10),
    )


def _form(n_kv_heads: int, attention: AttentionSharding):
    return lower_phase(_setting(n_kv_heads, attention), ("x", "y", "z"), _ENGINE).only.state[0]


def test_a_multihead_cache_goes_from_heads_to_batch_in_one_exchange() -> None:
    setting, machine = _setting(64, "heads"), machine_of("tpu-v4:4x4x4", (4, 4, 4))
    moves = cache_collectives(_form(64, "heads"), _form(64, "batch"))
    assert [(move.kind, move.axes) for move in moves] == [("all_to_all", ("x", "y", "z"))]
    # K and V of every layer, one head a chip, over a bisection of 90 GB/s a chip, which half of all it has crosses
    layer_bytes = 2 * 2 * 128 * 100 * 1 * setting.model.d_head
    seconds = setting.model.n_layers * layer_bytes / 90e9
    assert handoff_s(setting, [("block", move) for move in moves], machine, 128.0, _ENGINE) == pytest.approx(seconds)


def test_a_replicated_cache_is_cut_over_the_batch_for_nothing() -> None:
    moves = cache_collectives(_form(1, "heads"), _form(1, "batch"))
    assert moves == ()
    machine = machine_of("tpu-v4:4x4x4", (4, 4, 4))
    assert handoff_s(_setting(1, "heads"), [("block", move) for move in moves], machine, 128.0, _ENGINE) == 0.0


def test_a_form_stays_where_it_is_for_nothing() -> None:
    cache = Tensor(name="cache", form=parse_form("B_xyzSKQ"), role="kv", copies=2)
    assert cache_collectives(cache, cache) == ()


def test_a_plan_counts_the_way_in_latency_and_cost() -> None:
    best = shardwise.estimate(
        "llama-3.1-70b",
        "tpu-v4:4x4x4",
        input_tokens=512,
        output_tokens=16,
        batch=64,
        prefill="ws-2d/heads",
        decode="ws-2d/batch",
    ).best
    assert best.handoff_s is not None
    assert best.handoff_s > 0
    total = best.prefill.latency_s + best.decode.latency_s + best.handoff_s
    assert best.request_latency_s == pytest.approx(total, rel=1e-12)
    assert best.chip_s_per_request == pytest.approx(64 * total / 64, rel=1e-12)
