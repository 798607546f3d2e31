"""Scripts of vLLM, SGLang and TensorRT-LLM: read back by bash, and flag by flag against the engines' own lists."""

import json
import math
import re
import shlex
import subprocess

import pytest
import shardwise
import yaml
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.export import LaunchOptions, export_plan
from shardwise.planner.export.flags import load_table, tables, versions

from .conftest import moe_model, own_model


def exported(result, target, **changes):
    """A plan for a target."""
    return export_plan(result, target, model=own_model(result), **changes)


def commands(text, start):
    """Words of every command in a script that begins so, line continuations joined."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in joined.split("\n")]
    return [shlex.split(line) for line in lines if start in line and not line.startswith("#")]


def flags(words):
    """Long flags of a command with their values: True for one without."""
    made, name = {}, None
    for word in words:
        if word.startswith("--"):
            name = word
            made[name] = True
        elif name is not None and made[name] is True:
            made[name] = word
    return made


def check_bash(text):
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("target", ["vllm", "sglang", "trtllm"])
def test_scripts_of_gpu_plans_are_bash_and_use_flags_of_the_table_alone(gpu_plan, target):
    made = exported(gpu_plan, target)
    check_bash(made.text)
    table, _ = load_table(made.engine, made.version)
    found = commands(made.text, " ".join(table.command))
    assert len(found) == (1 if gpu_plan.plans[0].shared else 2 if target != "trtllm" else 3)
    known = {*table.flags.values(), *table.server_flags.values()}
    for words in found:
        own = words[words.index(table.command[-1]) :]
        assert set(flags(own)) <= known
        assert not set(own) & set(table.gone)


def test_a_tpu_s_script_uses_flags_of_the_table_alone(torus):
    made = exported(torus, "vllm")
    table, _ = load_table("vllm")
    for words in commands(made.text, "vllm serve"):
        assert set(flags(words)) <= {*table.flags.values(), *table.server_flags.values()}


def test_vllm_flags_are_those_of_its_own_parser(any_plan, shared_dir):
    listed = json.loads((shared_dir / "engines" / "vllm-0.33.0.json").read_text())
    known = {name for entry in listed for name in entry["flags"]}
    table, _ = load_table("vllm", "0.33.0")
    assert set(table.flags.values()) <= known
    assert not set(table.gone) & known
    for words in commands(exported(any_plan, "vllm").text, "vllm serve"):
        assert set(flags(words)) - set(table.server_flags.values()) <= known


def test_sglang_flags_are_those_of_its_own_command_line(gpu_plan, shared_dir):
    listed = json.loads((shared_dir / "engines" / "sglang-0.5.23.json").read_text())
    on_command_line = {name for name, entry in listed.items() if "no_cli=True" not in entry["ann"]}
    table, _ = load_table("sglang", "0.5.23")
    assert set(table.flags.values()) <= on_command_line
    assert not set(table.gone) & on_command_line
    for words in commands(exported(gpu_plan, "sglang").text, "sglang.launch_server"):
        assert set(flags(words)) <= on_command_line


@pytest.mark.parametrize("target", ["vllm", "sglang", "trtllm"])
def test_lengths_and_batch_limits_are_always_given(gpu_plan, target):
    made = exported(gpu_plan, target)
    table, _ = load_table(made.engine)
    for words in commands(made.text, " ".join(table.command)):
        if "disaggregated" in words:
            continue
        given = flags(words)
        longest = int(given[table.flags["max_model_len"]])
        assert longest >= gpu_plan.workload.input_tokens + gpu_plan.workload.output_tokens
        assert int(given[table.flags["token_budget"]]) >= int(given[table.flags["max_sequences"]]) >= 1


def test_each_engine_gets_its_own_memory_fraction(dense):
    phase = dense.best.decode
    chip = get_chip(phase.chip).hbm_bytes.value
    vllm = flags(commands(exported(dense, "vllm").text, "vllm serve")[0])
    cache = int(vllm["--kv-cache-memory-bytes"])
    assert "--gpu-memory-utilization" not in vllm
    # weights, cache and the passes fill what the plan may fill, and the passes are not nothing
    assert phase.memory.weights + cache < phase.memory.limit
    sglang = flags(commands(exported(dense, "sglang").text, "sglang.launch_server")[0])
    # three decimals, rounded down
    assert float(sglang["--mem-fraction-static"]) == pytest.approx((phase.memory.weights + cache) / chip, abs=1e-3)
    trtllm = yaml.safe_load(re.search(r"<<'YAML'\n(.*?)\nYAML", exported(dense, "trtllm").text, re.DOTALL)[1])
    share = trtllm["kv_cache_config"]["free_gpu_memory_fraction"]
    assert share == pytest.approx(cache / (chip - phase.memory.weights), abs=1e-3)


def test_a_tpu_gets_a_share_of_its_memory_and_ray_over_its_hosts(torus):
    made = exported(torus, "vllm")
    check_bash(made.text)
    given = flags(commands(made.text, "vllm serve")[0])
    limit = torus.best.decode.memory.limit / get_chip("tpu-v5e").hbm_bytes.value
    assert float(given["--gpu-memory-utilization"]) == pytest.approx(limit, abs=1e-4)
    assert given["--distributed-executor-backend"] == "ray"
    assert given["--tensor-parallel-size"] == "16"
    assert any("ws-2d on a 4x4x1 mesh" in note for note in made.notes)


@pytest.mark.parametrize("target", ["sglang", "trtllm", "dynamo"])
def test_engines_that_run_on_no_tpu_say_which_do(torus, target):
    with pytest.raises(SpecError, match="does not run on tpu-v5e; export this plan --to vllm or llm-d or kserve"):
        export_plan(torus, target)


def test_stages_over_two_hosts_find_each_other(staged):
    given = flags(commands(exported(staged, "vllm").text, "vllm serve")[0])
    sizes = {name: given[f"--{name}"] for name in ("tensor-parallel-size", "pipeline-parallel-size", "nnodes")}
    assert sizes == {"tensor-parallel-size": "8", "pipeline-parallel-size": "2", "nnodes": "2"}
    assert (given["--node-rank"], given["--master-addr"]) == ("$HOST_RANK", "$HEAD_ADDRESS")
    formats = {name: given[f"--{name}"] for name in ("quantization", "kv-cache-dtype", "block-size")}
    assert formats == {"quantization": "fp8", "kv-cache-dtype": "fp8", "block-size": "16"}
    sglang = flags(commands(exported(staged, "sglang").text, "sglang.launch_server")[0])
    # SGLang has another word for the same cache
    assert (sglang["--kv-cache-dtype"], sglang["--nnodes"], sglang["--pp-size"]) == ("fp8_e4m3", "2", "2")
    assert "mpirun -n 16" in exported(staged, "trtllm").text


def test_experts_over_tensor_parallel_chips_and_over_copies(experts, wide_experts):
    inside = flags(commands(exported(experts, "vllm").text, "vllm serve")[0])
    assert inside["--enable-expert-parallel"] is True
    assert (inside["--tensor-parallel-size"], inside.get("--data-parallel-size")) == ("8", None)
    text = exported(wide_experts, "vllm").text
    wide = flags(commands(text, "vllm serve")[0])
    # vLLM spreads experts over tensor x data parallel ranks, and every rank has a scheduler of its own
    assert (wide["--tensor-parallel-size"], wide["--data-parallel-size"], wide["--max-num-seqs"]) == ("4", "2", "16")
    assert (wide["--data-parallel-size-local"], wide["--all2all-backend"]) == ("1", "deepep_high_throughput")
    assert 'headless=(--headless --data-parallel-start-rank "$((HOST_RANK * 1))")' in text
    sglang = flags(commands(exported(wide_experts, "sglang").text, "sglang.launch_server")[0])
    # SGLang counts all chips as tensor parallel, and its limits over all groups
    assert (sglang["--tp-size"], sglang["--ep-size"], sglang["--attn-dp-size"]) == ("8", "8", "2")
    assert sglang["--max-running-requests"] == "32"
    trtllm = flags(commands(exported(wide_experts, "trtllm").text, "trtllm-serve")[0])
    assert (trtllm["--tp_size"], trtllm["--ep_size"], trtllm["--max_batch_size"]) == ("8", "8", "4")
    assert any("TensorRT-LLM 1.2 has 8 of one chip" in note for note in exported(wide_experts, "trtllm").notes)


def test_the_planner_s_own_choice_for_a_model_with_experts_is_written(experts):
    found = shardwise.plan(moe_model(), "h100-sxm:8", input_tokens=1024, output_tokens=128, batch=256, top=3)
    for plan in found.plans:
        made = export_plan(found, "vllm", rank=plan.rank, model=moe_model())
        given = flags(commands(made.text, "vllm serve")[0])
        sizes = [int(given.get(f"--{name}-parallel-size", "1")) for name in ("tensor", "data", "pipeline")]
        servers = re.search(r"^# (\d+) servers?, each of", made.text, re.MULTILINE)
        assert math.prod(sizes) * (int(servers[1]) if servers else 1) == plan.decode.n_chips
        assert ("--enable-expert-parallel" in given) == (plan.decode.ep > 1)


def test_servers_of_two_kinds_hand_their_caches_on(split):
    for words in commands(exported(split, "vllm").text, "vllm serve"):
        assert json.loads(flags(words)["--kv-transfer-config"]) == {
            "kv_connector": "NixlConnector",
            "kv_role": "kv_both",
        }
    roles = [
        flags(words)["--disaggregation-mode"] for words in commands(exported(split, "sglang").text, "launch_server")
    ]
    assert roles == ["prefill", "decode"]
    text = exported(split, "trtllm").text
    documents = [yaml.safe_load(part) for part in re.findall(r"<<'YAML'\n(.*?)\nYAML", text, re.DOTALL)]
    assert [set(document) & {"disable_overlap_scheduler"} for document in documents[:2]] == [
        {"disable_overlap_scheduler"},
        set(),
    ]
    assert documents[2]["context_servers"]["num_instances"] == 1


def test_a_configuration_has_fields_of_the_table_alone():
    table, _ = load_table("trtllm")
    known = {"kv_cache_config": {"dtype": "fp8"}, "enable_chunked_prefill": True}
    assert table.checked(known) == known
    with pytest.raises(SpecError, match=r"TensorRT-LLM 1\.2 has no kv_cache_config\.size in its configuration file"):
        table.checked({"kv_cache_config": {"size": 3}})


def test_what_the_engine_does_otherwise_is_said_in_the_script_too(dense):
    made = exported(dense, "sglang")
    assert any("priced as vllm, not as SGLang" in note for note in made.notes)
    text = re.sub(r"\n#  +", " ", made.text)
    assert all(f"# note: {note}" in text for note in made.notes)
    assert "predicted for SGLang 0.5.23 (priced as vllm), low - high at 90 %" in text


def test_attention_over_the_batch_is_said_where_no_engine_has_it(dense):
    plan = dense.plans[0]
    batch = {"attention": "batch"}
    changed = {name: getattr(plan, name).model_copy(update=batch) for name in ("prefill", "decode")}
    over_batch = dense.model_copy(update={"plans": (plan.model_copy(update=changed),)})
    for target in ("vllm", "sglang", "trtllm"):
        assert any("shards attention over batch" in note for note in exported(over_batch, target).notes)


def test_positions_are_cut_over_the_chips_that_share_a_head():
    wide = shardwise.estimate(
        "llama-3.1-70b", "h100-sxm:2x8", tp=16, batch=8, input_tokens=8192, output_tokens=64,
        decode="ws-1d-allreduce/context", prefill="ws-1d-allreduce/heads",
    )  # fmt: skip
    made = exported(wide, "vllm")
    # 16 chips and 8 K/V heads of Llama 3.1 70B: two chips a head
    assert flags(commands(made.text, "vllm serve")[0])["--decode-context-parallel-size"] == "2"
    assert any("over 16 chips; vLLM 0.33 cuts them over the 2" in note for note in made.notes)
    assert any("shards attention over context" in note for note in exported(wide, "sglang").notes)


def test_a_user_s_weights_keep_their_format(staged):
    made = export_plan(staged, "vllm", options=LaunchOptions(checkpoint="/models/llama-fp8"))
    assert "--quantization" not in made.text
    assert "vllm serve /models/llama-fp8" in made.text
    assert any("what /models/llama-fp8 comes in" in note for note in made.notes)


def test_weights_nobody_makes_while_loading_are_said(dense):
    plan = dense.plans[0]
    int4 = dict.fromkeys(("weights", "mixer_weights", "expert_weights", "end_weights"), "int4")
    narrow = {name: getattr(plan, name).model_copy(update=int4) for name in ("prefill", "decode")}
    made = exported(dense.model_copy(update={"plans": (plan.model_copy(update=narrow),)}), "vllm")
    assert "--quantization" not in made.text
    assert any("weights in int4" in note and "--checkpoint" in note for note in made.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_sequences": 0}, "max-sequences 0"),
        ({"max_model_len": -1}, "max-model-len -1"),
        ({"token_budget": 65536 * 8}, "token budget"),
    ],
)
def test_limits_that_are_none_are_refused(dense, options, said):
    with pytest.raises(SpecError, match=said):
        export_plan(dense, "vllm", options=LaunchOptions(**options))


def test_a_model_of_no_catalogue_needs_its_weights_named(experts):
    with pytest.raises(SpecError, match="name them with --checkpoint"):
        export_plan(experts, "vllm")
    made = export_plan(experts, "vllm", options=LaunchOptions(checkpoint="org/weights"))
    assert "vllm serve org/weights" in made.text


def test_versions_take_their_own_table_or_the_nearest_older_one():
    assert load_table("sglang", "0.5.23")[1] is None
    assert [load_table("vllm-bench", version)[0].version for version in (None, "0.19")] == ["0.33", "0.19"]
    table, word = load_table("vllm", "0.34.1")
    assert table.version == "0.33"
    assert "no flag table of vLLM 0.34.1" in word
    assert load_table("vllm", "0.33.2")[1] is None
    with pytest.raises(SpecError, match="older than every flag table"):
        load_table("vllm", "0.2")
    with pytest.raises(SpecError, match="engine version 'new' is none"):
        load_table("vllm", "new")
    with pytest.raises(SpecError, match="no engine with a flag table 'vlm'"):
        load_table("vlm")


def test_experts_in_a_format_of_their_own_stay_as_the_checkpoint_has_them():
    made = exported(shardwise.estimate("gpt-oss-20b", "h100-sxm:1", input_tokens=512, output_tokens=64), "vllm")
    assert "weights bf16 (experts mxfp4)" in made.text
    assert "--quantization" not in made.text
    assert not any("--checkpoint" in note for note in made.notes)


def test_weights_wider_than_activations_are_said():
    # Mamba's checkpoint is in 32 bits, its activations are planned in 16
    made = exported(shardwise.estimate("mamba-2.8b", "h100-sxm:1", input_tokens=512, output_tokens=64), "vllm")
    assert any("weights in fp32 and activations in bf16" in note for note in made.notes)


def test_a_version_gets_the_flags_it_had(wide_experts, staged):
    old = flags(commands(exported(wide_experts, "sglang", engine_version="0.5.6").text, "launch_server")[0])
    # groups of the attention were the data parallel size until --attn-dp-size came
    assert (old["--dp-size"], old["--enable-dp-attention"], old.get("--attn-dp-size")) == ("2", True, None)
    new = flags(commands(exported(wide_experts, "sglang", engine_version="0.5.23").text, "launch_server")[0])
    assert (new.get("--dp-size"), new["--attn-dp-size"]) == (None, "2")
    between = exported(wide_experts, "sglang", engine_version="0.5.10")
    assert any("no flag table of SGLang 0.5.10; flags are those of 0.5.6" in note for note in between.notes)
    plan = staged.plans[0]
    narrow = {name: getattr(plan, name).model_copy(update={"kv_dtype": "nvfp4"}) for name in ("prefill", "decode")}
    narrowed = staged.model_copy(update={"plans": (plan.model_copy(update=narrow),)})
    assert "--kv-cache-dtype nvfp4" in exported(narrowed, "vllm").text
    assert any(
        "a cache in nvfp4: vLLM 0.19 has no such format" in n
        for n in exported(narrowed, "vllm", engine_version="0.19").notes
    )


def test_every_table_says_where_its_flags_are_from():
    for name, held in tables().items():
        assert versions(name) == tuple(table.version for table in held)
        for table in held:
            assert table.source
            assert all(flag.startswith("--") for flag in (*table.flags.values(), *table.gone))
            assert not {*table.flags.values(), *table.server_flags.values()} & set(table.gone)
