"""Plans under traffic, from a plan to a report."""

import json

import numpy as np
import pytest
import shardwise
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.deploy import ServingOptions, deploy
from shardwise.planner.replay import compare, fit_step_scale
from shardwise.simulator.cost.step_time import Chunk
from shardwise.simulator.engine.deployment import EngineOptions
from shardwise.simulator.engine.policies import SCHEDULERS, get_scheduler
from shardwise.simulator.workload.lengths import Fixed

# Sums of the same terms in another order, and lines between grid points of what is a line.
_ROUNDING = 1e-9

PLANS = {
    "tp8": {"model": "llama-3.1-70b", "on": "h100-sxm:8", "tp": 8},
    "one chip": {"model": "llama-3-8b", "on": "a100-80gb-sxm:1"},
    "pipeline": {"model": "llama-3.1-70b", "on": "h100-sxm:8", "tp": 4, "pp": 2},
    "paper": {"model": "palm-540b", "on": "tpu-v4:4x4x4", "prefill": "wg-xyz/batch", "decode": "ws-2d/batch", "batch": 64},
    "multihead": {"model": "opt-6.7b", "on": "a100-80gb-sxm:2", "tp": 2, "engine": "fastertransformer"},
}  # fmt: skip


def _plan(name, **changes):
    asked = {"input_tokens": 512, "output_tokens": 64, "batch": 8} | PLANS[name] | changes
    return shardwise.estimate(asked.pop("model"), asked.pop("on"), **asked)


def _steps(result, **options):
    return deploy(result, ServingOptions(**options)).pools[0].replica.steps


@pytest.mark.parametrize("name", PLANS)
def test_a_pass_takes_what_the_plan_says(name):
    result = _plan(name)
    steps, best = _steps(result), result.best
    prefill = steps.pass_s([Chunk(512, 0)] * best.prefill.batch)
    if best.prefill.n_microbatches == 1:
        # attention of several prompts at once is measured to be a little quicker than one by one
        assert prefill == pytest.approx(best.prefill.step_s, rel=0.01)
    # the mean context of 64 decode steps; sums of whole numbers of tokens
    context = best.decode.batch * (2 * 512 + 63) / 2 + best.decode.batch
    if best.decode.n_microbatches == 1:
        assert steps.decode_s(best.decode.batch, context) == pytest.approx(best.decode.step_s, rel=_ROUNDING)


@pytest.mark.parametrize("name", PLANS)
def test_steps_in_a_row_are_the_sum_of_steps(name):
    steps = _steps(_plan(name))
    for n, context in ((1, 1), (1, 100), (7, 5000), (64, 64 * 900)):
        one_by_one = sum(steps.decode_s(n, context + j * n) for j in range(300))
        assert steps.decode_s(n, context, 300) == pytest.approx(one_by_one, rel=_ROUNDING)


def test_a_prompt_in_parts_takes_longer_than_whole_and_no_longer_than_its_passes_apart():
    steps = _steps(_plan("one chip"))
    whole = steps.pass_s([Chunk(4096, 0)])
    parts = sum(steps.pass_s([Chunk(512, past)]) for past in range(0, 4096, 512))
    assert whole < parts < 1.5 * whole
    alone = steps.decode_s(32, 32 * 1000)
    beside = steps.pass_s([Chunk(512, 0)], 32, 32 * 1000)
    assert max(alone, steps.pass_s([Chunk(512, 0)])) < beside < alone + steps.pass_s([Chunk(512, 0)])


def test_a_lone_request_takes_what_its_plan_says():
    result = _plan("one chip", batch=1)
    report = shardwise.simulate(result, rate_per_s=0.01, n_requests=5)
    assert report.ttft_s == pytest.approx(np.full(5, result.best.prefill.step_s), rel=_ROUNDING)
    # the first token comes of the prefill, so decode has one step fewer than the plan counts, and none at the end
    assert report.tpot_s == pytest.approx(np.full(5, result.best.decode.step_s), rel=1e-3)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_scheduler_serves_a_plan(scheduler):
    result = _plan("one chip")
    report = shardwise.simulate(result, rate_per_s=2.0, n_requests=60, scheduler=scheduler, replicas=2)
    assert report.summary().finished == 60


def test_the_cache_holds_what_memory_leaves():
    result = _plan("one chip")
    spec, memory = deploy(result, ServingOptions()).pools[0].replica, result.best.decode.memory
    assert 0.5 < spec.n_pages * spec.kv_bytes_per_token / (memory.limit - memory.weights) < 1.0


def test_two_slices_make_two_pools_and_one_slice_with_two_replicas_is_split():
    apart = shardwise.estimate("llama-3-8b", "h100-sxm:1", decode_on="h200-sxm:1", input_tokens=512, output_tokens=64)
    pools = deploy(apart, ServingOptions()).pools
    assert [(pool.role, pool.replica.chip_label) for pool in pools] == [
        ("prefill", "h100-sxm:1"),
        ("decode", "h200-sxm:1"),
    ]
    split = EngineOptions(scheduler=get_scheduler("disaggregated"))
    pools = deploy(_plan("one chip", on="a100-80gb-sxm:4", dp=4, tp=1), ServingOptions(engine=split)).pools
    assert [(pool.role, pool.n_replicas) for pool in pools] == [("prefill", 2), ("decode", 2)]
    with pytest.raises(SpecError, match="pool for each phase"):
        deploy(_plan("one chip"), ServingOptions(engine=split))


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({}, "say what comes"),
        ({"rate_per_s": 1.0, "concurrency": 4}, "--rate and --concurrency"),
        ({"rate_per_s": -1.0}, "positive number"),
        ({"rate_per_s": 1.0, "arrivals": "monthly"}, "poisson, gamma or even"),
        ({"rate_per_s": 1.0, "lengths": "uniform:lots"}, "uniform:0.8"),
        ({"rate_per_s": 1.0, "lengths": "nowhere.csv"}, "nowhere.csv"),
        ({"rate_per_s": 1.0, "scheduler": "chaos"}, "no scheduler"),
        ({"rate_per_s": 1.0, "router": "chaos"}, "no router"),
        ({"rate_per_s": 1.0, "rank": 3}, "no plan of rank 3"),
        ({"rate_per_s": 1.0, "warmup_requests": -1}, "negative"),
        ({"rate_per_s": 1.0, "step_scale": 0.0}, "step scale"),
        ({"rate_per_s": 1.0, "token_budget": 0}, "token budget"),
    ],
)
def test_what_cannot_be_served_is_refused(asked, word):
    with pytest.raises(SpecError, match=word):
        shardwise.simulate(_plan("one chip"), **asked)


def test_more_than_the_pool_carries_is_said_with_its_saturation():
    result = _plan("one chip")
    saturated = shardwise.simulate(result, rate_per_s=500.0, n_requests=1500).summary()
    assert "saturates at about" in saturated.saturation
    fine = shardwise.simulate(result, rate_per_s=5.0, n_requests=500).summary()
    assert fine.saturation is None


@pytest.mark.slow
def test_the_smallest_pool_that_carries_a_rate_is_found_and_its_highest_rate_holds():
    asked = {"input_tokens": 512, "output_tokens": 64, "ttft_s": 0.5, "tpot_s": 0.03}
    one = shardwise.plan("llama-3-8b", "h100-sxm:..4", rate_per_s=5.0, **asked)
    assert one.best.n_chips == 1
    load = one.best.under_load
    assert load.is_met
    assert 5.0 < load.highest_rate_per_s < load.saturation_per_s
    over = shardwise.plan("llama-3-8b", "h100-sxm:1", rate_per_s=1.1 * load.saturation_per_s, **asked)
    assert over.plans == ()
    assert "saturate at" in over.nearest_miss
    two = shardwise.plan("llama-3-8b", "h100-sxm:..4", rate_per_s=1.3 * load.highest_rate_per_s, **asked)
    assert two.best.n_chips == 2
    late = shardwise.plan("llama-3-8b", "h100-sxm:1", rate_per_s=1.0, **(asked | {"ttft_s": 1e-3}))
    assert "do not keep them at any rate" in late.nearest_miss


def test_a_replay_of_a_simulated_run_finds_its_scale_again(tmp_path):
    result = _plan("one chip")
    asked = {"rate_per_s": 10.0, "n_requests": 80, "lengths": Fixed(input_tokens=400, output_tokens=30)}
    truth = shardwise.simulate(result, **asked, step_scale=1.3)
    c = truth.columns
    log = tmp_path / "run.jsonl"
    names = (
        "input_toks",
        "output_toks",
        "arrival_time",
        "queued_ts",
        "scheduled_ts",
        "first_token_ts",
        "last_token_ts",
    )
    sources = ("prompt_tokens", "output_tokens", "arrival_s", "arrival_s", "scheduled_s", "first_token_s", "finish_s")
    rows = ({n: c[s][i].item() for n, s in zip(names, sources, strict=True)} for i in range(80))
    log.write_text("\n".join(json.dumps(row | {"request_id": str(i)}) for i, row in enumerate(rows)))
    assert fit_step_scale(result, {"trace": log}, seed=0) == pytest.approx(
        1.3, rel=0.01
    )  # decode steps of other contexts than the plan's are a line apart
    compared = compare(shardwise.simulate(result, trace=log, step_scale=1.3), log)
    assert compared.ttft_rank_correlation > 0.999
    assert all(abs(row.error) < 1e-6 for row in compared.rows)


@pytest.mark.parametrize("run", ["RTXPRO6000__Llama-3.1-8B"])
def test_a_measured_run_is_replayed(run, shared_dir):
    trace = shared_dir / "traces" / "measured_vllm_runs" / f"{run}.requests.jsonl"
    result = shardwise.estimate("llama-3.1-8b", "rtx-pro-6000-blackwell:1", input_tokens=857, output_tokens=652)
    asked = {"trace": trace, "max_sequences": 128, "token_budget": 2048}
    scale = fit_step_scale(result, asked, seed=0)
    compared = compare(shardwise.simulate(result, **asked, step_scale=scale), trace)
    errors = {row.name: row.error for row in compared.rows}
    for name in ("TTFT p50", "TTFT p90", "TTFT p99", "e2e p50", "e2e p90", "e2e p99"):
        assert abs(errors[name]) < 0.15, name
    assert compared.ttft_rank_correlation > 0.98


def test_a_measured_run_of_experts_is_replayed(shared_dir):
    """Two chips, each with requests of its own and half of the experts; TTFT below the 90th percentile is left out.

    A median request finds room at once there, and what it waits for is which of two schedulers it came to.
    """
    trace = shared_dir / "traces" / "measured_vllm_runs" / "RTXPRO6000__Qwen3-30B-A3B-Instruct-2507.requests.jsonl"
    layout = "dp/heads/expert"
    result = shardwise.estimate(
        "qwen3-30b-a3b", "rtx-pro-6000-blackwell:2", input_tokens=800, output_tokens=600, batch=64, prefill=layout,
        decode=layout, engine="vllm-async",
    )  # fmt: skip
    asked = {"trace": trace, "max_sequences": 256, "token_budget": 4096}
    scale = fit_step_scale(result, asked, seed=0)
    assert 0.75 < scale < 1.33  # what no run of this model told the fit
    compared = compare(shardwise.simulate(result, **asked, step_scale=scale), trace)
    errors = {row.name: row.error for row in compared.rows}
    for name in ("TTFT p99", "e2e p50", "e2e p90", "e2e p99", "TPOT p50", "TPOT p90"):
        assert abs(errors[name]) < 0.10, name
