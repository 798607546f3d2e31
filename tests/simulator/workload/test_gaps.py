"""When synthetic requests come."""

import math
import time
from itertools import islice

import numpy as np
import pytest
from scipy import stats
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.workload.gaps import Burst, DayCurve, Even, Gamma, Modulated, parse_process

HOUR_S = 3600.0


def times_s(process, n, seed=0):
    return np.array(list(islice(process.times_s(np.random.default_rng(seed)), n)))


def gaps_s(process, n, seed=0):
    return np.diff(times_s(process, n, seed), prepend=0.0)


PROCESSES = [
    pytest.param(Gamma(rate_per_s=5.0), id="poisson"),
    pytest.param(Gamma(rate_per_s=5.0, burstiness=0.3), id="bursty"),
    pytest.param(Gamma(rate_per_s=5.0, burstiness=20.0), id="smooth"),
    pytest.param(Even(rate_per_s=5.0), id="even"),
    pytest.param(Modulated(rates_per_s=(2.0, 20.0), dwells_s=(6.0, 2.0)), id="modulated"),
    pytest.param(Modulated(rates_per_s=(0.0, 10.0), dwells_s=(1.0, 3.0)), id="on and off"),
    pytest.param(DayCurve(rates_per_s=(2.0, 2.0)), id="flat day"),
]


@pytest.mark.parametrize("process", PROCESSES)
def test_times_never_run_backwards_and_follow_the_seed_alone(process):
    found = times_s(process, 20_000)
    assert np.all(np.diff(found) >= 0)
    assert found[0] >= 0
    assert np.array_equal(found, times_s(process, 20_000))


@pytest.mark.parametrize("process", PROCESSES)
def test_the_long_run_rate_is_the_stated_one(process):
    """By batch means: thirty stretches of one run, far longer than any dwell, are all but independent."""
    n, batches = 150_000, 30
    spans = np.diff(times_s(process, n)[:: n // batches])
    mean, error = np.mean(spans) / (n // batches), np.std(spans, ddof=1) / math.sqrt(len(spans)) / (n // batches)
    # 4 standard errors: a fixed seed, so this never fails by chance; a rate 5 % off is 10 of them and more
    assert abs(mean - 1.0 / process.mean_rate_per_s) <= 4.0 * error + 1e-12


# below 0.3 many gaps are shorter than the rounding of a time, and so 0
@pytest.mark.parametrize("burstiness", [0.3, 0.5, 1.0, 4.0])
def test_gaps_have_the_gamma_distribution_with_its_whole_tail(burstiness):
    found = gaps_s(Gamma(rate_per_s=3.0, burstiness=burstiness), 100_000)
    exact = stats.gamma(burstiness, scale=1.0 / (3.0 * burstiness))
    # Kolmogorov-Smirnov at a fixed seed; 1e-3 would be missed by one seed in a thousand
    assert stats.kstest(found, exact.cdf).pvalue > 1e-3
    # nothing is cut at 3 mean gaps: there the distribution still has the share it should, within 4 binomial deviations
    share, expected = np.mean(found > 1.0), exact.sf(1.0)
    assert abs(share - expected) <= 4.0 * math.sqrt(expected * (1.0 - expected) / len(found))
    assert found.max() > exact.ppf(1.0 - 1e-4)


def test_gaps_do_not_depend_on_each_other_across_chunks():
    found = gaps_s(Gamma(rate_per_s=1.0), 100_000)
    # the correlation of independent gaps has the standard deviation 1 / sqrt(n)
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4.0 / math.sqrt(len(found))


def test_even_requests_are_a_gap_apart_however_long_it_goes_on():
    found = times_s(Even(rate_per_s=3.0), 10_000)
    np.testing.assert_allclose(found, np.arange(1, 10_001) / 3.0, rtol=1e-15)


def test_a_burst_comes_at_the_start():
    assert times_s(Burst(), 1000).tolist() == [0.0] * 1000
    assert Burst().mean_rate_per_s == math.inf


def test_counts_of_a_modulated_process_spread_as_theory_says():
    """Two states of equal dwell d: variance over mean of the counts in long windows is 1 + (r0 - r1)² d / (2 (r0 + r1))."""
    low, high, dwell_s, window_s = 2.0, 12.0, 1.0, 50.0
    found = times_s(Modulated(rates_per_s=(low, high), dwells_s=(dwell_s, dwell_s)), 400_000)
    counts = np.histogram(found, np.arange(0.0, found[-1], window_s))[0]
    expected = 1.0 + (high - low) ** 2 * dwell_s / (2.0 * (low + high))
    # 1100 windows tell a variance to 4 %; windows of 50 dwells lack 1 % of the far-out value
    assert np.var(counts) / np.mean(counts) == pytest.approx(expected, rel=0.15)


def test_a_silent_state_sends_nothing():
    process = Modulated(rates_per_s=(1000.0, 0.0), dwells_s=(1.0, 50.0))
    found = gaps_s(process, 20_000)
    assert found.max() > 10.0  # a thousand times longer than any gap at 1000 a second


def test_the_day_curve_repeats_and_is_followed_hour_by_hour():
    rates = (1.0, 0.0, 4.0, 2.0)
    process = DayCurve(rates_per_s=rates)
    assert process.mean_rate_per_s == pytest.approx(np.mean(rates))
    assert process.rate_at(np.array([0.0, 3.0, 12.0, 15.0, 21.0, 24.0, 36.0]) * HOUR_S) == pytest.approx(
        [1.0, 0.5, 4.0, 3.0, 1.5, 1.0, 4.0]
    )
    found = times_s(process, 450_000)  # 2.9 days
    edges = np.arange(0.0, 60.5, 1.0) * HOUR_S
    counts = np.histogram(found, edges)[0]
    fine = process.rate_at(np.arange(0, 60 * 3600) + 0.5).reshape(60, 3600).sum(axis=1)
    # a Poisson count minus its mean over its deviation: below 4.5 for all 60 hours, at a fixed seed
    assert np.all(np.abs(counts - fine) <= 4.5 * np.sqrt(fine) + 1e-9)


def test_a_million_arrivals_take_little_time():
    began = time.perf_counter()
    last = next(islice(Gamma(rate_per_s=100.0).times_s(np.random.default_rng(0)), 999_999, None))
    # 0.06 s on the two slow cores this was written on; the bound only tells chunks from one draw a time (3 s)
    assert time.perf_counter() - began < 1.5
    assert last > 0


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(lambda r=r: Gamma(rate_per_s=r), id=f"rate {r}") for r in (0.0, -1.0, math.nan, math.inf)),
        *(pytest.param(lambda b=b: Gamma(rate_per_s=1.0, burstiness=b), id=f"shape {b}") for b in (0.0, -1.0, math.nan)),
        pytest.param(lambda: Even(rate_per_s=0.0), id="even rate 0"),
        pytest.param(lambda: Modulated(rates_per_s=(), dwells_s=()), id="no states"),
        pytest.param(lambda: Modulated(rates_per_s=(1.0,), dwells_s=(1.0, 2.0)), id="a dwell too many"),
        pytest.param(lambda: Modulated(rates_per_s=(0.0, 0.0), dwells_s=(1.0, 2.0)), id="never a request"),
        pytest.param(lambda: Modulated(rates_per_s=(1.0, -1.0), dwells_s=(1.0, 2.0)), id="negative rate"),
        pytest.param(lambda: Modulated(rates_per_s=(1.0, math.inf), dwells_s=(1.0, 2.0)), id="infinite rate"),
        pytest.param(lambda: Modulated(rates_per_s=(1.0, 2.0), dwells_s=(1.0, math.nan)), id="dwell that is no number"),
        pytest.param(lambda: DayCurve(rates_per_s=()), id="empty day"),
        pytest.param(lambda: DayCurve(rates_per_s=(0.0, 0.0)), id="day without requests"),
        pytest.param(lambda: DayCurve(rates_per_s=(1.0, math.nan)), id="day that is no number"),
        pytest.param(lambda: parse_process("weibull", 1.0), id="unknown name"),
    ],
)  # fmt: skip
def test_what_is_no_process_is_refused(make):
    with pytest.raises(SpecError):
        make()


def test_processes_go_by_name_and_an_infinite_rate_is_a_burst():
    assert parse_process("poisson", 2.0) == Gamma(rate_per_s=2.0)
    assert parse_process("gamma", 2.0, 0.5) == Gamma(rate_per_s=2.0, burstiness=0.5)
    assert parse_process("even", 2.0) == Even(rate_per_s=2.0)
    assert parse_process("poisson", math.inf) == Burst()
