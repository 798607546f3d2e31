"""Software that runs programs: the choices that change a program, by name."""

from dataclasses import dataclass

from ...hardware_specs.errors import UnknownNameError
from ...hardware_specs.names import name_key
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
    """

    name: str
    source: str
    layouts: tuple[str, ...]
    attention: tuple[AttentionSharding, ...]
    runs: Engine
    stack: str | None = None


_MEGATRON = ("ws-1d-allreduce", "ws-1d-sequence")
_PAPER = ("ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz")

ENGINES: dict[str, EngineProfile] = {
    profile.name: profile
    for profile in (
        EngineProfile(
            name="flash",
            source="Dao2022; today's engines (vLLM, TensorRT-LLM, SGLang) attend with fused kernels",
            layouts=_MEGATRON,
            attention=("heads", "context"),
            runs=Engine(static_buffers=True),
            stack="trtllm",
        ),
        EngineProfile(
            name="shardwise",
            source="our own executor: every layout, fused attention, buffers reused",
            layouts=_MEGATRON + _PAPER,
            attention=ATTENTION_SHARDINGS,
            runs=Engine(),
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
_FRAMEWORKS = {"fastertransformer": "fastertransformer", "googlejax": "jax-pope2022", "jaxpope2022": "jax-pope2022"}


def get_engine(name: str) -> EngineProfile:
    """Find an engine by name."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]


def engine_of_framework(framework: str) -> str:
    """The engine profile that stands for a framework as measurements name it; ``flash`` for all of today's.

    >>> engine_of_framework("FasterTransformer"), engine_of_framework("vLLM 0.6.5")
    ('fastertransformer', 'flash')
    """
    return _FRAMEWORKS.get(name_key(framework), "flash")
