"""Software that runs programs: the choices that change a program, by name."""

import re
from dataclasses import dataclass

from ...hardware_specs.chip import Chip
from ...hardware_specs.dtypes import parse_dtype
from ...hardware_specs.errors import UnknownNameError
from ...hardware_specs.names import name_key
from ...models.description import Model
from ...models.layouts import ATTENTION_SHARDINGS, AttentionSharding
from .price import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """What an engine does to a program, and which programs it runs.

    Parameters
    ----------
    layouts, attention : what the engine can run, and the planner tries unless told otherwise
    runs : how it runs them, with every constant at its bound
    stack : the software whose kernels it runs, as kernel fits name it; None prices it by constants alone
    mixes : prompts are read in the passes that decode, else between them
    """

    name: str
    source: str
    layouts: tuple[str, ...]
    attention: tuple[AttentionSharding, ...]
    runs: Engine
    stack: str | None = None
    mixes: bool = False


_MEGATRON = ("ws-1d-allreduce", "ws-1d-sequence")
_PAPER = ("ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz")


def _gpu_engine(
    name: str, source: str, stack: str | None, *, launch_mode: str = "graph", mixes: bool = False
) -> EngineProfile:
    """An engine that runs Megatron's forms with fused attention over one software stack's kernels."""
    return EngineProfile(
        name=name,
        source=source,
        layouts=_MEGATRON,
        attention=("heads", "context"),
        runs=Engine(static_buffers=True, launch_mode=launch_mode),
        stack=stack,
        mixes=mixes,
    )


ENGINES: dict[str, EngineProfile] = {
    profile.name: profile
    for profile in (
        _gpu_engine("flash", "Dao2022; any of today's engines, where none is named", "vllm", mixes=True),
        _gpu_engine("vllm", "vLLM 0.8 and later: CUDA graphs, the scheduler beside the model", "vllm", mixes=True),
        _gpu_engine("vllm-async", "vLLM 0.14 and later: the next pass is scheduled while one runs", "vllm", mixes=True),
        _gpu_engine("vllm-v0", "vLLM 0.3 to 0.7: CUDA graphs, the scheduler between passes", "vllm"),
        _gpu_engine("vllm-eager", "vLLM of 2023: no CUDA graphs, NCCL alone", "vllm", launch_mode="nccl"),
        _gpu_engine("sglang", "SGLang 0.4 and later", "sglang"),
        _gpu_engine("sglang-moe", "SGLang 0.5 running experts, latent attention or recurrent mixers", "sglang"),
        _gpu_engine("trtllm", "TensorRT-LLM 0.19 and later: its PyTorch backend", "trtllm", mixes=True),
        _gpu_engine("trtllm-moe", "TensorRT-LLM 0.19 and later running experts", "trtllm", mixes=True),
        _gpu_engine(
            "trtllm-cpp", "TensorRT-LLM 0.7 to 0.18: TensorRT engines, in-flight batching in C++", "trtllm", mixes=True
        ),
        _gpu_engine("vllm-rocm", "vLLM 0.8 and later, and MLPerf's, on AMD's chips", None, mixes=True),
        _gpu_engine("vllm-rocm-v0", "vLLM 0.3 to 0.7 on AMD's chips, whose kernels nobody has published", None),
        _gpu_engine("trtllm-static", "TensorRT-LLM 0.5 and 0.6: gptSessionBenchmark, static batches", "trtllm"),
        _gpu_engine("deepspeed", "DeepSpeed-MII and DeepSpeed-Inference", "vllm", launch_mode="nccl"),
        _gpu_engine("gpt-fast", "gpt-fast: torch.compile with CUDA graphs", "vllm", launch_mode="nccl"),
        EngineProfile(
            name="shardwise",
            source="our own executor: every layout, fused attention, buffers reused",
            layouts=_MEGATRON + _PAPER,
            attention=ATTENTION_SHARDINGS,
            runs=Engine(launch_mode="gloo"),
            stack="shardwise",
        ),
        EngineProfile(
            name="jax-pope2022",
            source="Pope2022 section 3.5",
            layouts=_PAPER,
            attention=ATTENTION_SHARDINGS,
            runs=Engine(looped=True, axes_at_once=False, materialised_scores=True, pipelines=False),
        ),
        EngineProfile(
            name="fastertransformer",
            source="FasterTransformer docs/gpt_guide.md; getLocalBatchSize in utils/nccl_utils.cc",
            layouts=_MEGATRON[:1],
            attention=("heads",),
            runs=Engine(materialised_scores=True, static_buffers=True, microbatch_tokens=1024),
        ),
    )
}


def get_engine(name: str) -> EngineProfile:
    """Find an engine by name."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]


# A framework as measurements name it: words it is known by, versions at which its profile changes (from that one on), and
# the profile of tables that give no version.
_FRAMEWORKS: tuple[tuple[str, tuple[tuple[float, str], ...], str], ...] = (
    ("vllmbased", (), "vllm-eager"),
    ("nim", (), "trtllm-cpp"),
    ("gptsession", (), "trtllm-static"),
    ("fastertransformer", (), "fastertransformer"),
    ("vllmtpu", (), "jax-pope2022"),
    ("rocm", (), "vllm"),
    ("vllm", ((0.0, "vllm-v0"), (0.08, "vllm"), (0.14, "vllm-async")), "vllm-v0"),
    ("sglang", (), "sglang"),
    ("tensorrtllm", ((0.0, "trtllm-static"), (0.07, "trtllm-cpp"), (0.19, "trtllm")), "trtllm-cpp"),
    ("trtllm", (), "trtllm"),
    ("tensorrt", (), "trtllm-cpp"),
    ("cuda", (), "trtllm-cpp"),
    ("deepspeed", (), "deepspeed"),
    ("dsinference", (), "deepspeed"),
    ("accelerate", (), "deepspeed"),
    ("gptfast", (), "gpt-fast"),
    ("googlejax", (), "jax-pope2022"),
    ("jaxpope2022", (), "jax-pope2022"),
    ("jetstream", (), "jax-pope2022"),
    ("sax", (), "jax-pope2022"),
)


# Engines whose checkpoints in 8 and 4 bits come with an 8-bit cache (NVIDIA's and AMD's quantised checkpoints).
_KV_FOLLOWS = ("trtllm", "trtllm-moe", "trtllm-cpp", "trtllm-static", "vllm-rocm")


def default_kv(engine: str, weights: str | None) -> str | None:
    """The cache's format where nobody names it: 8 bits where the engine's checkpoints say so, else None for the model's own.

    >>> default_kv("trtllm", "fp8"), default_kv("vllm", "fp8"), default_kv("trtllm", "bf16")
    ('fp8', None, None)
    """
    narrow = weights is not None and parse_dtype(weights).compute in ("fp8", "fp4")
    return "fp8" if narrow and engine in _KV_FOLLOWS else None


def engine_of_framework(framework: str, version: str = "") -> str:
    """The engine profile that stands for a framework as measurements name it; ``flash`` for one that has none.

    >>> engine_of_framework("FasterTransformer"), engine_of_framework("vLLM", "0.19.0"), engine_of_framework("vLLM")
    ('fastertransformer', 'vllm-async', 'vllm-v0')
    >>> engine_of_framework("TensorRT-LLM", "v0.13.0 TensorRT engine")
    'trtllm-cpp'
    """
    text = name_key(framework)
    for word, changes, unversioned in _FRAMEWORKS:
        if word in text:
            number = _version(version) if _version(version) is not None else _version(framework)
            reached = [name for least, name in changes if number is not None and number >= least]
            return reached[-1] if reached else unversioned
    return "flash"


def engine_on(chip: Chip, framework: str, version: str = "") -> str:
    """The profile of a framework on a chip: vLLM has others on AMD's, and without a version is today's on chips of today.

    Chips that multiply 4-bit floats came after vLLM 0.8.
    """
    name = engine_of_framework(framework, version)
    if chip.vendor.lower() == "amd":
        return {"vllm": "vllm-rocm", "vllm-async": "vllm-rocm", "vllm-v0": "vllm-rocm-v0"}.get(name, name)
    return "vllm" if name == "vllm-v0" and not version and "fp4" in chip.dense_flop_per_s else name


def spreads_prompts(model: Model) -> bool:
    """Whether an engine that is not full may be taken to read its prompts evenly, some in every pass that decodes.

    An engine that mixes reads them a chunk at a time. That comes to the same where a token costs what it costs, but few tokens
    already touch most experts: passes of a few sequences hold many tokens of a prompt or none.
    """
    return not model.has_experts


# Engines that run models with experts by other code than dense ones, and were measured with both.
_WITH_EXPERTS = {"sglang": "sglang-moe", "trtllm": "trtllm-moe"}
# Engines of which no run of a dense model was measured, and what stands for them there.
_WITHOUT_EXPERTS = {"vllm-async": "vllm"}


def engine_running(name: str, model: Model) -> str:
    """The profile of an engine for a model: its own for models with experts, where those were measured apart."""
    return (_WITH_EXPERTS if model.has_experts else _WITHOUT_EXPERTS).get(name, name)


def _version(text: str) -> float | None:
    """The first version in a text: a release 0.N as N hundredths, later ones as whole numbers.

    >>> _version("v0.13.0 TensorRT engine"), _version("1.0.0rc3"), _version("nightly")
    (0.13, 1.0, None)
    """
    found = re.search(r"(?<![\d.])(\d+)\.(\d+)", text)
    if found is None:
        return None
    major, minor = int(found[1]), int(found[2])
    return float(major) if major else minor / 100.0
