"""Cases answered by several processes: the same answers in the same order, and no row lost to another's mistake."""

import os

import pytest
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.validate.metrics import Outcome, Quantities
from shardwise.validate.score import score

ROW = {
    "model": "llama-3-8b",
    "hardware": "h100-sxm",
    "metric": "ttft",
    "unit": "s",
    "n_chips": "1",
    "tp": "1",
    "pp": "1",
    "input_len": "512",
    "value": "1",
}
ROWS = [ROW | {"batch": str(batch)} for batch in (*range(1, 25), 3, 7)]


def batch_in_seconds(case):
    """A predictor that other processes can import: refuses batch 5, has a mistake at 6."""
    if case.n_requests == 5:
        raise UnknownNameError("batch", "5", ["4"])
    if case.n_requests == 6:
        return 1 / 0
    times = Quantities(ttft_s=float(case.n_requests))
    return Outcome(expected=times, quick=times, slow=times, n_chips=1, n_nodes=1, n_users=1)


def ends_its_process(case):
    """A predictor that takes its process along."""
    os._exit(1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_answers_are_the_same_in_the_same_order_whatever_the_number_of_processes(jobs):
    scored = score(ROWS, batch_in_seconds, jobs=jobs)
    assert [item.row for item in scored] == ROWS
    for item in scored:
        batch = int(item.row["batch"])
        expected = f"{batch}" if batch not in (5, 6) else ""
        assert item.added()[0] == expected
    assert scored[4].reason.startswith("no batch '5'")
    assert scored[5].reason == "internal error, please report it: ZeroDivisionError: division by zero"


def test_the_bar_advances_once_a_row_with_several_processes():
    seen = []
    score([*ROWS, ROW | {"metric": "x"}], batch_in_seconds, jobs=2, advance=lambda: seen.append(1))
    assert len(seen) == len(ROWS) + 1


def test_a_process_that_is_killed_is_one_sentence():
    with pytest.raises(SpecError, match="try --jobs 1"):
        score(ROWS, ends_its_process, jobs=2)


def test_no_jobs_are_refused():
    with pytest.raises(SpecError, match="jobs=0"):
        score(ROWS, batch_in_seconds, jobs=0)
