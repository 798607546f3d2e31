import csv
import math

import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.dtypes import parse_dtype
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.catalogue import get_model
from shardwise.validate.lengths import find_dataset, load_datasets, request_lengths
from shardwise.validate.metrics import METRICS, UNITS, Outcome, Quantities, parse_target

EXPECTED = Quantities(
    ttft_s=1.0,
    tpot_s=2.0,
    generate_s=3.0,
    e2e_s=4.0,
    output_tokens_per_s=160.0,
    requests_per_s=320.0,
    all_tokens_per_s=480.0,
    input_tokens_per_s=640.0,
)
OUTCOME = Outcome(expected=EXPECTED, quick=EXPECTED, slow=EXPECTED, n_chips=16, n_nodes=2, n_users=32)
TABLE = {
    "ttft_s": "latency_prefill prompt_phase_latency first_token_latency prefill_plus_first_token_latency ttft",
    "generate_s": "latency_generate latency_decode",
    "tpot_s": "latency_per_token_decode mean_token_time tpot itl per_token_latency latency_per_generated_token_per_seq",
    "e2e_s": "latency_total e2e_latency e2e",
    "output_tokens_per_s": "max_output_throughput output_throughput throughput_offline throughput_server "
    "throughput_interactive decode_tokens_per_s",
    "requests_per_s": "request_throughput samples_per_s",
    "all_tokens_per_s": "total_token_throughput",
    "input_tokens_per_s": "prefill_throughput prefill_input_throughput",
}
ROWS = [(metric, quantity) for quantity, names in TABLE.items() for metric in names.split()]


@pytest.mark.parametrize(("metric", "quantity"), ROWS)
@pytest.mark.parametrize("suffix", ["", "_mean", "_p50", "_p90", "_p99"])
def test_every_metric_reads_its_quantity_whatever_statistic_follows(metric, quantity, suffix):
    unit = "s" if not quantity.endswith("per_s") else "req/s" if quantity == "requests_per_s" else "tok/s"
    target = parse_target(metric + suffix, unit)
    assert target.metric.quantity == quantity
    divisor = OUTCOME.n_users if metric == "latency_per_generated_token_per_seq" else 1
    assert target.read(OUTCOME).predicted == getattr(EXPECTED, quantity) / divisor


def test_the_table_has_no_metric_beside_those():
    assert sorted(METRICS) == sorted(metric for metric, _ in ROWS)


@pytest.mark.parametrize(
    ("metric", "unit", "predicted"),
    [
        ("ttft_p99", "ms", 1000.0),
        ("tpot", "us", 2e6),
        ("output_throughput_per_chip", "tok/s", 10.0),
        ("output_throughput_per_chip", "tok/s/chip", 10.0),
        ("output_throughput", "tok/s/chip", 10.0),
        ("output_throughput_mean_per_node", "tok/s/node", 80.0),
        ("prefill_input_throughput_per_node", "tok/s/node", 320.0),
        ("decode_tokens_per_s", "tok/s/user", 5.0),
        ("throughput_offline", "Tokens/s", 160.0),
        ("throughput_offline", "Samples/s", 160.0),
        ("throughput_interactive", "Queries/s", 160.0),
        ("samples_per_s", "samples/s", 320.0),
    ],
)
def test_values_come_in_the_unit_of_the_row(metric, unit, predicted):
    assert parse_target(metric, unit).read(OUTCOME).predicted == pytest.approx(predicted)


@pytest.mark.parametrize(
    ("metric", "unit", "word"),
    [
        ("peak_power_norm", "fraction of TDP", "not predicted"),
        ("busbw", "GB/s", "not predicted"),
        ("", "ms", "not predicted"),
        ("ttft", "fortnight", "unknown"),
        ("ttft", "", "unknown"),
        ("ttft", "tok/s", "does not fit"),
        ("output_throughput", "req/s", "does not fit"),
        ("output_throughput_per_chip", "tok/s/node", "same share"),
        ("ttft_per_chip", "ms", "same share"),
    ],
)
def test_what_is_not_in_the_table_says_so(metric, unit, word):
    with pytest.raises(SpecError, match=word):
        parse_target(metric, unit)


def test_the_interval_of_a_rate_is_turned_round():
    quick, slow = Quantities(output_tokens_per_s=200.0, ttft_s=0.5), Quantities(output_tokens_per_s=100.0, ttft_s=3.0)
    outcome = Outcome(expected=EXPECTED, quick=quick, slow=slow, n_chips=1, n_nodes=None, n_users=1)
    rate = parse_target("output_throughput", "tok/s").read(outcome)
    assert (rate.low, rate.predicted, rate.high) == (100.0, 160.0, 200.0)
    time = parse_target("ttft", "s").read(outcome)
    assert (time.low, time.predicted, time.high) == (0.5, 1.0, 3.0)


def test_a_share_of_a_node_needs_nodes_and_a_bound_has_no_upper_end():
    outcome = Outcome(expected=EXPECTED, quick=EXPECTED, slow=None, n_chips=1, n_nodes=None, n_users=1)
    with pytest.raises(SpecError, match="no nodes"):
        parse_target("output_throughput_per_node", "tok/s").read(outcome)
    assert parse_target("ttft", "s").read(outcome).high is None
    assert parse_target("output_throughput", "tok/s").read(outcome).low is None


@pytest.mark.parametrize(
    ("texts", "model", "lengths"),
    [
        (("512", "128"), "llama-2-70b", (512, 128)),
        (("5000 (inferred)", "500 (inferred)"), "llama-2-70b", (5000, 500)),
        (("512", ""), "llama-2-70b", (512, None)),
        (("dataset", "290.1"), "llama-2-70b", (222, 290)),
        (("dataset", ""), "gpt-j-6b", (943, 69)),
        (("dataset", "649.2"), "llama-3.1-405b", (9400, 649)),
        (("dataset", ""), "mixtral-8x7b", (360, 145)),
        (("dataset", ""), "llama-3.1-8b", (943, 128)),
        (("dataset", "3695.3"), "deepseek-r1", (814, 3695)),
        (("few tokens", "100"), "bloom-176b", (7, 100)),
        (("ShareGPT, max 1024", "max 1024"), "llama-3-8b", (220, 199)),
        (("ShareGPT (trace)", "ShareGPT (trace)"), "llama-3-8b", (220, 199)),
        (("OpenOrca", "max 1024"), "llama-3-8b", (222, 294)),
    ],
)
def test_lengths_are_numbers_or_known_data_sets(texts, model, lengths):
    found = request_lengths(*texts, model)
    assert (found.input_tokens, found.output_tokens) == lengths


def test_a_number_has_no_spread_and_a_data_set_has_its_own_even_with_a_number_for_the_output():
    alike, spread = request_lengths("512", "128", "llama-2-70b"), request_lengths("dataset", "290.1", "llama-2-70b")
    assert (alike.input_cv, alike.output_cv) == (0.0, 0.0)
    assert (spread.input_cv, spread.output_cv) == (0.79, 0.79)
    # a lognormal of log-sigma s has the coefficient of variation sqrt(exp(s^2) - 1)
    openorca = find_dataset("openorca", "llama-2-70b")
    assert math.sqrt(math.expm1(openorca.input_log_sigma**2)) == pytest.approx(0.79)
    assert math.sqrt(math.expm1(openorca.output_log_sigma**2)) == pytest.approx(0.79)


@pytest.mark.parametrize("text", ["some tokens", "27K context", "nan", "-5", "inf", "KV 4000", "dataset", "1_0"])
def test_other_lengths_are_refused(text):
    with pytest.raises(SpecError, match="input_len"):
        request_lengths(text, "8", "opt-175b")


def test_data_sets_name_models_of_the_catalogue_and_their_sources():
    for dataset in load_datasets():
        assert dataset.source
        for model in dataset.models:
            assert get_model(model).name == model


# Names in the measured tables that stand for two things at once, or for none.
AMBIGUOUS = {
    "hardware": {
        "AMD Instinct MI300X 192GB HBM3 (x32), AMD Instinct MI325X 256GB HBM3e (x16)",
        "TPU v5e or v6e (same numbers in both READMEs)",
    },
    "weights_dtype": {"", "UNSET"},
    "kv_dtype": {"", "auto"},
}
READ = {"model": get_model, "hardware": get_chip, "weights_dtype": parse_dtype, "kv_dtype": parse_dtype}
KERNELS = ("kernel_", "prices")


def _measured(shared_dir, column):
    for path in sorted((shared_dir / "measured").glob("*.csv")):
        if not path.name.startswith(KERNELS):
            with path.open(encoding="utf-8", newline="") as file:
                yield from {row[column] for row in csv.DictReader(file)}


@pytest.mark.parametrize("column", READ)
def test_every_name_of_the_measured_tables_resolves(shared_dir, column):
    refused = set()
    for text in set(_measured(shared_dir, column)):
        try:
            READ[column](text)
        except SpecError:
            refused.add(text)
    assert refused <= AMBIGUOUS.get(column, set())


def test_every_unit_of_the_measured_tables_is_known(shared_dir):
    units = {unit.lower() for unit in _measured(shared_dir, "unit")}
    assert units - set(UNITS) == {"fraction of tdp"}
