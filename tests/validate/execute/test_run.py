import itertools
from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.models.layouts import ATTENTION_SHARDINGS
from shardwise.tests.executing import check_runs
from shardwise.tests.strategies import small_model
from shardwise.validate.execute.comm import MeshShape
from shardwise.validate.execute.ranks import run_ranks
from shardwise.validate.execute.run import TOLERANCE, compare
from shardwise.validate.execute.spec import PhaseSpec, RunSpec

_2D = ("ws-2d", "wg-x", "wg-xy", "wg-xyz")
_1D = ("ws-1d", "ws-1d-allreduce", "ws-1d-sequence")
_TINY = {"n_layers": 2, "d_model": 64, "d_ff": 128, "n_heads": 8, "n_kv_heads": 8, "d_head": 8, "vocab_size": 96}
_GQA = {"gated": True, "activation": "silu", "n_kv_heads": 2}
_MQA_PARALLEL = {"n_kv_heads": 1, "block": "parallel", "n_norms_per_block": 1}
_EVERYTHING = {
    "norm": "layernorm",
    "norm_bias": True,
    "biases": {"qkv": True, "attention_out": True, "ffn": True, "logits": True},
    "positions": "learned",
    "n_learned_positions": 48,
    "embedding_norm": True,
    "tied_embeddings": True,
    "vocab_size": 97,
}


def _phase(text: str, **options: object) -> PhaseSpec:
    layout, attention = text.split("/")
    return PhaseSpec(layout=layout, attention=attention, **options)


def _spec(prefill: str, decode: str, model: dict[str, object], **options: object) -> RunSpec:
    mesh = options.pop("mesh", MeshShape(axes={"x": 2, "y": 2, "z": 2}))
    phase = {name: options.pop(name) for name in ("looped", "head_axes") if name in options}
    passes = options.pop("passes", (1, 1))
    fields = {"batch": 8, "input_tokens": 5, "output_tokens": 2} | options
    return RunSpec(
        model=small_model(**(_TINY | model)),
        mesh=mesh,
        prefill=_phase(prefill, n_passes=passes[0], **phase),
        decode=_phase(decode, n_passes=passes[1], **phase),
        **fields,
    )


def _layouts() -> Iterator[tuple[str, RunSpec]]:
    """Every layout, attention sharding and kind of block; both phases of each."""
    for layout, attention, model in itertools.product((*_1D, *_2D), ATTENTION_SHARDINGS, ({}, _MQA_PARALLEL)):
        name = f"{layout}/{attention}"
        yield f"{name} {'parallel' if model else 'serial'}", _spec(name, name, model)


def _switches() -> Iterator[tuple[str, RunSpec]]:
    """Prefill and decode in layouts of their own, over one copy of the weights."""
    pairs = [("wg-xyz/batch", "ws-2d/batch"), ("wg-xyz/heads", "ws-2d/batch"), ("wg-x/heads", "ws-2d/context")]
    pairs += [("wg-xy/context", "ws-2d/heads"), ("ws-2d/context", "wg-xyz/batch")]
    for (prefill, decode), model in itertools.product(pairs, (_GQA, _EVERYTHING)):
        yield f"{prefill} to {decode} {'gqa' if model is _GQA else 'everything'}", _spec(prefill, decode, model)


def _oddities() -> Iterator[tuple[str, RunSpec]]:
    """Batches that do not divide, pages, padded heads, ALiBi, weights gathered in rounds."""
    for layout, attention in itertools.product(_2D, ATTENTION_SHARDINGS):
        name = f"{layout}/{attention}"
        yield f"{name} batch 4", _spec(name, name, _GQA, batch=4)
        yield (
            f"{name} batch 3, pages, alibi",
            _spec(name, name, {"positions": "alibi", "norm": "layernorm"}, batch=3, page_size=2),
        )
        padded = {"qk_norm": True, "n_heads": 6, "n_kv_heads": 6}
        yield f"{name} looped, padded heads", _spec(name, name, padded, batch=2, looped=True)
        yield f"{name} looped, fewer head axes", _spec(name, name, _GQA, looped=True, head_axes=("z",))


def _stages() -> Iterator[tuple[str, RunSpec]]:
    """Every layout on four chips, behind one another."""
    for layout, attention in itertools.product((*_1D, *_2D), ATTENTION_SHARDINGS):
        axes = {"x": 4, "y": 1, "z": 1} if layout in _1D else {"x": 2, "y": 2, "z": 1}
        mesh = MeshShape(axes=axes, pp=2)
        name = f"{layout}/{attention}"
        yield (
            f"{name} micro-batches",
            _spec(name, name, _GQA | {"n_layers": 3}, mesh=mesh, passes=(2, 2), page_size=4),
        )
        odd = {"norm": "layernorm", "embedding_norm": True}
        yield f"{name} odd batch", _spec(name, name, odd, mesh=mesh, batch=3, looped=layout == "wg-xy")
    yield "wg-xy/batch to ws-2d/batch", _spec("wg-xy/batch", "ws-2d/batch", _GQA, mesh=mesh)


def _passes() -> Iterator[tuple[str, RunSpec]]:
    """Prompts in several batches that are decoded together, and the other way round."""
    pairs = [("wg-xyz/batch", "ws-2d/batch"), ("wg-x/heads", "ws-2d/batch"), ("ws-2d/context", "ws-2d/context")]
    for (prefill, decode), passes in itertools.product(pairs, ((4, 1), (2, 1), (1, 2))):
        yield f"{prefill} to {decode} {passes}", _spec(prefill, decode, _GQA, batch=16, passes=passes)
    yield "pages", _spec("ws-2d/batch", "ws-2d/heads", _GQA, batch=16, passes=(2, 1), page_size=4)
    staged = MeshShape(axes={"x": 2, "y": 1, "z": 1}, pp=2, dp=2)
    yield "stages", _spec("ws-1d/heads", "ws-1d/batch", _GQA, mesh=staged, batch=16, passes=(4, 2))


def _narrow() -> Iterator[tuple[str, RunSpec]]:
    """Weights in one byte a number, which are gathered and held as such, and a cache in fewer bits than its activations."""
    pairs = [("wg-xyz/batch", "ws-2d/batch"), ("ws-2d/heads", "ws-2d/heads"), ("wg-x/heads", "ws-2d/context")]
    for weights, (prefill, decode), model in itertools.product(("int8", "fp8"), pairs, (_GQA, _EVERYTHING)):
        kind = "gqa" if model is _GQA else "everything"
        yield f"{weights} {prefill} to {decode} {kind}", _spec(prefill, decode, model, weights=weights, looped=True)
    padded = {"qk_norm": True, "n_heads": 6, "n_kv_heads": 6}
    yield "int8, padded heads", _spec("ws-2d/batch", "ws-2d/batch", padded, weights="int8")
    for kv in ("fp8", "bf16", "fp16"):
        yield f"{kv} cache", _spec("wg-x/heads", "ws-2d/batch", _GQA, kv=kv, page_size=2 if kv == "fp8" else 1)


def _replicas() -> Iterator[tuple[str, RunSpec]]:
    mesh = MeshShape(axes={"x": 2, "y": 2, "z": 1}, dp=2)
    yield "ws-2d/batch", _spec("ws-2d/batch", "ws-2d/batch", _GQA, mesh=mesh)
    yield "wg-xy/batch to ws-2d/batch", _spec("wg-xy/batch", "ws-2d/batch", _GQA, mesh=mesh, batch=4)


@pytest.mark.parametrize(
    "cases",
    [
        _layouts,
        pytest.param(_switches, marks=pytest.mark.slow),
        pytest.param(_oddities, marks=pytest.mark.slow),
        _replicas,
        pytest.param(_stages, marks=pytest.mark.slow),
        pytest.param(_passes, marks=pytest.mark.slow),
        _narrow,
    ],
)
def test_what_is_run_equals_the_unsharded_model_and_sends_what_was_priced(cases) -> None:
    check_runs(dict(cases()))


def test_greedy_decoding_gives_the_tokens_of_the_unsharded_model_over_32_steps() -> None:
    specs = [
        _spec(prefill, decode, _GQA, output_tokens=32)
        for prefill, decode in (("wg-xyz/batch", "ws-2d/batch"), ("ws-2d/heads", "ws-2d/heads"))
    ]
    for spec, reports in zip(specs, run_ranks(specs, limit_s=300), strict=True):
        error, equal = compare(spec, reports)
        assert equal
        assert error <= TOLERANCE["fp32"]
