"""Many decode steps at once are the same as one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.simulator.engine.policies import UNLIMITED

from tests.serving import POLICIES, arrivals, deployment, served, spec

# Sums of the same steps in another order.
_ROUNDING = 1e-9

requests = st.lists(
    st.tuples(st.floats(0.0, 3.0), st.integers(1, 700), st.integers(1, 150)), min_size=1, max_size=30
).map(sorted)


def _assert_same(scheduler, triples, **changes):
    replica = spec(n_pages=changes.pop("n_pages", 120))
    many, one = (
        served(deployment(scheduler, replica, most_steps=most, **changes), arrivals(*triples))
        for most in (UNLIMITED, 1)
    )
    for name in ("outcome", "output_done", "n_preemptions"):
        assert np.array_equal(many.columns[name], one.columns[name]), name
    for name in ("scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_allclose(many.columns[name], one.columns[name], rtol=_ROUNDING, atol=_ROUNDING)
    assert many.gaps.n == one.gaps.n
    assert many.gaps.sum_s == pytest.approx(one.gaps.sum_s, rel=1e-9, abs=1e-9)
    assert sum(use.busy_s for use in many.replicas) == pytest.approx(sum(use.busy_s for use in one.replicas), rel=1e-9)


@pytest.mark.parametrize("scheduler", POLICIES)
@given(triples=requests)
def test_many_steps_at_once_equal_one_by_one(scheduler, triples):
    _assert_same(scheduler, triples)


@given(triples=requests)
def test_they_do_where_the_cache_is_swapped(triples):
    _assert_same("vllm", triples, preemption="swap", n_pages=60)


@given(triples=requests)
def test_the_gaps_between_tokens_sum_up_to_the_time_of_decoding(triples):
    report = served(deployment("chunked", spec(n_pages=60)), arrivals(*triples))
    c, done = report.columns, report.kept
    assert report.gaps.n == int((c["output_tokens"][done] - 1).sum())
    decode_s = float((c["finish_s"] - c["first_token_s"])[done].sum())
    assert report.gaps.sum_s == pytest.approx(decode_s, rel=1e-9, abs=1e-9)
