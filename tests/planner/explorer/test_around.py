"""The page of a what-if offers what was varied, and around its question where nothing was said."""

from typing import Any

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.api import plan
from shardwise.planner.explorer.around import Explored, explored
from shardwise.planner.explorer.question import request_of
from shardwise.planner.whatif.ask import base_question
from shardwise.planner.whatif.question import question_of_plan
from shardwise.planner.whatif.vary import parse_vary


def page_of(
    model: str = "llama-3.1-8b", on: str | None = "h100-sxm:4", vary: tuple[str, ...] = (), **given: Any
) -> Explored:
    fields = {"input_tokens": 2048, "output_tokens": 256} | given
    return explored(base_question(model, on, 1, fields), parse_vary(vary))


def test_what_is_varied_is_a_menu_and_the_question_s_own_is_in_it() -> None:
    made = page_of(vary=("chips=2,8", "weights=int8", "hardware=l40s", "input=100..300+100"), tpot_s=0.02)
    start, offer = made.start, made.offer
    assert (start.chips, start.tpot_s, start.objective, start.chip) == (4, 0.02, "cost", "h100-sxm")
    assert [(chip.name, chip.counts) for chip in offer.chips] == [("h100-sxm", (2, 4, 8)), ("l40s", (2, 4, 8))]
    assert offer.weights == ("own", "int8")
    assert offer.input_tokens == (100, 200, 300, 2048)


def test_where_nothing_is_varied_the_page_looks_around() -> None:
    offer = page_of().offer
    assert [(chip.name, chip.counts) for chip in offer.chips] == [("h100-sxm", (1, 2, 4, 8))]
    assert offer.input_tokens == (512, 1024, 2048, 4096, 8192)
    assert offer.output_tokens == (128, 256, 512)
    assert (offer.weights, offer.kv_dtypes) == (("own", "fp8"), ("own", "fp8"))
    assert page_of(on="a100-80gb-sxm:1").offer.weights == ("own", "int8")
    assert page_of("gpt2", input_tokens=512).offer.input_tokens == (128, 256, 512)


def test_a_pool_offers_powers_of_two_up_to_it() -> None:
    made = page_of(on="h100-sxm:..16")
    assert made.start.chips is None
    assert made.offer.chips[0].counts == (1, 2, 4, 8, 16)
    assert page_of(vary=("chips=..4",)).offer.chips[0].counts == (1, 2, 4)


def test_everything_may_come_from_what_is_varied() -> None:
    made = page_of(on=None, vary=("hardware=l40s,h100-sxm", "chips=2,4", "output=64,128"), output_tokens=None)
    assert (made.start.chip, made.start.chips, made.start.output_tokens) == ("l40s", None, 64)


def test_a_plan_s_engine_and_share_of_memory_hold_on_its_page() -> None:
    result = plan(
        "llama-3.1-8b",
        "h100-sxm:2",
        input_tokens=512,
        output_tokens=64,
        engine="sglang",
        memory_share=0.8,
        decode_batch=8,
    )
    made = explored(question_of_plan(result), ())
    assert (made.start.model, made.start.chips, made.start.weights) == ("llama-3.1-8b", 2, "bf16")
    request = request_of(next(made.offer.questions()))
    assert (request.engine, request.memory_share) == ("sglang", pytest.approx(0.8))
    assert (
        explored(question_of_plan(plan("gpt2", "l40s:1", input_tokens=64, output_tokens=8)), ()).offer.fixed.engine
        is None
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vary": ("ttft=1s,2s",)}, "not ttft: limits, batch and price take any value on the page"),
        ({"vary": ("link=x2",)}, "not link"),
        ({"rate_per_s": 5.0}, "no --rate"),
        ({"decode_on": "h100-sxm:4"}, "both phases on one slice"),
        ({"on": None}, "say --on"),
        ({"output_tokens": None}, "say --output"),
        ({"on": "h100-sxm:3001"}, "is no slice of h100-sxm"),
    ],
)
def test_what_the_page_cannot_be_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        page_of(**changes)
