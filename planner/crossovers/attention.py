"""Heads that share keys, latents instead of heads, and windows: what a longer context costs."""

from ...models.blocks import Block
from ...models.catalogue import get_model
from ...models.description import Model
from ...models.mixers.attention import AttentionMixer
from ...models.mixers.latent import LatentMixer
from ...models.params import kv_bytes_per_token, sequence_bytes
from ...validate.published import Timing, load_pope2022
from ...validate.reproduce import predict_timing_s
from ..api import estimate
from .values import Crossover, check, decode_phase

_BF16_BYTES = 2.0
# DeepSeek2024 section 3.2.3: the deployed cache has 6 bits a number on average.
_SIX_BITS_BYTES = 6.0 / 8.0


def multiquery() -> Crossover:
    """Eight layers of PaLM 540B decode: multihead, multiquery over heads, multiquery over batch.

    References
    ----------
    [Pope2022] Figure 8, section 3.3.
    """
    (claim,) = (claim for claim in load_pope2022().claims if claim.id == "A5")
    shown = {"over batch": "multiquery over batch", "over heads": "multiquery over heads", "multihead": "multihead"}
    curves = {}
    for start, name in shown.items():
        row = next(row for row in claim.timings if row.id.startswith(start))
        curves[name] = {float(n): 1e3 * _at_context_s(row, n) for n in (128, 512, 2048, 8192, 32768)}
    batch, heads, multihead = curves.values()
    return Crossover(
        name="multiquery",
        title="Multiquery attention gains once its cache is cut over batch",
        setting="8 layers of PaLM 540B on tpu-v4:4x4x4, batch 256, bf16, fitted",
        x="context (tokens)",
        y="decode step (ms)",
        curves=curves,
        checks=(
            check("over-batch-flat", batch[8192.0] / batch[128.0], tolerance=0.1),
            check("over-heads-slower", heads[8192.0] / batch[8192.0], tolerance=0.15),
            check("multihead-slowest", multihead[8192.0] / batch[8192.0], tolerance=0.15),
            check("over-heads-short", heads[128.0] / batch[128.0], order=heads[128.0] < batch[128.0]),
        ),
    )


def _at_context_s(row: Timing, context: int) -> float:
    return predict_timing_s(row.model_copy(update={"input": context}))


def latent() -> Crossover:
    """DeepSeek-V2's step beside that of the same model with an own key and value for each head.

    References
    ----------
    [DeepSeek2024] abstract, sections 2.1.2 and 3.2.3, Table 9.
    """
    large, small, older = (get_model(name) for name in ("deepseek-v2", "deepseek-v2-lite", "deepseek-llm-67b"))
    whole = multihead_twin(large)
    curves = {
        name: _steps(model, "h200-sxm:8", 16, (512, 2048, 8192, 32768, 131072))
        for name, model in (("latent", large), ("multihead", whole))
    }
    kept = {model.name: kv_bytes_per_token(model, _BF16_BYTES) for model in (large, small, older, whole)}
    six_bits = kv_bytes_per_token(large, _SIX_BITS_BYTES)
    numbers = kept[large.name] / _BF16_BYTES
    multihead_numbers = 860.2e3  # what Table 9 gives for the large model's multihead twin, which had fewer heads
    return Crossover(
        name="latent",
        title="Latent attention keeps less than a tenth of multihead attention's cache",
        setting="DeepSeek-V2 on h200-sxm:8, batch 16, bf16, at the roofline",
        x="context (tokens)",
        y="decode step (ms)",
        curves=curves,
        checks=(
            check("latent-67b", 1.0 - six_bits / kept[older.name], tolerance=0.001),
            check("latent-small", kept[small.name] / kv_bytes_per_token(multihead_twin(small), 2.0), tolerance=0.01),
            check("latent-large", numbers / multihead_numbers, tolerance=0.01),
            check("latent-tenth", kept[large.name] / kept[whole.name]),
        ),
    )


def multihead_twin(model: Model) -> Model:
    """The same model with multihead attention: a key and a value of a head's own width in the latent's place."""
    kinds = {kind: _with_heads(block) for kind, block in model.blocks.items()}
    return model.model_copy(update={"name": f"{model.name}-multihead", "blocks": kinds})


def _with_heads(block: Block) -> Block:
    mixer = block.mixer
    assert isinstance(mixer, LatentMixer), "only latents have a multihead twin"
    heads = AttentionMixer(kind="attention", n_heads=mixer.n_heads, n_kv_heads=mixer.n_heads, d_head=mixer.d_value)
    return block.model_copy(update={"mixer": heads})


def _steps(model: Model, on: str, batch: int, contexts: tuple[int, ...]) -> dict[float, float]:
    """Milliseconds of a decode step at the contexts that fit."""
    phases = {context: decode_phase(model, on, batch=batch, context=context) for context in contexts}
    return {float(context): 1e3 * phase.step_s for context, phase in phases.items() if phase is not None}


def window() -> Crossover:
    """Mistral 7B with its window of 4096 tokens, and without.

    References
    ----------
    [Jiang2023] section 2.
    """
    model = get_model("mistral-7b-v0.1")
    (kind, block), *_ = model.blocks.items()
    unlimited = block.model_copy(update={"mixer": block.mixer.model_copy(update={"reach": None})})  # type: ignore[union-attr]
    full = model.model_copy(update={"name": f"{model.name}-full", "blocks": {kind: unlimited}})
    contexts = (512, 2048, 4096, 8192, 16384, 32767)
    kept = [sequence_bytes(m, 32768.0, kv_bytes=2.0, state_bytes=4.0, conv_bytes=2.0) for m in (full, model)]
    read = [_prompt_attention_s(m, 16384) for m in (full, model)]
    return Crossover(
        name="window",
        title="A sliding window caps what a step reads and keeps",
        setting="Mistral 7B v0.1 on h100-sxm:1, batch 8, bf16, at the roofline",
        x="context (tokens)",
        y="decode step (ms)",
        curves={
            "full attention": _steps(full, "h100-sxm:1", 8, contexts),
            "window of 4096": _steps(model, "h100-sxm:1", 8, contexts),
        },
        checks=(
            check("window-cache", kept[0] / kept[1], tolerance=0.0),
            check("window-attention", read[0] / read[1], tolerance=0.2),
        ),
    )


def _prompt_attention_s(model: Model, tokens: int) -> float:
    """Seconds that attention takes of reading one prompt."""
    result = estimate(model, "h100-sxm:1", input_tokens=tokens, output_tokens=1, bound=True)
    return sum(step.total_s for step in result.best.prefill.breakdown if step.step == "attention")
