"""What a task of each workload becomes: how many requests, how long, and which tokens they share."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shardwise
from shardwise.hardware_specs.errors import UnknownNameError
from shardwise.models.catalogue import get_model
from shardwise.simulator.workload.arrival import Arrival
from shardwise.simulator.workload.gaps import Even
from shardwise.simulator.workload.lengths import Fixed
from shardwise.simulator.workload.presets import Preset, TaskTraffic, get_preset, load_presets, requests_of

ROOT = Path(shardwise.__file__).resolve().parent
BLOCK = 16


def asked(name: str, task: int = 0, n_in: int = 640, n_out: int = 64) -> list[Arrival]:
    return list(requests_of(get_preset(name), task, 1.0, n_in, n_out))


def shared_blocks(a: Arrival, b: Arrival) -> int:
    n = 0
    for one, other in zip(a.block_hashes, b.block_hashes, strict=False):
        if one != other:
            break
        n += 1
    return n


@pytest.mark.parametrize("preset", load_presets().values(), ids=lambda preset: preset.name)
def test_every_preset_names_its_source_and_becomes_its_requests(preset: Preset) -> None:
    (key,) = re.findall(r"^\w+\d{4}", preset.source)
    assert key in (ROOT / "docs" / "references.bib").read_text("utf-8")
    requests = asked(preset.name)
    assert len(requests) == preset.n_requests
    assert {request.task for request in requests} == {0}
    assert [request.stage for request in requests] == sorted(request.stage for request in requests)
    if preset.encoder is not None:
        assert get_model(preset.encoder).bidirectional
    for request in requests:
        assert len(request.block_hashes) in (request.input_tokens // BLOCK, 0)
        assert len(set(request.block_hashes)) == len(request.block_hashes)


def test_retrieval_lengthens_every_prompt_by_its_passages() -> None:
    (request,) = asked("rag")
    assert request.input_tokens == 640 + 1333
    assert [r.input_tokens for r in asked("realm")] == [640 + 288] * 5
    # REALM reads each passage apart, so its branches share nothing
    assert shared_blocks(*asked("realm")[:2]) == 0


def test_guidance_has_a_second_sequence_without_the_prompt() -> None:
    conditional, free = asked("guidance")
    assert (conditional.input_tokens, free.input_tokens) == (640, 1)
    assert conditional.output_tokens == free.output_tokens
    assert conditional.arrival_s == free.arrival_s


def test_branches_share_the_whole_prompt_and_tasks_the_worked_examples() -> None:
    first, second, *_ = asked("self-consistency")
    other = asked("self-consistency", task=1)[0]
    assert shared_blocks(first, second) == 640 // BLOCK
    assert shared_blocks(first, other) == get_preset("self-consistency").common_tokens // BLOCK


def test_thoughts_grow_along_their_branch() -> None:
    requests = asked("tree-of-thoughts")
    branches = [[r for r in requests[i::5]] for i in range(5)]
    for branch in branches:
        for before, after in pairwise(branch):
            assert after.stage == before.stage + 1
            assert after.input_tokens == before.input_tokens + 64
            assert shared_blocks(before, after) == before.input_tokens // BLOCK
    assert shared_blocks(branches[0][2], branches[1][2]) == 640 // BLOCK


def test_a_full_context_is_paged_and_what_stays_is_read_anew() -> None:
    preset = get_preset("memgpt")
    requests = asked("memgpt", n_in=2048, n_out=300)
    assert all(r.input_tokens + r.output_tokens <= preset.window_tokens for r in requests)
    shrinks = [(a, b) for a, b in pairwise(requests) if b.input_tokens < a.input_tokens]
    assert shrinks
    for before, after in shrinks:
        assert shared_blocks(before, after) == preset.common_tokens // BLOCK
    grows = [(a, b) for a, b in pairwise(requests) if b.input_tokens > a.input_tokens]
    assert all(shared_blocks(a, b) == a.input_tokens // BLOCK for a, b in grows)


def test_traffic_gives_each_task_its_number_and_lets_the_encoder_go_first() -> None:
    traffic = TaskTraffic(
        process=Even(rate_per_s=2.0),
        preset=get_preset("tree-of-thoughts"),
        lengths=Fixed(input_tokens=100, output_tokens=10),
        n_tasks=3,
        delay_s=0.25,
    )
    requests = list(traffic.arrivals(np.random.SeedSequence(0)))
    assert len(requests) == traffic.n_requests == 45
    assert [r.task for r in requests] == [q for q in range(3) for _ in range(15)]
    assert {r.arrival_s for r in requests} == {0.5, 1.0, 1.5}
    assert {(r.stage, r.delay_s) for r in requests} == {(0, 0.25), (1, 0.0), (2, 0.0)}


def test_an_unknown_workload_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="memgpt"):
        get_preset("mem-gpt-2")
