"""How long synthetic requests are."""

import gzip
import math

import numpy as np
import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.workload.lengths import Empirical, Fixed, LogNormal, UniformRatio, read_lengths

HEADER = "num_prefill_tokens,num_decode_tokens"


def drawn(lengths, n=50_000, seed=0):
    return lengths.sample(np.random.default_rng(seed), n)


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param(Fixed(input_tokens=100, output_tokens=7), id="fixed"),
        pytest.param(UniformRatio(input_tokens=1024, output_tokens=1, ratio=0.8), id="uniform"),
        pytest.param(LogNormal(input_mean=3.0, output_mean=1.0, input_cv=3.0), id="lognormal near 1"),
        pytest.param(Empirical(((1, 2), (3, 4))), id="empirical"),
    ],
)
def test_lengths_are_whole_at_least_one_and_follow_the_seed(lengths):
    n_in, n_out = drawn(lengths, 1000)
    assert n_in.dtype == n_out.dtype == np.int64
    assert n_in.shape == n_out.shape == (1000,)
    assert min(n_in.min(), n_out.min()) >= 1
    again = drawn(lengths, 1000)
    assert np.array_equal(n_in, again[0])
    assert np.array_equal(n_out, again[1])


def test_uniform_lengths_take_every_value_between_the_ratio_and_the_nominal_length():
    n_in, n_out = drawn(UniformRatio(input_tokens=50, output_tokens=20, ratio=0.8))
    assert set(n_in.tolist()) == set(range(40, 51))
    assert set(n_out.tolist()) == set(range(16, 21))
    counts = np.bincount(n_in)[40:]
    # eleven binomial counts of 50,000 / 11, each within 4 deviations at a fixed seed
    assert np.all(np.abs(counts - 50_000 / 11) < 4.0 * math.sqrt(50_000 / 11))
    assert abs(np.corrcoef(n_in, n_out)[0, 1]) < 4.0 / math.sqrt(50_000)


def test_lognormal_lengths_have_the_mean_and_the_variation_asked_for():
    n_in, n_out = drawn(LogNormal(input_mean=2000.0, output_mean=300.0, input_cv=0.5, output_cv=1.5), 400_000)
    for found, mean, cv in ((n_in, 2000.0, 0.5), (n_out, 300.0, 1.5)):
        # 4 standard errors of the mean; the variation of a heavy tail is told to about 3 % by so many
        assert np.mean(found) == pytest.approx(mean, rel=4.0 * cv / math.sqrt(len(found)))
        assert np.std(found) / np.mean(found) == pytest.approx(cv, rel=0.03)


def test_a_lognormal_without_variation_is_fixed():
    n_in, n_out = drawn(LogNormal(input_mean=10.0, output_mean=5.0, input_cv=0.0, output_cv=0.0), 100)
    assert set(n_in.tolist()) == {10}
    assert set(n_out.tolist()) == {5}


def test_empirical_lengths_keep_their_pairs():
    pairs = ((10, 1), (20, 2), (30, 3))
    n_in, n_out = drawn(Empirical(pairs))
    assert set(zip(n_in.tolist(), n_out.tolist(), strict=True)) == set(pairs)
    # binomial counts of a third each, within 4 deviations
    assert np.all(np.abs(np.bincount(n_out)[1:] - 50_000 / 3) < 4.0 * math.sqrt(50_000 * 2 / 9))


@pytest.mark.parametrize("is_gzip", [False, True])
def test_pairs_are_read_by_column_from_a_csv(tmp_path, is_gzip):
    text = "ratio,num_decode_tokens,num_prefill_tokens\n1.0,4,3\n2.0,6,5\n"
    path = tmp_path / ("pairs.csv.gz" if is_gzip else "pairs.csv")
    path.write_bytes(gzip.compress(text.encode()) if is_gzip else text.encode())
    assert read_lengths(path).pairs == ((3, 4), (5, 6))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "no columns", id="empty"),
        pytest.param("a,b\n1,2\n", "no columns", id="other columns"),
        pytest.param(f"{HEADER}\n", "no pair", id="no rows"),
        pytest.param(f"{HEADER}\n1,2\n3,many\n", "line 3", id="no number"),
        pytest.param(f"{HEADER}\n5\n", "line 2", id="a field short"),
        pytest.param(f"{HEADER}\n5,0\n", "line 2", id="no output"),
    ],
)
def test_a_file_that_is_no_table_of_pairs_is_refused(tmp_path, text, said):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        read_lengths(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    garbage, torn = tmp_path / "garbage.csv", tmp_path / "torn.csv.gz"
    garbage.write_bytes(bytes(range(256)))
    torn.write_bytes(gzip.compress(f"{HEADER}\n1,2\n".encode() * 1000)[:-20])
    for path in (tmp_path, tmp_path / "none.csv", garbage, torn):
        with pytest.raises(SpecError):
            read_lengths(path)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Fixed(input_tokens=0, output_tokens=1), id="no input"),
        pytest.param(lambda: Fixed(input_tokens=1, output_tokens=-1), id="negative output"),
        pytest.param(lambda: UniformRatio(input_tokens=10, output_tokens=10, ratio=0.0), id="ratio 0"),
        pytest.param(lambda: UniformRatio(input_tokens=10, output_tokens=10, ratio=1.1), id="ratio above 1"),
        pytest.param(lambda: UniformRatio(input_tokens=10, output_tokens=10, ratio=math.nan), id="ratio no number"),
        pytest.param(lambda: LogNormal(input_mean=math.inf, output_mean=1.0), id="infinite mean"),
        pytest.param(lambda: LogNormal(input_mean=1.0, output_mean=1.0, output_cv=-0.1), id="negative variation"),
        pytest.param(lambda: LogNormal(input_mean=1.0, output_mean=1.0, input_cv=math.nan), id="variation no number"),
        pytest.param(lambda: Empirical(()), id="no pairs"),
        pytest.param(lambda: Empirical(((5, 0),)), id="pair without output"),
    ],
)
def test_what_is_no_distribution_is_refused(make):
    with pytest.raises(SpecError):
        make()


def test_published_lengths_are_read(shared_dir):
    traces = shared_dir / "traces"
    for name in ("sharegpt_v3_lengths.csv", "vidur_arxiv_summarization_lengths.csv.gz"):
        assert len(read_lengths(traces / name).pairs) > 10_000
