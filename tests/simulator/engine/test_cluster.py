"""Replicas together: routers, pools, transfers, failures, scaling; and schedulers against each other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.cost.step_time import ConstantSteps
from shardwise.simulator.engine.deployment import Autoscaling, Deployment, Failures, Pool, Speculation
from shardwise.simulator.engine.routers import ROUTERS
from shardwise.simulator.run import simulate
from shardwise.simulator.workload.arrival import Arrival
from shardwise.simulator.workload.gaps import Gamma
from shardwise.simulator.workload.lengths import Fixed, LogNormal
from shardwise.simulator.workload.synthetic import ClosedLoop, SyntheticTraffic

from tests.serving import POLICIES, GrowingSteps, Listed, arrivals, deployment, served, spec

MIXED = LogNormal(input_mean=150, output_mean=40)


def traffic(n=300, rate_per_s=30.0, lengths=MIXED, **changes):
    return SyntheticTraffic(process=Gamma(rate_per_s=rate_per_s), lengths=lengths, n_requests=n, **changes)


@pytest.mark.parametrize("scheduler", POLICIES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(scheduler, tmp_path):
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = tmp_path / f"{name}.csv"
        served(deployment(scheduler, n=2), traffic(), seed=seed).write(path)
        texts.append(path.read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_two_simulations_side_by_side_do_not_touch_each_other():
    alone = served(deployment("vllm"), traffic()).summary()
    other = served(deployment("chunked"), traffic(rate_per_s=5.0)).summary()
    again = served(deployment("vllm"), traffic()).summary()
    assert alone.model_copy(update={"wall_s": 0.0}) == again.model_copy(update={"wall_s": 0.0})
    assert other.ttft_s != again.ttft_s


@pytest.mark.parametrize("scheduler", POLICIES)
def test_a_request_longer_than_the_cache_is_refused_and_counted(scheduler):
    stream = arrivals((0.0, 100, 5), (0.1, 6400, 5), (0.2, 6395, 6), (0.3, 50, 5))
    summary = served(deployment(scheduler), stream).summary()
    # 400 pages of 16 tokens hold 6395 tokens of prompt and 5 of the answer, whose last is never stored
    assert (summary.finished, summary.rejected) == (3, 1)
    assert summary.reasons == {"longer than the KV cache of 6400 tokens": 1}


def test_a_request_longer_than_the_model_can_read_is_refused():
    summary = served(deployment(replica=spec(max_context=128)), arrivals((0.0, 100, 28), (0.0, 100, 29))).summary()
    assert (summary.finished, summary.rejected) == (1, 1)


@pytest.mark.parametrize("scheduler", POLICIES)
def test_a_small_cache_serves_everybody_in_the_end(scheduler):
    summary = served(
        deployment(scheduler, spec(n_pages=45)), traffic(lengths=Fixed(input_tokens=150, output_tokens=90))
    ).summary()
    assert summary.finished == 300
    assert summary.kv_peak <= 1.0
    if scheduler in ("static", "orca"):
        assert summary.n_preemptions == 0
    else:
        assert summary.n_preemptions > 0


def test_chunked_prefill_shortens_the_longest_gap_between_tokens_and_prefill_first_the_wait_for_the_first():
    stream = traffic(n=200, rate_per_s=6.0, lengths=Fixed(input_tokens=2000, output_tokens=60))
    steps = spec(n_pages=4000, token_budget=256)
    chunked, first = (served(deployment(name, steps), stream) for name in ("chunked", "vllm"))
    assert chunked.gaps.quantile_s(0.99) < first.gaps.quantile_s(0.99)
    assert np.median(first.ttft_s) < np.median(chunked.ttft_s)


def test_static_batches_wait_for_their_longest_answer():
    stream = arrivals((0.0, 10, 100), (0.0, 10, 2), (0.1, 10, 2))
    report = served(deployment("static", spec(max_sequences=2)), stream)
    scheduled, finish = report.columns["scheduled_s"], report.columns["finish_s"]
    assert finish[1] < finish[0]
    assert scheduled[2] >= finish[0]


def test_urgent_requests_overtake_and_push_out_others():
    crowd = [Arrival(arrival_s=0.0, input_tokens=100, output_tokens=200, priority=1) for _ in range(4)]
    urgent = Arrival(arrival_s=0.5, input_tokens=100, output_tokens=10, priority=0)
    made = deployment("priority", spec(max_sequences=4))
    report = served(made, Listed((*crowd, urgent)))
    assert report.columns["finish_s"][4] < report.columns["finish_s"][:4].min()
    assert report.columns["n_preemptions"].sum() == 1


def test_late_requests_wait_behind_those_that_can_be_in_time():
    stream = traffic(n=400, rate_per_s=60.0, lengths=Fixed(input_tokens=200, output_tokens=40))
    plain = served(deployment("chunked"), stream)
    aware = served(deployment("deadline", ttft_limit_s=1.0), stream)
    in_time = [float(np.mean(report.ttft_s <= 1.0)) for report in (plain, aware)]
    assert in_time[1] > 2 * in_time[0]


@pytest.mark.parametrize("router", sorted(ROUTERS))
def test_every_router_spreads_the_load_evenly(router):
    made = deployment(replica=spec(n_pages=2000), n=4, router=router)
    report = served(made, traffic(n=400, rate_per_s=40.0))
    counts = np.bincount(report.columns["replica"], minlength=4)
    assert counts.min() > 60, counts
    assert report.summary().finished == 400


def test_idle_replicas_take_turns_under_the_least_outstanding_router():
    stream = arrivals(*((10.0 * i, 50, 5) for i in range(40)))
    report = served(deployment(n=4), stream)
    assert np.bincount(report.columns["replica"]).tolist() == [10, 10, 10, 10]


def _conversations(n_users, turns, block=64):
    requests = []
    for turn in range(turns):
        for user in range(n_users):
            hashes = tuple(1000 * user + i for i in range(4 * (turn + 1)))
            requests.append(
                Arrival(arrival_s=20.0 * turn + 0.5 * user, input_tokens=block * len(hashes) + 7, output_tokens=8,
                        block_hashes=hashes, block_tokens=block)
            )  # fmt: skip
    return Listed(tuple(requests))


def test_prompts_that_begin_alike_are_read_once():
    stream = _conversations(3, 4)
    cached = served(deployment(replica=spec(n_pages=1000)), stream)
    plain = served(deployment(replica=spec(n_pages=1000), prefix_caching=False), stream)
    # turns of 4, 8, 12, 16 blocks of which all but the newest four are known
    assert cached.columns["cached_prompt_tokens"].tolist() == [0] * 3 + [256] * 3 + [512] * 3 + [768] * 3
    assert plain.columns["cached_prompt_tokens"].sum() == 0
    assert np.all(cached.ttft_s[3:] < plain.ttft_s[3:])


def test_blocks_that_are_no_whole_pages_are_not_shared():
    report = served(deployment(replica=spec(n_pages=1000, page_tokens=48)), _conversations(3, 2))
    assert report.columns["cached_prompt_tokens"].sum() == 0


def test_a_full_cache_forgets_the_blocks_used_longest_ago():
    report = served(deployment(replica=spec(n_pages=90)), _conversations(3, 4))
    assert 0 < report.columns["cached_prompt_tokens"].sum() < 3 * (256 + 512 + 768)


def test_the_prefix_aware_router_keeps_a_conversation_together():
    replica = spec(n_pages=2000)
    shares = [
        served(deployment(replica=replica, n=3, router=router), _conversations(9, 4)).summary().cached_prompt_share
        for router in ("prefix-aware", "round-robin", "power-of-two")
    ]
    assert shares[0] == max(shares) > shares[2]


@given(st.integers(1, 6), st.integers(0, 10))
def test_a_draft_that_is_never_accepted_changes_nothing_but_the_price(draft_tokens, seed):
    stream = traffic(n=30)
    steps = ConstantSteps(prefill_s=0.0, decode_step_s=0.02)
    plain = served(deployment("orca", spec(steps)), stream, seed=seed)
    drafted = served(
        deployment("orca", spec(steps), speculation=Speculation(draft_tokens=draft_tokens, acceptance=0.0)),
        stream,
        seed=seed,
    )
    assert plain.gaps.n == drafted.gaps.n
    assert np.array_equal(plain.columns["output_done"], drafted.columns["output_done"])


def test_speculation_writes_as_many_tokens_a_step_as_the_closed_form_says():
    draft = Speculation(draft_tokens=4, acceptance=0.7)
    steps = ConstantSteps(prefill_s=0.0, decode_step_s=0.0)
    made = deployment("orca", spec(replace_chunks(steps), n_pages=3000, max_sequences=1), speculation=draft)
    report = served(made, arrivals((0.0, 1, 40_001)))
    steps_taken = report.columns["finish_s"][0]  # each takes one second
    expected = (1 - 0.7**5) / (1 - 0.7)  # Leviathan et al. 2023, expected tokens a step
    assert 40_000 / steps_taken == pytest.approx(expected, rel=0.03)  # 14,000 draws: three standard errors


def replace_chunks(steps):
    """A pass that checks a draft takes a second, a prompt none."""

    class Checking(ConstantSteps):
        def pass_s(self, chunks, sequences=0, context_tokens=0):
            return float(any(chunk.new_tokens == 5 for chunk in chunks))

    return Checking(prefill_s=steps.prefill_s, decode_step_s=steps.decode_step_s)


def test_a_pipeline_overlaps_batches_and_loses_bubbles_where_they_differ():
    stream = ClosedLoop(n_users=16, lengths=Fixed(input_tokens=10, output_tokens=100), n_requests=160)

    def finished(shares, **changes):
        steps = GrowingSteps(stage_shares=shares)
        return served(deployment(replica=spec(steps, **changes)), stream).duration_s

    one, four = finished((1.0,)), finished((0.25,) * 4)
    uneven = finished((0.55, 0.15, 0.15, 0.15))
    assert four < one
    assert four < uneven


def test_a_cache_goes_over_the_network_and_waits_for_the_others_on_it():
    def first_gap(n):
        stream = arrivals(*((0.0, 64, 3) for _ in range(n)))
        steps = ConstantSteps(prefill_s=0.0, decode_step_s=0.0)
        report = served(deployment("disaggregated", spec(steps, token_budget=10_000)), stream)
        return (report.columns["finish_s"] - report.columns["first_token_s"]).max()

    # 64 tokens of 1e5 bytes over 1e10 bytes/s
    assert first_gap(1) == pytest.approx(64e5 / 1e10)
    assert first_gap(8) == pytest.approx(8 * 64e5 / 1e10)


def test_prefill_and_decode_lie_on_their_own_replicas():
    report = served(deployment("disaggregated", n=2), traffic())
    assert set(report.columns["replica"]) == {2, 3}
    assert {use.role for use in report.replicas} == {"prefill", "decode"}
    assert all(use.busy_s > 0 for use in report.replicas)


@pytest.mark.parametrize("scheduler", ["chunked", "static", "vllm", "disaggregated"])
def test_requests_of_a_dead_replica_begin_anew_elsewhere(scheduler):
    failures = Failures(chip_mtbf_s=5.0, repair_s=2.0)
    summary = served(deployment(scheduler, n=2, failures=failures), traffic(n=400, rate_per_s=10.0)).summary()
    assert summary.finished == 400
    assert summary.n_failures > 0 < summary.n_restarts
    assert summary.lost == 0


@pytest.mark.parametrize("scheduler", ["chunked", "disaggregated"])
def test_requests_of_a_dead_replica_are_lost_where_that_is_the_policy(scheduler):
    failures = Failures(chip_mtbf_s=5.0, repair_s=2.0, retries=False)
    summary = served(deployment(scheduler, n=2, failures=failures), traffic(n=400, rate_per_s=10.0)).summary()
    assert summary.lost > 0 == summary.n_restarts
    assert summary.finished + summary.lost == 400
    assert summary.reasons == {"lost with its replica": summary.lost}


def test_replicas_come_with_the_load_and_go_when_it_is_gone():
    scaling = Autoscaling(least=1, most=4, target_outstanding=8, startup_s=2.0, interval_s=1.0)
    pool = Pool(replica=spec(), n_replicas=1, autoscaling=scaling)
    rush = [(0.02 * i, 200, 60) for i in range(500)]
    trickle = [(60.0 + i, 50, 5) for i in range(40)]
    report = served(Deployment(pools=(pool,)), arrivals(*rush, *trickle))
    n_replicas = report.series_to_pandas()["n_replicas"]
    assert n_replicas.max() == 4
    assert n_replicas.iloc[-1] == 1
    fixed = served(deployment(n=4), arrivals(*rush, *trickle))
    assert report.summary().chip_s < fixed.summary().chip_s
    slow = served(
        Deployment(pools=(replace(pool, autoscaling=replace(scaling, startup_s=30.0)),)), arrivals(*rush, *trickle)
    )
    assert np.mean(slow.ttft_s) > np.mean(report.ttft_s)


def test_a_closed_loop_keeps_as_many_requests_as_it_has_users():
    loop = ClosedLoop(n_users=5, lengths=MIXED, n_requests=200)
    report = served(deployment(replica=spec(n_pages=4000)), loop)
    series = report.series_to_pandas()
    inside = series["n_waiting"] + series["n_running"]
    assert inside.max() <= 5
    # two answers may come in one step
    assert inside.iloc[20:-20].min() >= 3
    assert report.summary().finished == 200


def test_a_run_that_is_stopped_is_marked_and_keeps_what_it_has():
    report = simulate(deployment(), traffic(n=1000), until_s=5.0)
    summary = report.summary()
    assert summary.partial
    assert 0 < summary.finished < 1000
    assert summary.unfinished > 0


def test_ctrl_c_leaves_a_partial_result():
    def stop(n):
        raise KeyboardInterrupt

    summary = simulate(deployment(replica=spec(n_pages=4000)), traffic(n=3000, rate_per_s=10.0), advance=stop).summary()
    assert summary.partial
    assert summary.finished == 1000


def test_what_cannot_serve_is_refused():
    with pytest.raises(SpecError, match="both phases"):
        Deployment(pools=(Pool(replica=spec(), n_replicas=1, role="prefill"),))
    with pytest.raises(SpecError, match="at least one replica"):
        Deployment(pools=(Pool(replica=spec(), n_replicas=0),))
    with pytest.raises(SpecError, match="n_pages"):
        spec(n_pages=0)
