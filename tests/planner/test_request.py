"""What a user wrote is checked before anything is enumerated, and refused with a sentence that says the way out."""

import math

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.request import DEFAULT_BATCHES, PlanRequest, make_request
from shardwise.tests.strategies import small_model


def _make(**changes: object) -> PlanRequest:
    fields: dict[str, object] = {
        "model": small_model(max_context=256),
        "on": "h100-sxm:8",
        "input_tokens": 64,
        "output_tokens": 16,
    }
    return make_request(**(fields | changes))


def test_what_is_not_said_is_left_to_the_search() -> None:
    request = _make()
    assert request.prefill_batches == request.decode_batches == DEFAULT_BATCHES
    assert (request.prefill_layouts, request.decode_layouts, request.mesh, request.tp, request.pp, request.dp) == (
        (None,) * 6
    )
    assert not request.is_pinned
    assert request.objective == "latency"


@pytest.mark.parametrize("limit", ["ttft_s", "tpot_s"])
def test_a_limit_makes_cost_the_objective(limit: str) -> None:
    assert _make(**{limit: 0.5}).objective == "cost"
    assert _make(**{limit: 0.5}, objective="latency").objective == "latency"


@pytest.mark.parametrize(
    ("given", "prefill", "decode"),
    [
        pytest.param({"batch": 4}, (4,), (4,), id="both"),
        pytest.param({"batch": 4, "decode_batch": 64}, (4,), (64,), id="one overridden"),
        pytest.param({"prefill_batch": 1}, (1,), DEFAULT_BATCHES, id="one open"),
    ],
)
def test_batches_are_fixed_together_or_apart(
    given: dict[str, int], prefill: tuple[int, ...], decode: tuple[int, ...]
) -> None:
    request = _make(**given)
    assert (request.prefill_batches, request.decode_batches) == (prefill, decode)


@pytest.mark.parametrize(
    ("given", "formats"),
    [
        pytest.param({}, [("bf16", "bf16", "bf16")], id="the model's own"),
        pytest.param({"weights": "int8"}, [("int8", "bf16", "bf16")], id="activations stay in 16 bits"),
        pytest.param({"weights": "fp16"}, [("fp16", "fp16", "fp16")], id="one 16-bit format for all"),
        pytest.param({"kv_dtype": "fp8"}, [("bf16", "bf16", "fp8")], id="a cache of its own"),
        pytest.param(
            {"weights": "bf16,int8", "kv_dtype": "bf16, fp8"},
            [("bf16", "bf16", "bf16"), ("bf16", "bf16", "fp8"), ("int8", "bf16", "bf16"), ("int8", "bf16", "fp8")],
            id="every pair of those named",
        ),
        pytest.param({"weights": ["bf16", "int8"]}, [("bf16",) * 3, ("int8", "bf16", "bf16")], id="a list"),
    ],
)
def test_formats_of_weights_activations_and_cache(given: dict[str, object], formats: list[tuple[str, ...]]) -> None:
    made = [(f.weights.name, f.activations.name, f.kv.name) for f in _make(**given).formats]
    assert made == formats


@pytest.mark.parametrize(
    ("on", "decode_on", "sharing", "max_chips"),
    [
        pytest.param("h100-sxm:8", None, "shared", 8, id="one slice, in turns"),
        pytest.param("h100-sxm:..8", None, "either", 8, id="a pool, either way"),
        pytest.param("h100-sxm:8", "a100-80gb-sxm:4", "separate", 12, id="two pools"),
    ],
)
def test_how_the_phases_share_the_chips(on: str, decode_on: str | None, sharing: str, max_chips: int) -> None:
    request = _make(on=on, decode_on=decode_on)
    assert (request.sharing, request.max_chips) == (sharing, max_chips)


NUMBERS = {
    "batch": (0, -1, 65537, 10**30, math.nan, math.inf),
    "prefill_batch": (0, -1, 65537, math.nan),
    "decode_batch": (0, -1, 65537, math.nan),
    "input_tokens": (-1, 10**30, math.nan, math.inf),
    "output_tokens": (-1, 10**30, math.nan, math.inf),
    "tp": (0, -1),
    "pp": (0, -1),
    "dp": (0, -1),
    "page_size": (0, -1, 65537),
    "memory_share": (0.0, -1.0, 1.01, math.nan, math.inf),
    "ttft_s": (0.0, -1.0, math.nan, math.inf),
    "tpot_s": (0.0, -1.0, math.nan, math.inf),
}


@pytest.mark.parametrize(
    ("name", "value"), [pytest.param(name, v, id=f"{name}={v:g}") for name, values in NUMBERS.items() for v in values]
)
def test_a_number_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    words = name.replace("_s", "") if name in ("ttft_s", "tpot_s") else name.replace("_", "[ _]")
    with pytest.raises(SpecError, match="prefill batch" if name == "batch" else words):
        _make(**{name: value})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"model": "lama-3-8b"}, "did you mean llama-3-8b", id="model"),
        pytest.param({"on": "h1000:8"}, "did you mean", id="chip"),
        pytest.param({"decode_on": "h1000:8"}, "did you mean", id="decode chip"),
        pytest.param({"weights": "fp7"}, "did you mean fp8", id="weights"),
        pytest.param({"kv_dtype": "fp7"}, "did you mean fp8", id="kv_dtype"),
        pytest.param({"prefill": "ws-3d"}, "did you mean ws-2d", id="layout"),
        pytest.param({"decode": "ws-2d/head"}, "did you mean heads", id="attention"),
        pytest.param({"engine": "flesh"}, "did you mean flash", id="engine"),
        pytest.param({"mesh": "2x4"}, "three sizes, e.g. 4x4x4", id="mesh of two"),
        pytest.param({"mesh": "2x4x²"}, "three sizes", id="mesh of letters"),
        pytest.param({"mesh": "2x4x" + "9" * 5000}, "three sizes", id="mesh without end"),
        pytest.param({"input_tokens": 250}, "256 positions; shorten", id="context"),
        pytest.param({"input_tokens": 0}, "at least one input token", id="nothing to read"),
    ],
)
def test_a_mistake_is_answered_with_the_way_out(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        _make(**changes)


@pytest.mark.parametrize("pin", [{"mesh": "2x2x2"}, {"tp": 8}, {"pp": 1}, {"dp": 1}, {"prefill": "ws-1d-allreduce"}])
def test_a_request_that_fixes_the_cut_is_pinned(pin: dict[str, object]) -> None:
    assert _make(**pin).is_pinned
