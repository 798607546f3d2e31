"""Faults that other planners were found to have, each tried on this one."""

from dataclasses import replace

import numpy as np
import pytest
import shardwise
from shardwise.models.description import Model
from shardwise.models.program import Attention
from shardwise.planner.api import answer
from shardwise.planner.request import make_request
from shardwise.planner.result import PhasePlan, PlanResult, StepShare
from shardwise.simulator.cost.constants import BOUND
from shardwise.simulator.cost.kernel_times import shipped_kernel_fit
from shardwise.simulator.cost.phases import PhaseSetting, bind, price_phase
from shardwise.simulator.cost.price import Engine, price_pass
from shardwise.simulator.types import Workload
from shardwise.tests.strategies import BF16, machine_of, small_model

FLASH = Engine(constants=BOUND)


def _estimate(model: str, on: str, **asked: object) -> PlanResult:
    fields: dict[str, object] = {"input_tokens": 2048, "output_tokens": 64}
    return shardwise.estimate(model, on, **(fields | asked))


def _steps(phase: PhasePlan, *words: str) -> list[StepShare]:
    return [step for step in phase.breakdown if any(word in step.step for word in words)]


@pytest.mark.parametrize("on", ["tpu-v4:2x2x2", "h100-sxm:8", "h100-sxm:2x8"])
def test_the_search_uses_all_chips_of_an_exact_slice(on: str) -> None:
    request = make_request(small_model(n_layers=8), on, input_tokens=64, output_tokens=16, batch=16)
    for plan in answer(request, top=20).plans:
        for phase in (plan.prefill, plan.decode):
            used = phase.mesh.x * phase.mesh.y * phase.mesh.z * phase.pp * phase.dp
            assert used == phase.n_chips == plan.n_chips == request.max_chips


def test_the_search_of_a_pool_may_use_every_chip_and_does_where_that_pays() -> None:
    result = shardwise.plan("llama-2-70b", "h100-sxm:..8", input_tokens=512, output_tokens=16, batch=1, top=1)
    assert result.best.n_chips == 8


@pytest.mark.parametrize(
    ("model", "on"),
    [("llama-3-8b", "h100-sxm:..2"), ("palm-540b", "tpu-v4:4x4x4"), ("gpt-3-175b", "a100-80gb-sxm:8")],
)
@pytest.mark.parametrize("bound", [False, True], ids=["fit", "bound"])
def test_no_plan_is_above_what_the_hardware_can_do(model: str, on: str, bound: bool) -> None:
    """Utilisation never above 1."""
    result = shardwise.plan(model, on, input_tokens=1024, output_tokens=32, bound=bound, weights="bf16,int8", top=10)
    for plan in (*result.plans, *result.frontier):
        for phase in (plan.prefill, plan.decode):
            assert 0 < phase.mfu <= 1
            assert 0 < phase.hfu <= 1


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("context", [128, 4096])
def test_grouped_query_attention_is_never_slower_than_multihead(phase: str, context: int) -> None:
    """A flash kernel reads each K/V head once, not once a query head."""

    def attention_s(n_kv_heads: int) -> float:
        model = small_model(n_heads=32, n_kv_heads=n_kv_heads)
        machine = machine_of("h100-sxm:4", (4, 1, 1))
        setting = PhaseSetting(
            model=model,
            phase=phase,
            layout="ws-1d-allreduce",
            attention="heads",
            formats=BF16,
            workload=Workload(input_tokens=context, output_tokens=16),
        )
        program, sizes = bind(setting, machine, 16.0, (), FLASH)
        names = {step.name for step in program.only.steps if isinstance(step, Attention)}
        prices = price_pass(program, sizes, setting.formats, machine, FLASH)
        return sum(float(price.total_s) for price in prices if price.name in names)

    seconds = [attention_s(n) for n in (32, 16, 8, 4)]
    assert seconds == sorted(seconds, reverse=True)
    if phase == "decode":
        assert seconds[-1] < 0.2 * seconds[0]  # it is bound by the cache, which is an eighth


@pytest.mark.parametrize("block", ["serial", "parallel"])
def test_tensor_parallel_is_charged_its_all_reduces_once(block: str) -> None:
    """Two all-reduces a layer, or one where attention and FFN share it: each 2 (K - 1) / K of the activations."""
    model, n, batch = small_model(n_layers=8, block=block), 4, 16
    request = make_request(model, f"h100-sxm:{n}", input_tokens=64, output_tokens=16, batch=batch, bound=True, tp=n)
    request = replace(request, prefill_layouts=("ws-1d-allreduce/heads",), decode_layouts=("ws-1d-allreduce/heads",))
    phase = answer(request, top=1).best.decode
    paid = sum(step.comm_s for step in phase.breakdown if not step.step.startswith(("first", "last")))
    port = request.slices[0].chip.scale_up.bytes_per_s.value
    one = 2 * (n - 1) / n * batch * model.d_model * 2 / port
    assert paid == pytest.approx(model.n_layers * (2 if block == "serial" else 1) * one)


@pytest.mark.parametrize("on", ["tpu-v4:2x2x1", "h100-sxm:8", "a100-80gb-sxm:1"])
def test_batch_1_works(on: str) -> None:
    best = shardwise.plan("llama-3-8b", on, input_tokens=128, output_tokens=16, batch=1, top=1).best
    assert best.decode.batch == 1
    assert best.decode.step_s > 0


def test_llama_3_8b_can_be_said() -> None:
    """Grouped-query attention, a gated FFN, untied embeddings: 8 030 261 248 parameters (its model card says 8B)."""
    decode = _estimate("llama-3-8b", "h100-sxm:1", weights="bf16").best.decode
    assert decode.memory.weights == 2 * 8_030_261_248


def test_what_is_extrapolated_is_marked_and_has_no_narrow_interval() -> None:
    fitted, borrowed = (_estimate("llama-2-70b", f"{chip}:8", batch=8).best for chip in ("a100-80gb-sxm", "h20"))
    assert {step.source for step in borrowed.decode.breakdown} == {"extrapolated"}
    assert shipped_kernel_fit("h20", "vllm") is None
    assert shipped_kernel_fit("a100-80gb-sxm", "vllm") is not None
    assert "extrapolated" not in {step.source for step in fitted.decode.breakdown}
    widths = [
        p.latency_high_s / p.latency_low_s for p in (fitted.decode, borrowed.decode) if p.latency_high_s is not None
    ]
    assert widths[1] > widths[0] > 1


def test_a_bound_is_marked_as_one_and_claims_no_upper_end() -> None:
    decode = _estimate("llama-3-8b", "h100-sxm:1", bound=True).best.decode
    assert {step.source for step in decode.breakdown} == {"bound"}
    assert (decode.latency_low_s, decode.latency_high_s) == (decode.latency_s, None)


@pytest.mark.parametrize("on", ["h100-sxm:1", "a100-80gb-sxm:1"])
def test_the_first_token_comes_when_the_prefill_is_through(on: str) -> None:
    """TTFT is the sum of the prefill's own steps: no factor stands between."""
    best = _estimate("llama-3-8b", on, batch=4).best
    prefill = best.prefill
    assert prefill.step_s == prefill.latency_s
    if prefill.n_microbatches == 1:
        assert prefill.step_s == pytest.approx(sum(step.total_s for step in prefill.breakdown))
    assert best.request_latency_s == pytest.approx(prefill.latency_s + best.decode.latency_s)


def test_pipeline_stages_are_no_free_multiplier() -> None:
    """One request goes through all stages one after the other: two stages of the same tp are no quicker than one."""
    one = _estimate("llama-3-8b", "h100-sxm:2", tp=2, pp=1).best
    two = _estimate("llama-3-8b", "h100-sxm:4", tp=2, pp=2).best
    assert two.prefill.step_s >= one.prefill.step_s
    assert two.decode.step_s >= one.decode.step_s
    many = [
        _estimate("llama-3-8b", on, tp=2, pp=pp, batch=64).best for on, pp in (("h100-sxm:2", 1), ("h100-sxm:4", 2))
    ]
    assert many[1].output_tokens_per_s < 2 * many[0].output_tokens_per_s  # fill, drain and hand-over


def test_plans_differ_with_the_batch() -> None:
    """Above the output length as below it."""
    plans = [
        shardwise.plan("palm-540b", "tpu-v4:4x4x4", input_tokens=2048, output_tokens=64, batch=batch, top=1).best
        for batch in (4, 64, 512)
    ]
    assert len({(p.prefill.layout, p.decode.layout, p.decode.attention) for p in plans}) > 1
    assert len({p.decode.step_s for p in plans}) == 3


@pytest.mark.parametrize(
    ("model", "on", "asked"),
    [
        pytest.param("palm-540b", "tpu-v4:4x4x4", {"batch": 512}, id="palm-540b on 64 tpu v4, batch 512"),
        *(
            pytest.param("llama-2-70b", "h100-sxm:8", {"batch": n, "tp": 8}, id=f"llama-2-70b on 8 h100, batch {n}")
            for n in (1, 32, 64)
        ),
        pytest.param("llama-3-8b", "h100-sxm:1", {"batch": 64}, id="llama-3-8b on one h100"),
    ],
)
def test_the_three_common_problems_are_answered(model: str, on: str, asked: dict[str, int]) -> None:
    best = shardwise.plan(model, on, input_tokens=2048, output_tokens=64, top=1, weights="bf16", **asked).best
    assert best.decode.batch == best.prefill.batch == asked["batch"]
    assert best.decode.memory.total < best.decode.memory.limit
    bound = shardwise.plan(
        model, on, input_tokens=2048, output_tokens=64, top=1, weights="bf16", bound=True, **asked
    ).best
    assert 0 < bound.decode.step_s <= best.decode.step_s


@pytest.mark.parametrize(
    ("model", "on", "batch", "roofline_s"),
    [
        # the roofline of a decode step at 2048 tokens of context that the survey of other planners gives
        pytest.param("llama-3-8b", "h100-sxm:1", 64, 9.7e-3, id="llama-3-8b on one h100"),
        pytest.param("llama-2-70b", "h100-sxm:8", 64, 6.7e-3, id="llama-2-70b on 8 h100"),
    ],
)
def test_a_decode_step_is_near_the_roofline_others_agree_on(model: str, on: str, batch: int, roofline_s: float) -> None:
    bound = _estimate(model, on, batch=batch, bound=True).best.decode
    # that roofline reads weights and cache and sends nothing; within 10 %, for we let activations pass through HBM too
    assert sum(step.memory_s for step in bound.breakdown) == pytest.approx(roofline_s, rel=0.10)
    assert bound.step_s >= 0.99 * roofline_s


def test_more_work_is_never_priced_lower() -> None:
    """Twice the sequences take at least as long."""
    model: Model = small_model()
    machine = machine_of("tpu-v4:2x2x1", (2, 2, 1))
    setting = PhaseSetting(
        model=model,
        phase="decode",
        layout="ws-2d",
        attention="heads",
        formats=BF16,
        workload=Workload(input_tokens=64, output_tokens=16),
    )
    seconds = price_phase(setting, machine, np.array([1.0, 2.0, 4.0, 8.0, 64.0]), FLASH).pass_s
    assert list(seconds) == sorted(seconds)
