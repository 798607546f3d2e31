"""The paper's conclusions, checked on the planner; and the commands that print them."""

import csv
import json
from pathlib import Path

import pytest
import typer
from shardwise.hardware_specs.documents import write_atomically
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.planner import paper_rows as module
from shardwise.planner.cli.calibrate import calibrate
from shardwise.planner.cli.reproduce import reproduce
from shardwise.planner.paper_rows import Finding, PaperRow, paper_rows
from shardwise.simulator.cost.calibrated import load_fits
from shardwise.validate.published import load_pope2022
from typer.testing import CliRunner

MUST_HOLD = ["L1", "L2", "L3", "L5", "L6", "L8", "L9", "A1", "A2", "A3", "A4", "S2", "P2", "P3", "M1", "F1", "F2"]


@pytest.fixture(scope="module")
def rows() -> dict[str, PaperRow]:
    return {row.id: row for row in paper_rows()}


@pytest.mark.parametrize("row_id", MUST_HOLD)
def test_the_conclusion_holds(rows: dict[str, PaperRow], row_id: str) -> None:
    assert rows[row_id].verdict == "holds", rows[row_id].ours


def test_every_other_conclusion_is_printed_beside_ours(rows: dict[str, PaperRow]) -> None:
    others = set(rows) - set(MUST_HOLD)
    assert {rows[row_id].verdict for row_id in others} == {"printed"}
    assert all(rows[row_id].ours for row_id in others)


def test_every_check_belongs_to_a_conclusion_and_every_conclusion_has_a_check_or_times() -> None:
    claims = {claim.id: claim for claim in load_pope2022().claims}
    assert set(module.CHECKS) <= set(claims)
    assert {row_id for row_id, claim in claims.items() if not claim.timings} <= set(module.CHECKS)


def test_the_rows_are_those_of_the_reference_data(rows: dict[str, PaperRow], shared_dir: Path) -> None:
    path = shared_dir / "pope2022" / "planner_tests.csv"
    with path.open(encoding="utf-8", newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == list(rows)


def _app(command: object) -> typer.Typer:
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    return app


def test_reproduce_prints_every_table_in_80_columns_and_exits_0() -> None:
    result = CliRunner().invoke(_app(reproduce), [])
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    for word in ("Figure 3", "Table 1", "Table D.2", "held out", "FasterTransformer", "Conclusions", "PP3/TP8"):
        assert word in result.stdout


def test_reproduce_as_json_is_one_object_with_tables_and_rows() -> None:
    result = CliRunner().invoke(_app(reproduce), ["pope2022", "--json"])
    assert result.exit_code == 0
    made = json.loads(result.stdout)
    assert set(made) == {"tables", "rows"}
    assert len(made["rows"]) == len(load_pope2022().claims)
    assert len(made["tables"]["figure3"]) == 56


def test_reproduce_exits_1_where_a_conclusion_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.CHECKS, "L8", lambda report: Finding(holds=False, ours="X = 2"))
    result = CliRunner().invoke(_app(reproduce), [])
    assert result.exit_code == 1
    assert "L8" in result.stderr


def test_reproduce_refuses_unknown_work() -> None:
    with pytest.raises(UnknownNameError, match="pope2022"):
        reproduce("pope2023")


def test_calibrate_without_a_source_names_the_sources() -> None:
    with pytest.raises(SpecError, match=r"calibrate from what.*pope2022, fastertransformer, engines or aiconfigurator"):
        calibrate()
    with pytest.raises(SpecError, match="--from"):
        calibrate(output=Path("fit.yaml"))
    with pytest.raises(UnknownNameError, match="fastertransformer"):
        calibrate(source="fastertransfomer")


def test_calibrate_shows_the_shipped_fits_worst_row_first() -> None:
    result = CliRunner().invoke(_app(calibrate), ["--show"])
    assert result.exit_code == 0
    for fit in load_fits().values():
        worst, best = (f(fit.residuals, key=lambda row: abs(row.log_ratio)).id for f in (max, min))
        assert fit.command in result.stdout
        assert result.stdout.index(worst) < result.stdout.index(best)
    shown = json.loads(CliRunner().invoke(_app(calibrate), ["--show", "--json"]).stdout)
    assert {fit["chip"] for fit in shown} >= set(load_fits())


def test_writing_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fit.yaml"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text("utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]
