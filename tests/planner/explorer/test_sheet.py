"""A sheet says of each plan what the planner says of it, and answers what the terminal would refuse by the same sentence."""

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.api import plan
from shardwise.planner.explorer import Question, Sheet, make_sheet
from shardwise.planner.explorer.sheet import SheetPlan

QUESTION = Question(model="llama-3.1-8b", chip="h100-sxm", counts=(1, 2), input_tokens=512, output_tokens=64)


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return make_sheet(QUESTION)


def best(sheet: Sheet, n_chips: int, ttft_s: float, tpot_s: float) -> SheetPlan:
    kept = [p for p in sheet.plans if p.n_chips == n_chips and p.ttft_s <= ttft_s and p.tpot_s <= tpot_s]
    return min(kept, key=lambda p: (p.chip_s, p.latency_s))


@pytest.mark.parametrize("n_chips", QUESTION.counts)
@pytest.mark.parametrize(("ttft_s", "tpot_s"), [(10.0, 10.0), (0.5, 0.015), (0.1, 0.1), (10.0, 0.0095)])
def test_the_cheapest_plan_under_limits_is_the_planner_s(
    sheet: Sheet, n_chips: int, ttft_s: float, tpot_s: float
) -> None:
    asked = {"input_tokens": 512, "output_tokens": 64, "ttft_s": ttft_s, "tpot_s": tpot_s}
    told = plan("llama-3.1-8b", f"h100-sxm:{n_chips}", **asked).best
    chosen = best(sheet, n_chips, ttft_s, tpot_s)
    prefill, decode = sheet.prefill[chosen.prefill], sheet.decode[chosen.decode]
    assert chosen.chip_s == pytest.approx(told.chip_s_per_request, rel=1e-5)
    assert chosen.latency_s == pytest.approx(told.request_latency_s, rel=1e-5)
    assert chosen.hbm_bytes_per_chip == pytest.approx(told.hbm_bytes_per_chip, rel=1e-5)
    for phase, full in ((prefill, told.prefill), (decode, told.decode)):
        assert (phase.layout, phase.batch, phase.tp, phase.pp, phase.dp, phase.slice) == (
            full.layout, full.batch, full.tp, full.pp, full.dp, full.slice,
        )  # fmt: skip
        for name in ("step_s", "latency_s", "latency_low_s", "latency_high_s", "mfu", "hfu"):
            assert getattr(phase, name) == pytest.approx(getattr(full, name), rel=1e-5), name


def test_the_steps_of_a_phase_add_up_to_its_pass(sheet: Sheet) -> None:
    for phase in (*sheet.prefill, *sheet.decode):
        seconds = sum(max(step[1], step[2]) + step[3] + step[4] for step in phase.steps)
        assert seconds == pytest.approx(phase.step_s, rel=1e-3)
        assert all(0 <= step[0] < len(sheet.step_names) for step in phase.steps)


def test_no_matmul_lies_above_the_roof_of_what_was_claimed(sheet: Sheet) -> None:
    roofs = sheet.roofs
    steps = [step for phase in (*sheet.prefill, *sheet.decode) for step in phase.steps if step[6]]
    # a small cache that attention reads again and again was measured out of L2
    matmuls = [step for step in steps if sheet.step_names[int(step[0])] != "attention"]
    assert len(matmuls) > 20
    assert all(rate <= min(roofs.flop_per_s, each * roofs.hbm_bytes_per_s) for *_, each, rate in matmuls)


def test_where_nothing_fits_the_sheet_says_by_how_much() -> None:
    told = make_sheet(QUESTION.model_copy(update={"model": "llama-3.1-405b"}))
    assert told.plans == ()
    assert "the smallest candidate needs" in (told.miss or "")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "llama-9"}, "no model 'llama-9'"),
        ({"chip": "h9000"}, "no chip 'h9000'"),
        ({"weights": "int7"}, "no dtype 'int7'"),
        ({"input_tokens": 0}, "a request has at least one input token"),
        ({"output_tokens": 0}, "a request has at least one output token"),
        ({"input_tokens": 200_000}, "131072 positions"),
        ({"counts": (12,)}, "is no slice of h100-sxm"),
        ({"counts": ()}, "say how many chips"),
    ],
)
def test_what_the_terminal_refuses_is_refused_by_the_same_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        make_sheet(QUESTION.model_copy(update=changes))
