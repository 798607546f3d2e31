"""What is refused before any rank is started, with the way out."""

from typing import TYPE_CHECKING

from ...hardware_specs.errors import SpecError
from ...models.blocks import Block
from ...models.description import Model
from ...models.feed_forward import ExpertsFfn
from ...models.mixers.attention import AttentionMixer
from ...models.mixers.compressed import CompressedMixer
from ...models.mixers.latent import LatentMixer
from ...models.mixers.mamba import Mamba2Mixer
from ...models.params import full_window
from ...models.program import BlockProgram, Exchange, Experts, Pointwise

if TYPE_CHECKING:
    from .spec import RunSpec


def check_model(model: Model) -> None:
    """Refuse what no program has steps for.

    Raises
    ------
    SpecError : an encoder, attention both ways, or a kind of block that is described and not lowered
    """
    if model.encoder is not None or model.bidirectional:
        raise SpecError(f"{model.name} reads its input both ways; only decoders are executed")
    for kind, block in model.kinds.items():
        if found := _unknown(block):
            raise SpecError(f"{model.name}: {found} of its {kind} blocks is not executed")


def _unknown(block: Block) -> str:
    """A part of a block that nothing here computes; empty where there is none."""
    return "compressed attention" if isinstance(block.mixer, CompressedMixer) else ""


def norm_rows(block: BlockProgram) -> dict[str, int]:
    """Where each norm over d_model finds its scale among the block's norms."""
    names = [step.name for step in block.steps if isinstance(step, Pointwise) and step.op == "norm"]
    of_width = [name for name in names if name not in ("latent norms", "norms of q and k", "inner norms")]
    return {name: i for i, name in enumerate(of_width)}


def source_layer(model: Model, layer: int) -> int | None:
    """The layer whose keys and values a layer reads: its own, or the last one before it whose are alike and kept.

    None where there is no such layer.
    """
    mixer = model.kinds[model.layers[layer]].mixer
    if not isinstance(mixer, AttentionMixer) or mixer.own_kv:
        return layer
    wanted = _left_behind(mixer)
    for before in range(layer - 1, -1, -1):
        other = model.kinds[model.layers[before]].mixer
        if isinstance(other, AttentionMixer) and other.own_kv and _left_behind(other) == wanted:
            return before
    return None


def _left_behind(mixer: AttentionMixer) -> tuple[object, ...]:
    """What must be alike for two layers to read one cache."""
    return mixer.n_kv_heads, mixer.d_head, mixer.value_width, mixer.reach


def check_block(spec: "RunSpec", phase: str, block: BlockProgram) -> None:
    """Refuse a block that cannot be run as it is priced.

    Raises
    ------
    SpecError : norms the program does not name, shared keys out of reach, a window, a norm or tokens that lie unevenly
    """
    model = spec.model
    n_norms = model.n_norms(block.block)
    if len(norm_rows(block)) != n_norms:
        raise SpecError(
            f"{model.name} has {n_norms} norms in its {block.kind} blocks; their program runs {len(norm_rows(block))}"
        )
    _check_sources(spec, block)
    _check_picks(spec, block)
    _check_window(spec, block)
    _check_gate_norm(spec, phase, block)
    _check_routing(spec, phase, block)


def _check_sources(spec: "RunSpec", block: BlockProgram) -> None:
    for stage in range(spec.mesh.pp):
        layers = spec.layers_of(stage)
        for layer in layers:
            if spec.model.layers[layer] == block.kind and source_layer(spec.model, layer) not in layers:
                raise SpecError(
                    f"layer {layer} of {spec.model.name} reads keys and values that no layer before it on stage {stage} "
                    f"keeps; execute with fewer pipeline stages"
                )


def _check_picks(spec: "RunSpec", block: BlockProgram) -> None:
    """Keys that an earlier layer's indexer picks must have been picked on the same stage."""
    mixer = block.block.mixer
    if not isinstance(mixer, LatentMixer) or mixer.top_k is None or mixer.indexer is not None:
        return
    for stage in range(spec.mesh.pp):
        mixers = [spec.model.kinds[spec.model.layers[layer]].mixer for layer in spec.layers_of(stage)]
        indexers = [i for i, m in enumerate(mixers) if isinstance(m, LatentMixer) and m.indexer is not None]
        if mixer in mixers and (not indexers or indexers[0] > mixers.index(mixer)):
            raise SpecError(
                f"stage {stage} of {spec.model.name} begins with layers that read what an indexer before it picks; execute "
                f"with fewer pipeline stages"
            )


def _check_window(spec: "RunSpec", block: BlockProgram) -> None:
    """A window's positions must lie on the same chips whichever of them is the first."""
    kept = full_window(block.block)
    if not 0 < kept < spec.input_tokens:
        return
    for phase in ("prefill", "decode"):
        for tensor in spec.program(phase).of(block.kind).state:
            shards = spec.mesh.size(tensor.form.axes_of("S")) if "S" in tensor.form.letters else 1
            if kept % shards:
                raise SpecError(
                    f"the {kept} positions {block.kind} blocks keep do not lie evenly over {shards} chips; cut the cache "
                    f"over heads or batch, or over chips that divide them"
                )


def _check_gate_norm(spec: "RunSpec", phase: str, block: BlockProgram) -> None:
    mixer = block.block.mixer
    if not isinstance(mixer, Mamba2Mixer) or mixer.n_groups == 1:
        return
    shards = spec.mesh.size(block.state[0].form.axes_of("H"))
    if shards > mixer.n_groups:
        raise SpecError(
            f"{phase} cuts the {mixer.n_groups} groups of {block.kind} blocks over {shards} chips, and each group has one "
            f"norm; cut the heads over at most {mixer.n_groups}"
        )


def _check_routing(spec: "RunSpec", phase: str, block: BlockProgram) -> None:
    ffn = block.block.ffn
    if not isinstance(ffn, ExpertsFfn) or spec.routing != "balanced":
        return
    for step in block.steps:
        if isinstance(step, Exchange) and spec.mesh.size(step.axes) > 1:
            tokens = next(s.x for s in block.steps if isinstance(s, Experts))
            dims = spec.dimensions(phase, block.kind, spec.input_tokens if phase == "prefill" else 1)
            copies = dims.local(tokens.form, "B") * dims.local(tokens.form, "L") * ffn.n_experts_per_token
            if copies % spec.mesh.tp:
                raise SpecError(
                    f"{phase} sends {copies} copies of each chip's tokens to experts on {spec.mesh.tp} chips, which is no even "
                    f"share; execute with a --batch that divides"
                )


def unexecuted(block: Block) -> str:
    """What a block has and no kernel of ours computes, in words; empty for what they all compute."""
    mixer, ffn = block.mixer, block.ffn
    is_plain = isinstance(mixer, AttentionMixer) and mixer.reach is None and not mixer.sinks
    found = [] if mixer is None or is_plain else [f"{mixer.kind} mixer"]
    return ", ".join(found + (["experts"] if isinstance(ffn, ExpertsFfn) else []))
