"""The page of errors: made of scored rows, with what a person says about them, and nothing where no table is."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from shardwise.validate.metrics import Prediction, parse_target
from shardwise.validate.score import ScoredRow

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLUMNS = ("n_chips", "tp", "pp", "dp", "ep", "input_len", "output_len", "batch", "concurrency", "qps")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that makes the page; it is no module of the package."""
    sys.path.insert(0, str(DOCS))  # as running the script does: it has a neighbour
    spec = importlib.util.spec_from_file_location("refresh_accuracy", DOCS / "refresh_accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def row(metric: str, value: float, predicted: float | None, **columns: str) -> ScoredRow:
    """A row in milliseconds."""
    made = None if predicted is None else Prediction(predicted=predicted, low=predicted / 2, high=predicted * 2)
    texts = dict.fromkeys(COLUMNS, "") | {"unit": "ms", "model": "m", "hardware": "h", "source": "s", "metric": metric}
    return ScoredRow(
        row=texts | columns,
        target=parse_target(metric, "ms"),
        prediction=made,
        value=value,
        reason="" if made else "7 chips are too few",
    )


@pytest.fixture
def tables() -> dict[str, list[ScoredRow]]:
    return {
        "splitwise_phase_latency": [
            row("prompt_phase_latency", 100.0, 104.0, source="Splitwise", batch="1"),
            row("prompt_phase_latency", 100.0, 108.0, source="Splitwise", batch="2"),
            row("mean_token_time", 10.0, 30.0, source="Splitwise", batch="2"),
            row("mean_token_time", 10.0, None, source="Splitwise", batch="3"),
        ],
        "mlperf_inference": [
            row("ttft_mean", 10.0, 5.0, source="MLPerf Inference v5.1 Datacenter (closed, A)"),
            row("ttft_mean", 10.0, 8.0, source="MLPerf Inference v5.1 Datacenter (closed, B)"),
        ],
    }


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]


def test_goals_are_medians_of_their_rows_with_a_verdict(script: ModuleType, tables: dict[str, list[ScoredRow]]) -> None:
    found = {line[0]: line[1:6] for line in cells(script.goals(tables))}
    assert found["Splitwise, prompt"] == ["0.08", "met", "2", "2", "0.060"]
    assert found["Splitwise, token"] == ["0.08", "missed", "2", "1", "2.000"]
    assert found["MLPerf Server, TTFT"] == ["0.20", "missed", "2", "2", "0.350"]
    assert "gpt-fast" not in found


def test_submitters_are_one_source_and_the_worst_comes_first(
    script: ModuleType, tables: dict[str, list[ScoredRow]]
) -> None:
    notes = [script.Note("Splitwise", "mean_.*", "a  known\n reason")]
    _, _, *lines = cells(script.groups(tables, notes))
    assert [line[:4] for line in lines] == [
        ["Splitwise", "mean_token_time", "a known reason", "2"],
        ["MLPerf Inference v5.1", "ttft_mean", "", "2"],
        ["Splitwise", "prompt_phase_latency", "", "2"],
    ]
    _, _, first, second, third = cells(script.worst(tables, notes))
    assert first == [
        "Splitwise",
        "mean_token_time: m, ? x h,  in,  out, batch 2",
        "a known reason",
        "10 ms",
        "30 ms",
        "+2.00",
    ]
    assert (second[-1], third[-1]) == ("-0.50", "+0.08")


def test_a_note_on_cases_is_about_no_other_and_about_no_group(script: ModuleType) -> None:
    notes = [script.Note("S", "ttft", "one", case="batch 2$"), script.Note("S", "ttft|tpot", "all")]
    assert script.note_on(notes, "S", "ttft", "batch 2") == "one"
    assert script.note_on(notes, "S", "ttft", "batch 21") == "all"
    assert script.note_on(notes, "S", "ttft") == "all"
    assert script.note_on(notes, "S", "ttft_mean") == ""


def test_the_page_has_every_section_and_an_ablation_of_every_predictor(
    script: ModuleType, tables: dict[str, list[ScoredRow]]
) -> None:
    text = script.page({"all of it": tables, "without heads": tables}, script.read_notes())
    assert "predicts 6 measurements that others published (5 of them" in text
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert titles == [
        "Goals",
        "Worst cases",
        "By source and metric",
        "Intervals",
        "Decisions",
        "What buys how much",
        "Not predicted",
    ]
    assert "| Splitwise, prompt | 0.060 | 0.060 |" in text
    assert "| N chips are too few | 1 |" in text


def test_kernels_that_a_fit_has_seen_are_told_apart(script: ModuleType) -> None:
    def kernel(m: int, source: str, predicted: float) -> ScoredRow:
        columns = {"model": f"GEMM m={m} n=4096 k=4096", "hardware": "h100-sxm", "weights_dtype": "BF16"}
        return row("ttft", 100.0, predicted, source=source, framework="TensorRT-LLM", **columns)

    ours = [kernel(m, "NVIDIA aiconfigurator gemm_perf", 110.0) for m in range(1, 31)]
    theirs = [kernel(1, "somebody else", 150.0)]
    held = sum(script._is_unseen(item) for item in ours)
    assert 0 < held < 30
    _, _, group, _ = cells(script.kernels([*ours, *theirs]))
    assert group[:6] == ["bf16 matmul", "h100-sxm", "TensorRT-LLM", "31", "0.100", str(held + 1)]
    text = script.page({"all of it": {"misc_e2e": theirs}}, [], [*ours, *theirs])
    assert "## Kernels" in text
    assert "to predict it is no test" in text


def test_without_tables_the_page_stays(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("old")
    monkeypatch.setattr(sys, "argv", ["script", "--measured", str(tmp_path), "--output", str(page)])
    script.main()
    assert page.read_text() == "old"
    assert "no measured tables" in capsys.readouterr().err


def test_rows_that_are_not_to_be_judged_are_left_out(script: ModuleType, tmp_path: Path) -> None:
    header = "source,model,hardware,metric,unit,value,quality"
    rows = [f"s,no-model,h100-sxm,ttft,ms,1,{quality}" for quality in ("A", "B", "C", "D", "")]
    (tmp_path / "misc_e2e.csv").write_text("\n".join([header, *rows]) + "\n")
    found = script.score_tables(tmp_path, script.predict_row, jobs=1)
    assert [item.row["quality"] for item in found["misc_e2e"]] == ["A", "B", ""]
