"""Queueing theory, for every scheduler it applies to."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from shardwise.simulator.cost.step_time import ConstantSteps
from shardwise.simulator.report import t_interval
from shardwise.simulator.run import simulate
from shardwise.simulator.workload.gaps import Gamma
from shardwise.simulator.workload.lengths import Fixed
from shardwise.simulator.workload.synthetic import SyntheticTraffic

from tests.serving import CONTINUOUS, deployment, served, spec

SEEDS = range(20)


def traffic(rate_per_s, lengths, n_requests):
    return SyntheticTraffic(process=Gamma(rate_per_s=rate_per_s), lengths=lengths, n_requests=n_requests)


@pytest.mark.parametrize("scheduler", ["static", *CONTINUOUS])
def test_one_prompt_at_a_time_is_an_m_d_1_queue(scheduler):
    service_s, rho = 1.0, 0.7
    made = deployment(scheduler, spec(ConstantSteps(prefill_s=service_s, decode_step_s=1.0), max_sequences=1))
    stream = traffic(rho / service_s, Fixed(input_tokens=10, output_tokens=1), 1500)
    waits = []
    for seed in SEEDS:
        report = simulate(made, stream, seed=seed, warmup_requests=100)
        waits.append(float(np.mean(report.ttft_s)) - service_s)
    # 99 %: seven schedulers see the same 20 streams
    interval = t_interval(waits, confidence=0.99)
    assert interval.low <= rho * service_s / (2.0 * (1.0 - rho)) <= interval.high


@dataclass(frozen=True)
class Exponential:
    """Answers of geometric length: a service time without memory."""

    mean_tokens: float

    def sample(self, rng, n):
        return np.ones(n, np.int64), rng.geometric(1.0 / self.mean_tokens, n) + 1


def erlang_c(servers, load):
    """Chance that a request waits in an M/M/c queue."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(
    "scheduler", ["chunked", *(pytest.param(name, marks=pytest.mark.slow) for name in CONTINUOUS if name != "chunked")]
)
def test_places_that_do_not_slow_each_other_are_an_m_m_c_queue(scheduler):
    servers, rho, mean_tokens = 4, 0.8, 5000.0
    step_s = 1.0 / mean_tokens
    replica = spec(ConstantSteps(prefill_s=0.0, decode_step_s=step_s), max_sequences=servers, n_pages=100_000)
    made = deployment(scheduler, replica)
    stream = traffic(rho * servers, Exponential(mean_tokens), 2500)
    waits = []
    for seed in SEEDS:
        report = simulate(made, stream, seed=seed, warmup_requests=200)
        columns, kept = report.columns, report.kept
        waits.append(float(np.mean((columns["scheduled_s"] - columns["arrival_s"])[kept])))
    interval = t_interval(waits, confidence=0.99)
    expected = erlang_c(servers, rho * servers) / (servers - rho * servers)
    assert interval.low <= expected <= interval.high


@pytest.mark.parametrize("scheduler", CONTINUOUS)
def test_the_number_in_the_system_is_the_rate_times_the_time_in_it(scheduler):
    stream = traffic(20.0, Fixed(input_tokens=50, output_tokens=20), 1500)
    report = served(deployment(scheduler), stream)
    series = report.series_to_pandas()
    inside = (series["n_waiting"] + series["n_running"]).to_numpy(float)
    mean_inside = np.sum(inside[:-1] * np.diff(series["time_s"])) / (
        series["time_s"].iloc[-1] - series["time_s"].iloc[0]
    )
    # samples are taken at arrivals and answers, so the steps between them are exact; the ends are not in balance
    assert mean_inside == pytest.approx(report.summary().requests_per_s * np.mean(report.e2e_s), rel=0.02)


@pytest.mark.parametrize("scheduler", ["static", *CONTINUOUS])
def test_chips_work_whenever_a_request_is_in_the_system_and_only_then(scheduler):
    stream = traffic(8.0, Fixed(input_tokens=300, output_tokens=12), 400)
    report = served(deployment(scheduler), stream)
    begin, end = report.columns["arrival_s"], report.columns["finish_s"]
    busy, until = 0.0, 0.0
    for a, b in sorted(zip(begin, end, strict=True)):
        busy += max(0.0, b - max(a, until))
        until = max(until, b)
    assert sum(use.busy_s for use in report.replicas) == pytest.approx(busy, rel=1e-9)
