"""Plans as the user gets them: ranked, different, in SI units, and the same in JSON and as a table."""

import itertools
import json
from dataclasses import replace

import pytest
import shardwise
from hypothesis import given, settings
from hypothesis import strategies as st
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.description import Model
from shardwise.planner.api import answer
from shardwise.planner.request import make_request
from shardwise.planner.result import PhasePlan, Plan, PlanResult
from shardwise.tests.strategies import models, small_model

# the fields that the JSON of a plan promises; it may have more
PLAN_FIELDS = {"rank", "n_chips", "prefill", "decode"}
PHASE_FIELDS = set(
    [
        "chip",
        "n_chips",
        "slice",
        "mesh",
        "tp",
        "pp",
        "dp",
        "ep",
        "replicas",
        "batch",
        "ffn",
        "attention",
        "weights",
        "kv_dtype",
        "page_size",
        "latency_s",
        "latency_low_s",
        "latency_high_s",
        "step_s",
        "mfu",
        "hfu",
        "cost_chip_s_per_token",
        "usd_per_mtok",
        "hbm_bytes_per_chip",
        "bound",
        "breakdown",
    ]
)
STEP_FIELDS = {"step", "compute_s", "memory_s", "comm_s", "overhead_s", "source"}


def _answer(on: str, model: Model | None = None, top: int = 5, **asked: object) -> PlanResult:
    fields: dict[str, object] = {"input_tokens": 64, "output_tokens": 16}
    request = make_request(model or small_model(), on, **(fields | asked))
    return answer(replace(request, prefill_batches=(1, 4, 16), decode_batches=(1, 4, 16)), top=top)


@pytest.fixture(scope="module")
def result() -> PlanResult:
    return _answer("h100-sxm:..4")


def phases_of(result: PlanResult) -> list[PhasePlan]:
    """Every phase of every plan and frontier point."""
    return [phase for plan in (*result.plans, *result.frontier) for phase in (plan.prefill, plan.decode)]


def test_the_json_has_every_field_promised(result: PlanResult) -> None:
    told = json.loads(result.model_dump_json())
    assert set(told) >= {"model", "workload", "plans", "rejected"}
    assert all(isinstance(count, int) and count > 0 for count in told["rejected"].values())
    for plan in told["plans"]:
        assert set(plan) >= PLAN_FIELDS
        for phase in (plan["prefill"], plan["decode"]):
            assert set(phase) >= PHASE_FIELDS
            assert set(phase["mesh"]) == {"x", "y", "z"}
            assert all(set(step) >= STEP_FIELDS for step in phase["breakdown"])


@settings(max_examples=10)
@given(model=models(), on=st.sampled_from(["tpu-v4:2x2x1", "h100-sxm:..3"]), bound=st.booleans())
def test_a_result_survives_its_json(model: Model, on: str, bound: bool) -> None:
    made = _answer(on, model, bound=bound)
    assert PlanResult.model_validate_json(made.model_dump_json()) == made


def test_numbers_are_in_si_units(result: PlanResult) -> None:
    """Seconds of the phase are its passes, ratios lie in [0, 1], a cost a token is chips times seconds over tokens."""
    work = result.workload
    for phase in phases_of(result):
        passes = 1 if phase.phase == "prefill" else work.output_tokens
        tokens = work.input_tokens if phase.phase == "prefill" else work.output_tokens
        assert phase.latency_s == pytest.approx(phase.step_s * passes)
        assert 0 < phase.mfu <= 1
        assert 0 < phase.hfu <= 1
        assert phase.cost_chip_s_per_token == pytest.approx(phase.n_chips * phase.latency_s / (phase.batch * tokens))
        assert phase.latency_low_s <= phase.latency_s
        assert phase.latency_high_s is None or phase.latency_high_s >= phase.latency_s
        assert phase.hbm_bytes_per_chip == phase.memory.total <= phase.memory.limit


def test_the_breakdown_adds_up_to_the_pass(result: PlanResult) -> None:
    for phase in phases_of(result):
        if phase.pp == 1 and phase.n_microbatches == 1:
            assert sum(step.total_s for step in phase.breakdown) == pytest.approx(phase.step_s)


@pytest.mark.parametrize("objective", ["latency", "cost", "throughput"])
@pytest.mark.parametrize("on", ["tpu-v4:2x2x1", "h100-sxm:..4"])
def test_plans_are_ranked_by_the_objective(objective: str, on: str) -> None:
    merit = {
        "latency": lambda p: p.request_latency_s,
        "cost": lambda p: p.chip_s_per_request,
        "throughput": lambda p: -p.output_tokens_per_s,
    }[objective]
    plans = _answer(on, objective=objective).plans
    assert [plan.rank for plan in plans] == list(range(1, len(plans) + 1))
    # 1e-12: the same sum in another order
    assert all(merit(a) <= merit(b) + 1e-12 * abs(merit(b)) for a, b in itertools.pairwise(plans))


def test_plans_differ_in_more_than_wiring(result: PlanResult) -> None:
    def named(plan: Plan) -> tuple[object, ...]:
        return tuple(
            (p.slice, p.layout, p.weights, p.kv_dtype, p.pp, p.dp, p.batch) for p in (plan.prefill, plan.decode)
        )

    assert len({named(plan) for plan in result.plans}) == len(result.plans) == 5


@pytest.mark.parametrize("on", ["tpu-v4:2x2x1", "h100-sxm:..4"])
def test_the_frontier_falls_and_its_ends_are_the_best_plans(on: str) -> None:
    found = _answer(on, top=1)
    points = [(plan.request_latency_s, plan.chip_s_per_request) for plan in found.frontier]
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(points))
    assert points[0][0] == pytest.approx(found.best.request_latency_s)
    assert points[-1][1] == pytest.approx(_answer(on, top=1, objective="cost").best.chip_s_per_request)


def test_a_table_has_one_row_a_plan_and_phase(result: PlanResult) -> None:
    frame = result.to_pandas()
    assert len(frame) == 2 * len(result.plans)
    assert list(frame["rank"]) == [rank for plan in result.plans for rank in (plan.rank,) * 2]
    assert set(frame.columns) >= (PHASE_FIELDS - {"breakdown", "mesh"}) | {"rank", "phase", "x", "y", "z"}
    assert frame["latency_s"].dtype == float
    assert list(frame.query("phase == 'decode'")["batch"]) == [plan.decode.batch for plan in result.plans]


def test_no_plan_is_a_result_too_that_says_how_near_it_was() -> None:
    none = _answer("h100-sxm:1", ttft_s=1e-9)
    assert none.plans == none.frontier == ()
    assert "TTFT" in (none.nearest_miss or "")
    with pytest.raises(LookupError, match=r"no plan is feasible: .*TTFT"):
        _ = none.best


def test_an_estimate_is_one_plan_as_it_was_asked() -> None:
    made = shardwise.estimate(
        "llama-2-70b", "h100-sxm:8", input_tokens=2048, output_tokens=64, batch=32, tp=8, decode="ws-1d-allreduce/heads"
    )
    (plan,) = made.plans
    assert (plan.decode.tp, plan.decode.pp, plan.decode.dp, plan.decode.batch) == (8, 1, 1, 32)
    assert plan.decode.layout == "ws-1d-allreduce/heads"


@pytest.mark.parametrize(
    ("pinned", "shape"),
    [
        pytest.param({}, (8, 1, 1), id="one stage and one replica unless said"),
        pytest.param({"tp": 4}, (4, 2, 1), id="chips left over by tp are stages"),
        pytest.param({"tp": 4, "dp": 2}, (4, 1, 2), id="or replicas"),
        pytest.param({"pp": 2}, (4, 2, 1), id="pp leaves the rest to tp"),
    ],
)
def test_what_an_estimate_leaves_open_is_implied(pinned: dict[str, int], shape: tuple[int, int, int]) -> None:
    decode = shardwise.estimate(
        "llama-2-70b", "h100-sxm:8", input_tokens=512, output_tokens=16, batch=8, **pinned
    ).best.decode
    assert (decode.tp, decode.pp, decode.dp) == shape


def test_layouts_that_keep_the_weights_in_two_forms_cannot_share_a_slice() -> None:
    with pytest.raises(SpecError, match=r"different forms.*--decode-on"):
        _answer("tpu-v4:2x2x1", prefill="ws-1d", decode="ws-2d")


@pytest.mark.parametrize("top", [0, -1])
def test_at_least_one_plan_must_be_asked_for(top: int) -> None:
    with pytest.raises(SpecError, match="must be at least 1"):
        shardwise.plan("llama-3-8b", "h100-sxm:1", input_tokens=64, output_tokens=16, batch=1, top=top)
