"""Under any limits, batch and count of chips, the best pair of a search is among the unbeaten ones."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shardwise.hardware_specs.cluster import parse_pool
from shardwise.planner.build import build_phases
from shardwise.planner.explorer.unbeaten import unbeaten_pairs
from shardwise.planner.request import PlanRequest, make_request
from shardwise.planner.search import Found, Pair, rank, search
from shardwise.simulator.types import Slo
from shardwise.tests.strategies import small_model

COUNTS = (1, 2, 4)
BATCHES = (1, 2, 8, 32)


@cache
def request_of(chip: str) -> PlanRequest:
    slices = tuple(slice_ for n in COUNTS for slice_ in parse_pool(f"{chip}:{n}"))
    request = make_request(small_model(), f"{chip}:4", input_tokens=64, output_tokens=16)
    return replace(request, slices=slices, decode_slices=slices, prefill_batches=BATCHES, decode_batches=BATCHES)


@cache
def pairs_of(chip: str) -> tuple[Pair, ...]:
    return tuple(unbeaten_pairs(request_of(chip), Found()))


@cache
def passes_of(chip: str) -> tuple[tuple[float, float], ...]:
    """TTFT and TPOT of each pair."""
    request, pairs = request_of(chip), pairs_of(chip)
    prefill, decode = (build_phases(request, [getattr(pair, name) for pair in pairs]) for name in ("prefill", "decode"))
    return tuple((p.step_s, d.step_s) for p, d in zip(prefill, decode, strict=True))


def figures(pair: Pair) -> tuple[float, float]:
    return pair.latency_s, pair.chip_s


def kept(chip: str, slo: Slo, count: int, batch: int | None) -> list[Pair]:
    """The unbeaten pairs that a choice leaves."""
    return [
        pair
        for pair, (ttft_s, tpot_s) in zip(pairs_of(chip), passes_of(chip), strict=True)
        if pair.prefill.slice.n_chips == count
        and batch in (None, pair.decode.batch)
        and (slo.ttft_s is None or ttft_s <= slo.ttft_s)
        and (slo.tpot_s is None or tpot_s <= slo.tpot_s)
    ]


@pytest.mark.parametrize("chip", ["h100-sxm", "tpu-v4"])
@given(data=st.data())
@settings(max_examples=30)
def test_the_best_of_a_search_is_among_them(chip: str, data: st.DataObject) -> None:
    request = request_of(chip)
    ttfts, tpots = (st.sampled_from((None, *sorted(set(values)))) for values in zip(*passes_of(chip), strict=True))
    slo = Slo(ttft_s=data.draw(ttfts), tpot_s=data.draw(tpots))
    count, batch = data.draw(st.sampled_from(COUNTS)), data.draw(st.sampled_from((None, *BATCHES)))
    objective = data.draw(st.sampled_from(("latency", "cost", "throughput")))
    slices = tuple(slice_ for slice_ in request.slices if slice_.n_chips == count)
    asked = replace(
        request,
        slices=slices,
        decode_slices=slices,
        max_chips=count,
        slo=slo,
        objective=objective,
        decode_batches=BATCHES if batch is None else (batch,),
    )
    best, left = search(asked).pairs, rank(asked, kept(chip, slo, count, batch))
    assert bool(best) == bool(left)
    if best:
        assert figures(left[0]) == pytest.approx(figures(best[0]), rel=1e-9)


@pytest.mark.parametrize("chip", ["h100-sxm", "tpu-v4"])
def test_none_is_beaten_by_another_of_its_chips_and_batch(chip: str) -> None:
    points: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    for pair, passes in zip(pairs_of(chip), passes_of(chip), strict=True):
        points.setdefault((pair.decode.slice.n_chips, pair.decode.batch), []).append((*figures(pair), *passes))
    assert len(points) > len(COUNTS)
    for group in points.values():
        for one in group:
            assert not any(other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in group)


def test_what_does_not_fit_is_counted() -> None:
    found = Found()
    request = make_request("llama-3.1-70b", "h100-sxm:1", input_tokens=64, output_tokens=16)
    assert unbeaten_pairs(request, found) == []
    assert found.rejected["out of memory"] == found.n_candidates > 0
