"""Software that runs programs: the choices that change a program, by name."""

from dataclasses import dataclass

from ...hardware_specs.errors import UnknownNameError
from ...hardware_specs.names import name_key
from ...models.layouts import ATTENTION_SHARDINGS, AttentionSharding


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """What an engine does to the program.

    Parameters
    ----------
    looped : weights are gathered in rounds beside their matmul (looped CollectiveEinsum)
    axes_at_once : a collective uses the links of all its torus axes together, else those of one line after the other
    pipelines : the engine can cut a model into pipeline stages
    materialised_scores : attention writes its scores to HBM, masked ones too
    static_buffers : every tensor of a block has a buffer of its own
    microbatch_tokens : a pipeline's batch is split by its stages, then in halves down to this many tokens
    layouts, attention : what the engine can run, and the planner tries unless told otherwise
    """

    name: str
    source: str
    looped: bool
    axes_at_once: bool
    materialised_scores: bool
    static_buffers: bool
    microbatch_tokens: int | None = None
    pipelines: bool = True
    layouts: tuple[str, ...]
    attention: tuple[AttentionSharding, ...]


_MEGATRON = ("ws-1d-allreduce", "ws-1d-sequence")
_PAPER = ("ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz")

ENGINES: dict[str, EngineProfile] = {
    profile.name: profile
    for profile in (
        EngineProfile(
            name="flash",
            source="Dao2022; today's engines (vLLM, TensorRT-LLM, SGLang) attend with fused kernels",
            looped=False,
            axes_at_once=True,
            materialised_scores=False,
            static_buffers=True,
            layouts=_MEGATRON,
            attention=("heads", "context"),
        ),
        EngineProfile(
            name="shardwise",
            source="our own executor: every layout, fused attention, buffers reused",
            looped=False,
            axes_at_once=True,
            materialised_scores=False,
            static_buffers=False,
            layouts=_MEGATRON + _PAPER,
            attention=ATTENTION_SHARDINGS,
        ),
        EngineProfile(
            name="jax-pope2022",
            source="Pope2022 section 3.5",
            looped=True,
            axes_at_once=False,
            materialised_scores=True,
            static_buffers=False,
            pipelines=False,
            layouts=_PAPER,
            attention=ATTENTION_SHARDINGS,
        ),
        EngineProfile(
            name="fastertransformer",
            source="FasterTransformer docs/gpt_guide.md; getLocalBatchSize in src/fastertransformer/utils/nccl_utils.cc",
            looped=False,
            axes_at_once=True,
            materialised_scores=True,
            static_buffers=True,
            microbatch_tokens=1024,
            layouts=_MEGATRON[:1],
            attention=("heads",),
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
