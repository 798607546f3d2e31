"""Workloads by name on a plan: what each changes against the plan's own; and draft models priced beside it."""

import json
from functools import cache

import pytest
import shardwise
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.catalogue import get_model
from shardwise.models.params import n_params
from shardwise.planner.cli import app
from shardwise.planner.drafts import DRAFT_PAIRS, price_draft
from shardwise.planner.encoders import encoder_s
from shardwise.planner.result import PlanResult
from shardwise.simulator.report import Report
from shardwise.simulator.workload.presets import get_preset, load_presets
from typer.testing import CliRunner


@cache
def plan() -> PlanResult:
    return shardwise.estimate("llama-3.1-8b", "h100-sxm:1", input_tokens=1024, output_tokens=128, batch=16)


@cache
def large() -> PlanResult:
    return shardwise.estimate("llama-3.1-70b", "h100-sxm:8", input_tokens=1024, output_tokens=128, batch=4)


@cache
def served(workload: str | None, n: int = 20, lengths: str | None = None) -> Report:
    return shardwise.simulate(plan(), rate_per_s=0.5, n_requests=n, workload=workload, lengths=lengths)


@pytest.mark.parametrize("name", load_presets())
def test_every_task_is_answered(name: str) -> None:
    found = served(name).summary()
    assert (found.finished, found.tasks) == (20 * get_preset(name).n_requests, 20)
    assert found.task_s is not None
    assert found.task_s.p50 >= found.e2e_s.p50


def test_retrieval_reads_more_and_waits_for_its_encoder() -> None:
    plain, rag = served(None, lengths="fixed"), served("rag", lengths="fixed")
    assert (rag.columns["prompt_tokens"] == plain.columns["prompt_tokens"] + 1333).all()
    wait = encoder_s("bert-base", 64, plan().best)
    assert 0 < wait < 0.02  # twelve layers of 768, and what a pass takes on the host
    assert rag.columns["scheduled_s"][0] - rag.columns["arrival_s"][0] == pytest.approx(wait)
    assert rag.summary().ttft_s.p50 > plain.summary().ttft_s.p50


def test_branches_read_their_prompt_from_the_prefix_cache() -> None:
    assert served(None).summary().cached_prompt_share == 0.0
    assert served("self-consistency").summary().cached_prompt_share > 0.8
    assert served("tree-of-thoughts").summary().cached_prompt_share > 0.4
    assert served("memgpt").summary().cached_prompt_share > 0.5
    assert served("realm").summary().cached_prompt_share == 0.0


def test_guidance_decodes_two_sequences_and_every_step_is_slower() -> None:
    plain, guided = served(None), served("guidance")
    assert guided.columns["output_tokens"].sum() == 2 * plain.columns["output_tokens"].sum()
    assert guided.summary().tpot_s.mean > plain.summary().tpot_s.mean


def test_steps_of_a_tree_follow_each_other() -> None:
    found = served("tree-of-thoughts").summary()
    assert found.task_s.p50 > 2.5 * found.e2e_s.p50  # three steps, of which a task waits for the slowest branch


def test_a_mask_costs_by_the_vocabulary() -> None:
    plain, held = served(None).summary(), served("constrained").summary()
    mask_s = get_preset("constrained").mask_s_per_element * get_model("llama-3.1-8b").vocab_size
    # at least one sequence is masked in every step
    assert held.tpot_s.mean - plain.tpot_s.mean >= 0.999 * mask_s


def test_long_contexts_take_longer_to_read_and_a_longer_step() -> None:
    plain, long = served(None).summary(), served("longbench").summary()
    assert long.ttft_s.p50 > 3 * plain.ttft_s.p50
    assert long.kv_peak > plain.kv_peak


def test_a_workload_says_what_comes_itself() -> None:
    with pytest.raises(SpecError, match="--rate"):
        shardwise.simulate(plan(), concurrency=4, n_requests=4, workload="rag")
    with pytest.raises(SpecError, match="priorities"):
        shardwise.simulate(plan(), rate_per_s=1.0, n_requests=4, workload="rag", priority_shares=(0.5, 0.5))


@pytest.mark.parametrize("pair", DRAFT_PAIRS, ids=lambda pair: pair.model)
def test_pairs_are_of_the_catalogue_share_tokens_and_are_much_smaller(pair) -> None:
    model, draft = get_model(pair.model), get_model(pair.draft)
    assert draft.vocab_size <= model.vocab_size
    assert n_params(draft) < 0.25 * n_params(model)


def test_a_draft_is_priced_by_the_planner_and_takes_its_memory() -> None:
    drafted = price_draft(large(), 1, "auto")
    assert 0 < drafted.speculation.draft_cost < 0.5
    weights = 2.0 * n_params(get_model("llama-3.2-1b"))
    assert drafted.held_bytes == pytest.approx(weights / drafted.chips, rel=0.05)
    # a token is kept by 80 layers of 8 heads of 128 and by 16 of 8 of 64
    assert drafted.cache_share == pytest.approx(80 * 128 / (80 * 128 + 16 * 64))


def test_a_good_draft_shortens_tokens_and_a_bad_one_does_not() -> None:
    def tpot(draft: str | None) -> float:
        report = shardwise.simulate(large(), rate_per_s=0.5, n_requests=40, draft=draft)
        return report.summary().tpot_s.p50

    plain = tpot(None)
    assert tpot("llama-3.2-1b:4:0.9") < plain
    assert tpot("llama-3.2-1b:4:0.0") > plain
    assert tpot("llama-3.2-1b:4:0.9") < tpot("llama-3.1-8b:4:0.9")


@pytest.mark.parametrize(
    ("draft", "word"),
    [
        ("llama-3.1-70b", "another model"),
        ("qwen2.5-0.5b", "tokens"),
        ("llama-3.2-1b:x", "NAME"),
        ("llama-3.2-1b:0", "at least one token"),
        ("llama-3.2-1b:4:1.5", "acceptance"),
        ("lama", "llama"),
    ],
)
def test_drafts_that_cannot_be_are_refused(draft: str, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        price_draft(large(), 1, draft)


def test_a_model_without_a_known_draft_says_so() -> None:
    with pytest.raises(SpecError, match="no draft model is known"):
        price_draft(plan().model_copy(update={"model": "mistral-7b"}), 1, "auto")


def test_the_command_knows_workloads_and_drafts(tmp_path) -> None:
    def run(*words: object):
        return CliRunner().invoke(app, [str(word) for word in words])

    path = tmp_path / "plan.json"
    path.write_text(large().model_dump_json())
    words = ("simulate", path, "--rate", 0.5, "--requests", 5, "--workload", "tree-of-thoughts", "--draft", "auto")
    found = json.loads(run(*words, "--json").stdout)
    assert (found["requests"], found["tasks"]) == (75, 5)
    assert "5 tasks" in run(*words).stdout
    assert run("simulate", path, "--rate", 1, "--workload", "nothing").exit_code == 2
    assert run("simulate", path, "--rate", 1, "--draft", "auto", "--speculate", "4:0.7").exit_code == 2
    for what, name in (("workloads", "memgpt"), ("drafts", "llama-3.1-70b")):
        assert name in run("show", what, "--json").stdout
        assert json.loads(run("show", what, name, "--json").stdout)
    assert run("show", "drafts", "mamba-2.8b").exit_code == 2
