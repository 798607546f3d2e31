"""Every plan carries figures that a check knowing nothing of the search agrees with; a plan that lies is caught."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shardwise.models.description import Model
from shardwise.planner.api import answer
from shardwise.planner.certificate import CertificateError, check_plan
from shardwise.planner.request import PlanRequest, make_request
from shardwise.planner.result import PhasePlan, Plan, PlanResult
from shardwise.simulator.types import Slo
from shardwise.tests.strategies import models, small_model

few = settings(max_examples=12)
pools = st.sampled_from(["tpu-v4:2x2x1", "tpu-v4:2x2x2", "h100-sxm:2", "a100-80gb-sxm:4", "h100-sxm:..3"])


def request_of(on: str, model: Model | None = None, batch: tuple[int, ...] = (1, 8), **changes: object) -> PlanRequest:
    """A request with few batches."""
    asked: dict[str, object] = {"input_tokens": 64, "output_tokens": 16}
    request = make_request(model or small_model(), on, **(asked | changes))
    return replace(request, prefill_batches=batch, decode_batches=batch)


@few
@given(model=models(), on=pools, page_size=st.sampled_from([1, 16, 48]), weights=st.sampled_from(["bf16", "int8"]))
def test_every_plan_and_every_point_of_the_frontier_passes(model: Model, on: str, page_size: int, weights: str) -> None:
    request = request_of(on, model, page_size=page_size, weights=weights)
    result = answer(request, top=20)
    assert result.plans or result.n_candidates == 0  # a width of 1 cannot be cut
    for plan in (*result.plans, *result.frontier):
        check_plan(request, plan)


@few
@given(model=models(), family=st.sampled_from([("tpu-v4", (1, 4, 8)), ("h100-sxm", (1, 3, 8))]))
def test_a_bigger_pool_has_no_worse_a_plan(model: Model, family: tuple[str, tuple[int, ...]]) -> None:
    """Chips may stand idle."""
    chip, counts = family
    for objective in ("latency", "cost"):
        merits = []
        for count in counts:
            request = replace(request_of(f"{chip}:..{count}", model), objective=objective)
            best = answer(request, top=1).best
            merits.append(best.request_latency_s if objective == "latency" else best.chip_s_per_request)
        # 1e-12: the same sum in another order
        assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(merits))


@few
@given(
    on=pools,
    objective=st.sampled_from(["latency", "cost"]),
    share=st.tuples(st.floats(0.3, 1.5), st.floats(0.3, 1.5)),
    tighter=st.floats(0.3, 1.0),
)
def test_a_tighter_limit_gives_no_better_a_plan(
    on: str, objective: str, share: tuple[float, float], tighter: float
) -> None:
    """Limits around what the free plan has, so that they bind, refuse all, or do nothing."""
    free = replace(request_of(on), objective="cost")
    best = answer(free, top=1).best
    ttft_s, tpot_s = share[0] * best.prefill.step_s, share[1] * best.decode.step_s
    merits = [
        _merit(answer(replace(free, objective=objective, slo=slo), top=1), objective)
        for slo in (Slo(), Slo(ttft_s=ttft_s, tpot_s=tpot_s), Slo(ttft_s=tighter * ttft_s, tpot_s=tighter * tpot_s))
    ]
    assert merits == sorted(merits)


def _merit(result: PlanResult, objective: str) -> float:
    if not result.plans:
        return float("inf")
    return result.best.request_latency_s if objective == "latency" else result.best.chip_s_per_request


def _phase(plan: Plan, name: str, **changes: object) -> Plan:
    return plan.model_copy(update={name: getattr(plan, name).model_copy(update=changes)})


def _memory(plan: Plan, name: str, **factors: float) -> Plan:
    phase: PhasePlan = getattr(plan, name)
    memory = phase.memory.model_copy(
        update={field: getattr(phase.memory, field) * factor for field, factor in factors.items()}
    )
    return _phase(plan, name, memory=memory, hbm_bytes_per_chip=memory.total)


def _both(plan: Plan, **changes: object) -> Plan:
    return _phase(_phase(plan, "prefill", **changes), "decode", **changes)


TAMPERED = [
    pytest.param(lambda p: _memory(p, "decode", weights=0.5), "weights", id="weights made light"),
    pytest.param(lambda p: _memory(p, "prefill", kv_cache=0.5), "cache", id="a cache made light"),
    pytest.param(lambda p: _memory(p, "decode", limit=2.0), "limit", id="a chip with more memory"),
    pytest.param(lambda p: _memory(p, "decode", activations=1e9), "needs", id="more than the chip holds"),
    pytest.param(lambda p: _phase(p, "decode", hbm_bytes_per_chip=1.0), "total", id="a total that is no sum"),
    pytest.param(lambda p: _phase(p, "decode", batch=2 * p.decode.batch), "cache", id="a bigger batch"),
    pytest.param(lambda p: _phase(p, "decode", weights="int8"), "weights", id="a smaller format"),
    pytest.param(lambda p: _phase(p, "decode", kv_dtype="int8"), "cache", id="a smaller cache format"),
    pytest.param(lambda p: _phase(p, "decode", page_size=64), "cache", id="another page size"),
    pytest.param(
        lambda p: _both(p, mesh=p.decode.mesh.model_copy(update={"x": 2 * p.decode.mesh.x})), "uses", id="a bigger mesh"
    ),
    pytest.param(lambda p: _both(p, n_chips=8), "uses", id="chips that the slice lacks"),
    pytest.param(lambda p: _both(p, tp=p.decode.tp * 2), "uses", id="another tp"),
    pytest.param(lambda p: _both(p, slice="tpu-v4:2x2x2"), "not in the pool", id="another slice"),
    pytest.param(lambda p: _phase(p, "decode", mapping="x=elsewhere"), "disagree", id="weights that lie twice"),
    pytest.param(lambda p: _phase(p, "prefill", step_s=1e6), "TTFT", id="a late first token"),
    pytest.param(lambda p: _phase(p, "decode", step_s=1e6), "TPOT", id="slow tokens"),
]


@pytest.mark.parametrize(("tamper", "words"), TAMPERED)
def test_a_plan_that_lies_is_caught(tamper: Callable[[Plan], Plan], words: str) -> None:
    request = request_of("tpu-v4:2x2x1", ttft_s=10.0, tpot_s=10.0)
    plan = answer(request, top=1).best
    check_plan(request, plan)
    with pytest.raises(CertificateError, match=words):
        check_plan(request, tamper(plan))


def test_phases_that_fit_alone_but_not_together_are_caught() -> None:
    """While prompts are read the decode cache stays: together they need more than either alone."""
    request = request_of("tpu-v4:2x2x1", small_model(n_layers=2), decode_batch=8)
    request = replace(request, prefill_batches=(8,), decode_batches=(8,))
    plan = answer(request, top=1).best
    p, d = plan.prefill.memory, plan.decode.memory
    together = (
        p.weights
        + max(p.kv_cache, d.kv_cache)
        + max(p.total - p.weights - p.kv_cache, d.total - d.weights - d.kv_cache)
    )
    hbm_bytes = request.slices[0].chip.hbm_bytes.value
    tight = replace(request, memory_share=together / hbm_bytes)
    limit = hbm_bytes * tight.memory_share
    for name in ("prefill", "decode"):
        memory = getattr(plan, name).memory.model_copy(update={"limit": limit})
        plan = _phase(plan, name, memory=memory)
    check_plan(tight, plan)
    more = plan.prefill.memory.model_copy(update={"activations": plan.prefill.memory.activations * (1 + 1e-6)})
    with pytest.raises(CertificateError):
        check_plan(tight, _phase(plan, "prefill", memory=more, hbm_bytes_per_chip=more.total))


@pytest.mark.parametrize(
    ("model", "on"),
    [
        pytest.param("deepseek-v4-pro", "h200-sxm:8", id="an entry stands for several tokens, one is begun"),
        pytest.param("gemma-4-26b-a4b", "h200-sxm:4", id="blocks have numbers beside their matrices"),
        pytest.param("nemotron-3-super-120b-a12b", "h200-sxm:8", id="experts on a narrower width"),
        pytest.param("gpt-oss-20b", "tpu-v5p:2x2x2", id="experts whose weights are gathered in rounds"),
    ],
)
def test_models_of_several_kinds_of_blocks_pass(model: str, on: str) -> None:
    request = make_request(model, on, input_tokens=33, output_tokens=8, batch=4)
    result = answer(request, top=3)
    assert result.plans
    for plan in result.plans:
        check_plan(request, plan)
