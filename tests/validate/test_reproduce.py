"""The paper's tables beside the model's: what must agree, and how far the rest may be off."""

import pytest
from shardwise.validate.compared import Compared, ErrorTable, compared, largest_error
from shardwise.validate.published import load_pope2022
from shardwise.validate.reproduce import (
    BatchOrder,
    GpuRun,
    MemoryVerdict,
    Reproduction,
    gpu_prices,
    predict_timing_s,
    published_mfu,
    quoted_case,
    reproduce_pope2022,
)

_PAPER = load_pope2022()


@pytest.fixture(scope="module")
def report() -> Reproduction:
    return reproduce_pope2022()


def test_all_56_volumes_of_figure_3_are_within_a_thousandth(report: Reproduction) -> None:
    # read off vector paths with five digits
    assert len(report.figure3) == 56
    assert largest_error(report.figure3) <= 1e-3
    assert largest_error(report.switch_points) <= 1e-3


def test_table_1_is_met_to_its_rounding(report: Reproduction) -> None:
    # two or three digits printed: 660 for 666.5
    assert len(report.table1) == 6
    assert largest_error(report.table1) <= 0.015


def test_every_mfu_of_table_d2_follows_from_its_printed_time(report: Reproduction) -> None:
    # printed in whole percent
    assert len(report.mfu) == len(_PAPER.table_d2)
    assert largest_error(report.mfu) <= 0.005


@pytest.mark.parametrize("row", [r for r in _PAPER.timings if r.mfu is not None], ids=lambda r: r.id)
def test_mfu_of_figure_7_and_tables_2_and_3_is_ours(row: object) -> None:
    tokens = row.batch * (row.input if row.phase == "prefill" else row.output)  # type: ignore[attr-defined]
    ours = published_mfu(row.model, "tpu-v4", row.chips, float(tokens), row.value_s)  # type: ignore[attr-defined]
    # whole percent, from a time of two or three digits
    assert ours == pytest.approx(row.mfu, abs=0.01)  # type: ignore[attr-defined]


def test_rows_held_out_of_the_fit_are_met_in_the_median_to_8_percent_and_at_worst_to_25(report: Reproduction) -> None:
    held_out = report.held_out
    assert len(held_out.rows) == 40
    assert held_out.origin == "fitted"
    assert held_out.median_abs_error <= 0.08
    assert held_out.worst_abs_error <= 0.25


def test_the_interval_of_the_fit_holds_about_nine_in_ten_rows_it_never_saw(report: Reproduction) -> None:
    # 40 rows at 0.9: below 32 by chance in 4 % of tables were the rows independent
    assert report.held_out.n_within is not None
    assert report.held_out.n_within >= 32


def test_no_row_is_both_fitted_and_held_out(report: Reproduction) -> None:
    fitted, judged = ({row.id for row in table.rows} for table in (report.fitted, report.held_out))
    assert len(fitted) == 18
    assert not fitted & judged


def test_fastertransformer_deployments_are_in_the_published_order_at_every_batch(report: Reproduction) -> None:
    assert [order.batch for order in report.fastertransformer_order] == [2**i for i in range(9)]
    for order in report.fastertransformer_order:
        assert order.same, order


def test_fastertransformer_on_more_nodes_than_its_fit_knows_is_extrapolated(report: Reproduction) -> None:
    assert report.fastertransformer.origin == "extrapolated"
    assert report.fastertransformer.n_within is None


def test_fastertransformer_runs_out_of_memory_where_it_did(report: Reproduction) -> None:
    assert sum(row.ran_out for row in report.out_of_memory) == 3
    assert sum(not row.ran_out for row in report.out_of_memory) == 3
    for row in report.out_of_memory:
        assert row.same, row


def test_memory_of_a_gpu_run_grows_with_its_batch() -> None:
    def needs(batch: int) -> float:
        run = GpuRun(model="mt-nlg-530b", chip="a100-80gb-sxm", tp=16, pp=1, input=20, output=8, batch=batch)
        return max(float(price.memory.total[0]) for price in gpu_prices(run))

    assert needs(64) < needs(128) < needs(256)


def test_a_figure_that_times_8_layers_is_priced_with_8() -> None:
    short = next(row for claim in _PAPER.claims if claim.id == "A5" for row in claim.timings)
    assert quoted_case(short).parts[0].setting.model.n_layers == 8
    whole = short.model_copy(update={"n_layers": None})
    # 8 of 118 layers, and what every pass has once
    assert predict_timing_s(short) / predict_timing_s(whole) == pytest.approx(8 / 118, rel=0.1)


def test_the_report_survives_json(report: Reproduction) -> None:
    assert Reproduction.model_validate_json(report.model_dump_json()) == report


def test_verdicts_notice_what_differs() -> None:
    assert not BatchOrder(batch=1, published=("a", "b"), ours=("b", "a")).same
    over = MemoryVerdict(tp=16, input=1, output=1, batch=1, ran_out=False, needs_bytes=2.0, limit_bytes=1.0)
    assert not over.same
    assert over.model_copy(update={"ran_out": True}).same


def test_errors_are_relative_except_of_ratios() -> None:
    assert compared("a", "s", "g", "s", 2.0, 1.0).error == -0.5
    assert compared("a", "s", "g", "ratio", 0.0, 0.004).error == 0.004
    rows = (compared("a", "s", "g", "s", 2.0, 1.0), compared("b", "s", "g", "s", 2.0, 2.2))
    assert largest_error(rows) == 0.5
    assert isinstance(rows[0], Compared)
    assert ErrorTable.model_config["frozen"]
