"""A what-if gives what the planner gives, point by point; what does not fit keeps its place with the reason."""

import math
import random
from typing import Any

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.hardware_specs.prices import catalogue_price
from shardwise.planner.api import answer, estimate, plan
from shardwise.planner.request import make_request
from shardwise.planner.whatif.ask import WhatIf, what_if
from shardwise.planner.whatif.one_by_one import plan_row
from shardwise.planner.whatif.question import Question, questions


def by_the_planner(q: Question, asked: WhatIf) -> dict[str, Any] | None:
    """The row of the best plan, or None where there is none."""
    request = make_request(
        q.model,
        q.on,
        input_tokens=q.prompt_tokens,
        output_tokens=q.output_tokens or 0,
        prefill_batch=q.prefill_batch,
        decode_batch=q.decode_batch,
        weights=q.weights,
        kv_dtype=q.kv_dtype,
        page_size=q.page_size,
        prefill=q.prefill,
        decode=q.decode,
        tp=q.tp,
        pp=q.pp,
        dp=q.dp,
        ttft_s=q.ttft_s,
        tpot_s=q.tpot_s,
        objective=asked.objective,
        engine=q.engine,
        memory_share=q.memory_share,
    )
    result = answer(request, top=1)
    if not result.plans:
        return None
    best = result.plans[0]
    return plan_row(best, best.output_tokens_per_s / (q.output_tokens or 1), None)


def assert_like_the_planner(asked: WhatIf, n: int = 4, seed: int = 0) -> None:
    """Some rows, against plans made alone."""
    rows, every = asked.rows(), list(questions(asked.question, asked.axes))
    for i in random.Random(seed).sample(range(len(every)), min(n, len(every))):
        alone = by_the_planner(every[i], asked)
        assert rows[i]["fits"] == (alone is not None), rows[i]
        for name, value in (alone or {}).items():
            if isinstance(value, float):
                assert rows[i][name] == pytest.approx(value, rel=1e-9), (i, name)
            else:
                assert rows[i][name] == value, (i, name)


@pytest.mark.parametrize(
    ("model", "on", "vary", "given"),
    [
        pytest.param(
            "llama-3.1-8b",
            "h100-sxm:8",
            ["chips=1,2,8", "batch=1,16", "input=100,2000"],
            {"output_tokens": 64},
            id="measured kernels",
        ),
        pytest.param(
            "llama-3.1-70b",
            "h100-sxm:8",
            ["chips=4,16", "kv-dtype=bf16,fp8", "page-size=1,64"],
            {"input_tokens": 1000, "output_tokens": 64, "weights": "fp8", "prefill_batch": 4, "decode_batch": 32},
            id="over nodes, fewer prompts than sequences",
        ),
        pytest.param(
            "palm-62b",
            "tpu-v4:16",
            ["weights=bf16,int8", "batch=1,64"],
            {"input_tokens": 2048, "output_tokens": 64},
            id="torus",
        ),
        pytest.param(
            "llama-3.1-8b",
            "h100-sxm:2",
            ["chips=1,2", "tpot=30ms,3ms", "ttft=1s,10ms"],
            {"input_tokens": 1000, "output_tokens": 64},
            id="limits, any batch, by cost",
        ),
        pytest.param(
            "llama-3.1-8b",
            "a100-80gb-sxm:4",
            ["engine=vllm,fastertransformer", "pp=1,2", "batch=8,12"],
            {"input_tokens": 500, "output_tokens": 20},
            id="engines, stages",
        ),
        pytest.param(
            "llama-3.1-8b",
            "tpu-v5e:4",
            ["batch=1,8"],
            {"input_tokens": 500, "output_tokens": 20},
            id="borrowed constants",
        ),
        pytest.param(
            "t5-11b",
            "h100-sxm:8",
            ["input=128,500,1024", "output=1,8,64", "batch=1,8"],
            {"tp": 8},
            id="an encoder",
        ),
    ],
)
def test_every_point_is_what_the_planner_finds_alone(
    model: str, on: str, vary: list[str], given: dict[str, Any]
) -> None:
    assert_like_the_planner(what_if(model, on, vary=vary, **given))


def test_rows_follow_the_axes_the_last_one_fastest() -> None:
    asked = what_if("gpt2", "l40s:1", vary=["batch=1,2", "input=10,20,30"], output_tokens=8)
    assert [(row["batch"], row["input"]) for row in asked.rows()] == [(b, n) for b in (1, 2) for n in (10, 20, 30)]
    assert asked.n_points == asked.n_fitting == 6


def test_what_does_not_fit_keeps_its_place_with_the_reason() -> None:
    asked = what_if(
        "llama-3.1-70b", "h100-sxm", vary=["chips=1,3,8", "context=64,2048,200000"], output_tokens=64, weights="bf16"
    )
    rows = {(row["chips"], row["context"]): row for row in asked.rows()}
    assert len(rows) == 9
    assert rows[8, 2048]["fits"]
    assert "needs 1" in rows[1, 2048]["reason"]
    assert "GiB may be used" in rows[1, 2048]["reason"]
    assert "leaves no input" in rows[8, 64]["reason"]
    assert "has 131072 positions" in rows[8, 200000]["reason"]
    assert rows[1, 2048]["tpot_s"] is None
    assert all(bool(row["fits"]) == (row["reason"] == "") for row in rows.values())


def test_chips_that_cannot_be_had_say_which_can() -> None:
    asked = what_if("palm-8b", "tpu-v4", vary=["chips=7,8"], input_tokens=10, output_tokens=10)
    assert "no slice of tpu-v4; near it" in asked.rows()[0]["reason"]
    assert asked.rows()[1]["fits"]


def test_limits_say_what_is_the_best_that_can_be_reached() -> None:
    asked = what_if("llama-3.1-8b", "h100-sxm:1", vary=["tpot=1us"], input_tokens=10, output_tokens=10)
    assert asked.objective == "cost"
    assert "TPOT" in asked.rows()[0]["reason"]
    assert "the limit is 1 us" in asked.rows()[0]["reason"]


def test_a_rate_above_what_the_chips_answer_does_not_fit_and_one_below_is_paid_for_whole() -> None:
    given = {"input_tokens": 100, "output_tokens": 100}
    asked = what_if("llama-3.1-8b", "h100-sxm:1", vary=["rate=0.5,1,1000000"], **given)
    low, high, over = asked.rows()
    assert asked.objective == "latency"
    assert "more than the chips answer" in over["reason"]
    assert low["usd_per_mtok_output"] == pytest.approx(2.0 * high["usd_per_mtok_output"])
    assert high["utilization"] == pytest.approx(1.0 / high["requests_per_s"])
    assert high["requests_per_s"] >= 1.0
    usd_per_h = catalogue_price("h100-sxm", "on_demand").usd_per_h
    assert high["usd_per_mtok_output"] == pytest.approx(usd_per_h / 3600.0 / 100.0 * 1e6)


def test_prices_are_a_factor_a_figure_or_a_kind_of_offer() -> None:
    usual = catalogue_price("h100-sxm", "on_demand").usd_per_h
    asked = what_if(
        "gpt2", "h100-sxm:2", vary=["price=x0.5,4,3.5USD/h,on-demand,spot"], input_tokens=10, output_tokens=10
    )
    spot = catalogue_price("h100-sxm", "spot")
    wanted = [usual, 8.0, 7.0, 2 * usual, None if spot is None else 2 * spot.usd_per_h]
    assert [row["usd_per_h"] for row in asked.rows()] == pytest.approx(wanted)


def test_faster_hardware_is_never_slower_and_is_marked_as_extrapolated() -> None:
    for key in ("flops", "hbm-bandwidth", "link"):
        asked = what_if("llama-3.1-8b", "h100-sxm:4", vary=[f"{key}=x1..x4*2"], input_tokens=2000, output_tokens=50)
        seconds = [row["request_latency_s"] for row in asked.rows()]
        assert seconds == sorted(seconds, reverse=True), key
        assert {row["source"] for row in asked.rows()[1:]} == {"extrapolated"}
        spreads = [math.log(row["request_latency_high_s"] / row["request_latency_s"]) for row in asked.rows()]
        assert spreads[1] > spreads[0]


def test_more_memory_lets_a_model_fit() -> None:
    asked = what_if(
        "llama-3.1-70b", "h100-sxm:1", vary=["hbm=x1,x2,200GiB"], input_tokens=100, output_tokens=10, weights="bf16"
    )
    assert asked.columns["fits"] == [False, True, True]
    assert asked.rows()[2]["hbm_limit_bytes"] == pytest.approx(0.92 * 200 * 2**30)


def test_an_absolute_figure_is_the_factor_it_comes_to() -> None:
    given = {"input_tokens": 1000, "output_tokens": 10}
    rows = what_if("llama-3.1-8b", "h100-sxm:2", vary=["hbm-bandwidth=x2,6.7TB/s"], **given).rows()
    assert rows[0]["tpot_s"] == pytest.approx(rows[1]["tpot_s"], rel=1e-12)


def test_a_chip_without_a_network_has_none_to_vary() -> None:
    asked = what_if("palm-8b", "tpu-v4:8", vary=["network=x2"], input_tokens=10, output_tokens=10)
    assert "claims no network" in asked.rows()[0]["reason"]


def test_a_plan_gives_everything_that_is_not_varied() -> None:
    made = estimate("llama-3.1-8b", "h100-sxm:2", input_tokens=300, output_tokens=30, batch=8, weights="fp8", pp=2)
    asked = what_if(made, vary=["batch=8,16"])
    row = asked.rows()[0]
    assert (row["weights"], row["pp"], row["n_chips"]) == ("fp8", 2, 2)
    assert row["request_latency_s"] == pytest.approx(made.best.request_latency_s, rel=1e-9)
    assert row["hbm_bytes_per_chip"] == pytest.approx(made.best.hbm_bytes_per_chip, rel=1e-9)


def test_other_hardware_chooses_its_own_layouts_and_engine() -> None:
    made = estimate("llama-3.1-8b", "h100-sxm:4", input_tokens=300, output_tokens=30, batch=8)
    rows = what_if(made, vary=["hardware=h100-sxm,tpu-v5e"]).rows()
    assert [row["engine"] for row in rows] == ["vllm", "jax-pope2022"]
    assert all(row["fits"] for row in rows)


def test_pools_up_to_a_count_and_two_pools_are_planned_one_by_one() -> None:
    given = {"input_tokens": 100, "output_tokens": 10, "batch": 4}
    alone = plan("gpt2", "l40s:..2", **given).best
    asked = what_if(
        "gpt2", "l40s", vary=["chips=..2"], input_tokens=100, output_tokens=10, prefill_batch=4, decode_batch=4
    )
    assert asked.rows()[0]["request_latency_s"] == pytest.approx(alone.request_latency_s)
    two = plan("gpt2", "l40s:1", decode_on="l40s:2", **given)
    moved = what_if(two, vary=["input=100,200"]).rows()
    assert moved[0]["request_latency_s"] == pytest.approx(two.best.request_latency_s)
    with pytest.raises(SpecError, match="link cannot be varied with --decode-on"):
        what_if(two, vary=["link=x1,x2"])


def test_many_points_are_asked_for_twice() -> None:
    given = {"input_tokens": 10, "output_tokens": 10}
    with pytest.raises(
        SpecError, match=r"200 batch x 51 rate = 10,200 points, more than 10,000; vary less, or pass --yes"
    ):
        what_if("gpt2", "l40s:1", vary=["batch=1..200", "rate=1..51+1"], **given)


@pytest.mark.parametrize(
    ("on", "given", "says"),
    [
        (None, {"input_tokens": 10, "output_tokens": 10}, "say --on"),
        ("l40s", {"input_tokens": 10, "output_tokens": 10}, "a count of chips"),
        ("l40s:1", {"output_tokens": 10}, "say --input"),
        ("l40s:1", {"input_tokens": 10}, "say --output"),
        ("l40s:x", {"input_tokens": 10, "output_tokens": 10}, "is no pool"),
    ],
)
def test_what_is_missing_is_named(on: str | None, given: dict[str, int], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        what_if("gpt2", on, vary=["batch=1,2"], **given)


def test_the_same_inputs_have_the_same_hash_and_others_another() -> None:
    given = {"input_tokens": 10, "output_tokens": 10}
    one, two, other = (
        what_if("gpt2", "l40s:1", vary=[vary], **given).digest for vary in ("batch=1,2", "batch=1,2", "batch=1,4")
    )
    assert one == two != other


def test_answers_are_a_frame_with_the_varied_keys_first() -> None:
    frame = what_if(
        "gpt2", "l40s:1", vary=["weights=fp16,int8", "batch=1,2"], input_tokens=10, output_tokens=10
    ).to_pandas()
    assert list(frame.columns[:4]) == ["weights", "batch", "fits", "reason"]
    assert len(frame) == 4
    assert list(frame.columns).count("weights") == 1
