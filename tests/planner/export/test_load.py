"""Commands of load generators."""

import re
import subprocess

import pytest
import yaml
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.export import LOADS, export_load
from shardwise.planner.export.flags import load_table
from shardwise.planner.result import UnderLoad

from .conftest import own_model
from .test_scripts import commands, flags


@pytest.fixture(scope="module")
def rated(dense):
    """The plan as if it had been made for traffic and limits."""
    load = {
        "step_scale": 1.0, "rate_per_s": 5.0, "within_slo": 1.0,
        "is_met": True, "ttft_p50_s": 0.2, "ttft_p99_s": 0.5, "tpot_p50_s": 0.02,
        "tpot_p99_s": 0.03, "goodput_per_s": 5.0, "highest_rate_per_s": 9.0, "saturation_per_s": 12.0, "usd_per_mtok": None,
    }  # fmt: skip
    plan = dense.plans[0].model_copy(update={"under_load": UnderLoad(**load)})
    return dense.model_copy(update={"plans": (plan,), "ttft_s": 1.0, "tpot_s": 0.04, "rate_per_s": 5.0})


@pytest.mark.parametrize("generator", LOADS)
def test_commands_are_bash_and_use_flags_of_the_table_alone(any_plan, generator):
    made = export_load(any_plan, generator, model=own_model(any_plan))
    done = subprocess.run(["bash", "-n"], input=made.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table, _ = load_table(generator)
    (words,) = (words for words in commands(made.text, " ".join(table.command)) if words[0] != "cat")
    assert set(flags(words)) <= set(table.flags.values())


def test_traffic_is_the_plan_s_own_unless_said(dense, rated):
    closed = flags(commands(export_load(dense, "vllm-bench").text, "vllm bench")[0])
    assert (closed["--max-concurrency"], closed["--num-prompts"], closed.get("--request-rate")) == ("32", "320", None)
    assert (closed["--random-input-len"], closed["--random-output-len"]) == ("2048", "256")
    opened = flags(commands(export_load(rated, "vllm-bench").text, "vllm bench")[0])
    # two minutes of traffic
    assert (opened["--request-rate"], opened["--num-prompts"]) == ("5", "600")
    said = flags(commands(export_load(rated, "vllm-bench", concurrency=7, n_requests=9).text, "vllm bench")[0])
    assert (said["--max-concurrency"], said["--num-prompts"], said.get("--request-rate")) == ("7", "9", None)


def test_limits_go_along_in_each_tool_s_unit(rated):
    assert "--goodput ttft:1000 tpot:40" in export_load(rated, "vllm-bench").text.replace("\\\n ", "")
    assert "kind=generative,slo.ttft_ms=1000,slo.tpot_ms=40" in export_load(rated, "guidellm").text
    perf = yaml.safe_load(re.search(r"<<'YAML'\n(.*?)\nYAML", export_load(rated, "inference-perf").text, re.DOTALL)[1])
    assert perf["report"]["goodput"] == {"constraints": {"ttft": 1.0, "tpot": 0.04}}
    assert perf["load"] == {"type": "poisson", "stages": [{"rate": 5.0, "duration": 120}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate_per_s": 1.0, "concurrency": 2}, "one of them"),
        ({"rate_per_s": 0.0}, "positive number"),
        ({"concurrency": 0}, "at least 1"),
    ],
)
def test_traffic_that_is_none_is_refused(dense, changes, said):
    with pytest.raises(SpecError, match=said):
        export_load(dense, "guidellm", **changes)
