"""Manifests for clusters against the schemas of what reads them."""

import gzip
import json
import re

import pytest
import yaml
from shardwise.planner.export import export_plan
from shardwise.planner.export.launch import data
from shardwise.planner.export.manifest import dump

from .conftest import own_model

jsonschema = pytest.importorskip("jsonschema")


def document(result, target):
    """The one document of a manifest."""
    (made,) = yaml.safe_load_all(export_plan(result, target, model=own_model(result)).text)
    return made


def strict(schema):
    """An object schema that takes no field it does not name."""
    if isinstance(schema, dict):
        made = {key: strict(value) for key, value in schema.items()}
        closed = "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields")
        return made | ({"additionalProperties": False} if closed and "additionalProperties" not in made else {})
    return [strict(value) for value in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def llm_service(shared_dir):
    text = gzip.decompress((shared_dir / "engines" / "kserve_llmisvc.crd.yaml.gz").read_bytes())
    crd = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1alpha2")
    return jsonschema.Draft7Validator(strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))


def test_the_strict_schema_takes_kserve_s_own_sample_and_no_typo(llm_service, shared_dir):
    sample = yaml.safe_load((shared_dir / "engines" / "kserve_sample_pd.yaml").read_text())
    assert list(llm_service.iter_errors(sample["spec"])) == []
    sample["spec"]["paralellism"] = {"tensor": 8}
    assert list(llm_service.iter_errors(sample["spec"])) != []


def test_kserve_services_keep_to_its_schema(any_plan, llm_service):
    made = document(any_plan, "kserve")
    assert (made["apiVersion"], made["kind"]) == ("serving.kserve.io/v1alpha2", "LLMInferenceService")
    assert [error.message for error in llm_service.iter_errors(made["spec"])] == []


def test_dynamo_requests_keep_to_its_schema_and_are_not_applied_by_themselves(gpu_plan, shared_dir):
    schema = json.loads((shared_dir / "engines" / "dgdr_v1beta1_spec.schema.json").read_text())
    made = document(gpu_plan, "dynamo")
    assert made["apiVersion"] == "nvidia.com/v1beta1"
    assert [e.message for e in jsonschema.Draft202012Validator(strict(schema)).iter_errors(made["spec"])] == []
    assert made["spec"]["autoApply"] is False


def test_every_gpu_type_is_one_that_dynamo_knows(shared_dir):
    schema = json.loads((shared_dir / "engines" / "dgdr_v1beta1_spec.schema.json").read_text())
    assert set(data("kubernetes")["gpu_skus"].values()) <= set(schema["$defs"]["GPUSKUType"]["enum"])


def test_dynamo_s_workers_know_their_role(split, dense):
    text = export_plan(split, "dynamo").text
    assert re.findall(r"--disaggregation-mode (\w+)", text) == ["prefill", "decode"]
    assert "--disaggregation-mode" not in export_plan(dense, "dynamo").text


def test_dynamo_asks_for_the_plan_s_limits_in_milliseconds(dense):
    limited = dense.model_copy(update={"ttft_s": 1.0, "tpot_s": 0.04})
    spec = document(limited, "dynamo")["spec"]
    assert spec["sla"] == {"ttft": 1000.0, "itl": 40.0}
    # without limits its own would hold: what is predicted stands in their place
    decode = dense.best.decode
    upper = decode.step_s * decode.latency_high_s / decode.latency_s
    assert document(dense, "dynamo")["spec"]["sla"]["itl"] == pytest.approx(upper * 1e3, abs=1e-3)


@pytest.mark.parametrize("target", ["kserve", "llm-d"])
def test_every_server_of_a_cluster_has_its_lengths_and_batch_limits(any_plan, target):
    text = export_plan(any_plan, target, model=own_model(any_plan)).text
    n = len(re.findall(r"VLLM_ADDITIONAL_ARGS|modelCommand", text))
    for flag in ("--max-model-len", "--max-num-batched-tokens", "--max-num-seqs"):
        assert text.count(flag) == n >= 1


def test_kserve_gets_parts_for_prefill_and_workers_for_further_hosts(split, staged, wide_experts):
    both = document(split, "kserve")["spec"]
    assert (both["parallelism"], both["prefill"]["parallelism"]) == ({"tensor": 8}, {"tensor": 4})
    assert document(staged, "kserve")["spec"]["worker"]["containers"][0]["resources"]["limits"] == {
        "nvidia.com/gpu": "8"
    }
    wide = document(wide_experts, "kserve")["spec"]["parallelism"]
    assert wide == {"tensor": 4, "data": 2, "dataLocal": 1, "expert": True}


def test_flags_that_go_through_a_shell_keep_their_json(split):
    (container,) = document(split, "kserve")["spec"]["template"]["containers"]
    (given,) = (entry["value"] for entry in container["env"] if entry["name"] == "VLLM_ADDITIONAL_ARGS")
    assert '--kv-transfer-config \'{"kv_connector"' in given


# Fields of the values of chart llm-d-modelservice that are used (charts/llm-d-modelservice/values.yaml, revision 024c0f2).
CHART = {
    "multinode": None,
    "modelArtifacts": {"name", "uri", "size", "authSecretName", "labels"},
    "accelerator": {"type"},
    "routing": {"servicePort", "proxy"},
    "decode": {"create", "replicas", "parallelism", "containers"},
    "prefill": {"create", "replicas", "parallelism", "containers"},
}
CONTAINER = {"name", "image", "modelCommand", "command", "args", "env", "ports", "mountModelVolume", "resources"}


def test_llm_d_values_have_the_chart_s_fields_alone(any_plan):
    made = document(any_plan, "llm-d")
    assert set(made) == set(CHART)
    for name, fields in CHART.items():
        assert fields is None or set(made[name]) <= fields, name
    for part in (made["decode"], made["prefill"]):
        for container in part.get("containers", ()):
            assert set(container) <= CONTAINER
            assert all(isinstance(word, str) for word in container["args"])


def test_llm_d_leaves_the_sizes_it_adds_itself_to_the_chart(dense, staged):
    (container,) = document(dense, "llm-d")["decode"]["containers"]
    assert container["modelCommand"] == "vllmServe"
    assert "--tensor-parallel-size" not in container["args"]
    (over_hosts,) = document(staged, "llm-d")["decode"]["containers"]
    assert over_hosts["modelCommand"] == "custom"
    assert "--pipeline-parallel-size 2" in over_hosts["args"][0]


@pytest.mark.parametrize("word", ["y", "N", "yes", "off", "true", "1", "1.5", "null", "0x10", "1:20"])
def test_text_stays_text_for_a_yaml_1_1_reader(word):
    assert dump({"value": word}).strip() in (f'value: "{word}"', f"value: '{word}'")
    assert yaml.safe_load(dump({"value": word})) == {"value": word}
