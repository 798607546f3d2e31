"""Five plans that between them need everything an export knows."""

import pytest
import shardwise
from shardwise.models.catalogue import read_model
from shardwise.planner.result import PlanResult

DENSE = {"input_tokens": 2048, "output_tokens": 256, "tp": 8, "batch": 32}


def moe_model():
    """Mixtral 8x7B by its config.json, in no catalogue under this name."""
    return read_model(
        """
        name: some-moe
        source: "https://huggingface.co/mistralai/Mixtral-8x7B-v0.1/blob/main/config.json"
        n_layers: 32
        d_model: 4096
        vocab_size: 32000
        max_context: 32768
        block: serial
        norm: rmsnorm
        n_norms_per_block: 2
        positions: rope
        tied_embeddings: false
        blocks:
          experts:
            mixer: {kind: attention, n_heads: 32, n_kv_heads: 8, d_head: 128}
            ffn: {kind: experts, n_experts: 8, n_experts_per_token: 2, d_ff: 14336, gated: true, activation: silu}
        stack: [{repeat: 32, blocks: [experts]}]
        """,
        "some-moe.yaml",
    )


def own_model(result):
    """The model of a plan that is in no catalogue."""
    return moe_model() if result.model == "some-moe" else None


@pytest.fixture(scope="session")
def dense() -> PlanResult:
    """Tensor parallel over one host."""
    return shardwise.estimate("llama-3.1-70b", "h100-sxm:8", **DENSE)


@pytest.fixture(scope="session")
def staged() -> PlanResult:
    """Two stages on two hosts, weights and cache in 8 bits, pages of 16."""
    formats = {"weights": "fp8", "kv_dtype": "fp8", "page_size": 16}
    return shardwise.estimate("llama-3.1-405b", "h100-sxm:2x8", pp=2, **DENSE, **formats)


@pytest.fixture(scope="session")
def experts() -> PlanResult:
    """Experts spread over the chips of a tensor parallel replica."""
    layout = "ws-1d-allreduce/heads/expert"
    return shardwise.estimate(moe_model(), "h100-sxm:8", prefill=layout, decode=layout, **DENSE)


@pytest.fixture(scope="session")
def wide_experts() -> PlanResult:
    """Two copies of all but the experts, one a host, and the experts spread over both."""
    layout = "dp-tp/heads/exchange"
    return shardwise.estimate(moe_model(), "h100-sxm:2x4", mesh="2x4x1", prefill=layout, decode=layout, **DENSE)


@pytest.fixture(scope="session")
def split() -> PlanResult:
    """Servers of their own for prefill and for decode."""
    work = {"input_tokens": 2048, "output_tokens": 256, "batch": 16}
    return shardwise.estimate("llama-3.1-70b", "h100-sxm:4", decode_on="h100-sxm:8", **work)


@pytest.fixture(scope="session")
def torus() -> PlanResult:
    """A TPU slice of two hosts, in the layouts of the paper."""
    return shardwise.estimate("llama-3.1-70b", "tpu-v5e:4x4", batch=16, input_tokens=1024, output_tokens=128)


PLANS = ("dense", "staged", "experts", "wide_experts", "split", "torus")
GPU_PLANS = PLANS[:-1]


@pytest.fixture(params=PLANS)
def any_plan(request: pytest.FixtureRequest) -> PlanResult:
    """Each of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=GPU_PLANS)
def gpu_plan(request: pytest.FixtureRequest) -> PlanResult:
    """Each of those on GPUs."""
    return request.getfixturevalue(request.param)
