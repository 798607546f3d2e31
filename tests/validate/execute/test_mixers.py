"""Every kind of mixer and feed-forward part on 2 and 4 ranks: the numbers of the unsharded model, the bytes that were priced."""

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.hardware_specs.errors import SpecError
from shardwise.models.description import Model
from shardwise.tests.executing import check_runs
from shardwise.validate.execute.comm import MeshShape
from shardwise.validate.execute.priced import priced_bytes
from shardwise.validate.execute.ranks import run_ranks
from shardwise.validate.execute.run import TOLERANCE, compare
from shardwise.validate.execute.spec import PhaseSpec, RunSpec

_HEADS = {"n_heads": 8, "d_head": 8}
_ATTENTION = {"kind": "attention", **_HEADS, "n_kv_heads": 2}
_LATENT = {"kind": "latent", "n_heads": 8, "q_rank": 24, "kv_rank": 16, "d_nope": 8, "d_rope": 4, "d_value": 8}
_MAMBA2 = {"kind": "mamba2", **_HEADS, "d_state": 4, "n_groups": 4}
MIXERS: dict[str, dict[str, object]] = {
    "multihead": _ATTENTION | {"n_kv_heads": 8},
    "multiquery": _ATTENTION | {"n_kv_heads": 1},
    "gated": _ATTENTION | {"output_gate": True},
    "window": _ATTENTION | {"reach": {"pattern": "window", "size": 4}},
    "chunk": _ATTENTION | {"reach": {"pattern": "chunk", "size": 4}},
    "sparse": _ATTENTION | {"reach": {"pattern": "sparse", "size": 2, "share": 0.5}},
    "sinks": _ATTENTION | {"sinks": True, "reach": {"pattern": "window", "size": 4}},
    "no positions": _ATTENTION | {"positions": "none", "qk_norm": True},
    "normed over heads": _ATTENTION | {"qk_norm": True, "qk_norm_over": "width"},
    "gate of heads": _ATTENTION | {"head_gate": True},
    "value is key": _ATTENTION | {"value_is_key": True, "qk_norm": True},
    "latent": _LATENT,
    "latent, gated": _LATENT | {"output_gate": True},
    "latent, padded heads": {key: size for key, size in _LATENT.items() if key != "q_rank"} | {"n_heads": 6},
    "indexed": _LATENT | {"indexer": {"n_heads": 2, "d_head": 8, "top_k": 4}},
    "mamba": {"kind": "mamba", "d_inner": 256, "d_state": 4, "dt_rank": 8},
    "mamba, inner norms": {
        "kind": "mamba", "d_inner": 256, "d_state": 4, "dt_rank": 8, "inner_norms": True, "proj_bias": True,
    },
    "mamba2": _MAMBA2,
    "mamba2, one group": _MAMBA2 | {"n_groups": 1, "proj_bias": True},
    "delta": {"kind": "delta", "n_heads": 8, "d_value": 8, "n_key_heads": 4, "d_key": 4},
    "delta, a decay a channel": {
        "kind": "delta", "n_heads": 8, "d_value": 8, "n_key_heads": 8, "d_key": 8, "d_squeezed": 4,
    },
    "delta, a wide gate": {
        "kind": "delta", "n_heads": 8, "d_value": 8, "n_key_heads": 8, "d_key": 8, "d_squeezed": 4, "wide_gate": True,
    },
    "linear": {"kind": "linear", **_HEADS, "d_feature": 8, "bias": True},
    "random features": {"kind": "linear", **_HEADS, "d_feature": 16},
    "rwkv": {"kind": "rwkv", "d_inner": 256},
}  # fmt: skip
_EXPERTS = {
    "kind": "experts", "n_experts": 8, "n_experts_per_token": 2, "d_ff": 16, "gated": True, "activation": "silu",
}  # fmt: skip
_DENSE = {"kind": "dense", "d_ff": 64, "gated": True, "activation": "silu"}
FEED_FORWARD: dict[str, dict[str, object]] = {
    "dense": _DENSE,
    "squared relu": _DENSE | {"gated": False, "activation": "relu2"},
    "receptance": {"kind": "dense", "d_ff": 64, "gated": False, "activation": "relu2", "receptance": True},
    "experts": _EXPERTS,
    "shared experts": _EXPERTS | {"d_ff_shared": 32, "shared_gate": True},
    "experts with biases": _EXPERTS | {"expert_bias": True, "router_bias": True, "gated": False, "activation": "gelu"},
    "experts in a latent": _EXPERTS | {"d_latent": 32, "expert_bias": True, "d_ff_shared": 32, "shared_gate": True},
    "experts with a capacity": _EXPERTS | {"capacity_factor": 1.0, "n_experts_per_token": 1},
}
MESHES = {"2": {"x": 2, "y": 1, "z": 1}, "4": {"x": 4, "y": 1, "z": 1}, "2x2": {"x": 2, "y": 2, "z": 1}}


def mixed_model(blocks: dict[str, dict[str, object]], **changes: object) -> Model:
    """A small model of some kinds of blocks, one layer each."""
    fields: dict[str, object] = {
        "name": "small", "source": "made up", "n_layers": len(blocks), "d_model": 64, "vocab_size": 96, "block": "serial",
        "norm": "rmsnorm", "n_norms_per_block": 2, "positions": "rope", "tied_embeddings": False, "blocks": blocks,
        "stack": [{"blocks": list(blocks)}],
    }  # fmt: skip
    return Model.model_validate(fields | changes)


def _phase(text: str, **options: object) -> PhaseSpec:
    layout, attention, experts = (*text.split("/"), "tensor")[:3]
    return PhaseSpec(layout=layout, attention=attention, experts=experts, **options)


def _spec(model: Model, mesh: str, prefill: str, decode: str, **options: object) -> RunSpec:
    fields = {"batch": 4, "input_tokens": 5, "output_tokens": 2} | options
    shape = MeshShape(axes=MESHES[mesh], pp=fields.pop("pp", 1), dp=fields.pop("dp", 1))
    passes = fields.pop("passes", (1, 1))
    looped = fields.pop("looped", False)
    return RunSpec(
        model=model,
        mesh=shape,
        prefill=_phase(prefill, n_passes=passes[0], looped=looped),
        decode=_phase(decode, n_passes=passes[1], looped=looped),
        **fields,
    )


def _mixers(mesh: str, layouts: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, RunSpec]]:
    for name, mixer in MIXERS.items():
        ffn = FEED_FORWARD["receptance" if name == "rwkv" else "dense"]
        model = mixed_model({"block": {"mixer": mixer, "ffn": ffn}})
        for prefill, decode in layouts:
            yield f"{name}: {prefill} to {decode} on {mesh}", _spec(model, mesh, prefill, decode)


def _feed_forward(mesh: str) -> Iterator[tuple[str, RunSpec]]:
    for name, ffn in FEED_FORWARD.items():
        model = mixed_model({"block": {"mixer": _ATTENTION, "ffn": ffn}})
        cuts = ("tensor", "expert", "exchange") if ffn["kind"] == "experts" else ("tensor",)
        for cut in cuts:
            layout = f"dp/heads/{cut}" if mesh == "4" else f"ws-1d-allreduce/heads/{cut}"
            routing = "balanced" if cut == "exchange" else "router"
            options = {"batch": 16, "input_tokens": 4, "routing": routing}
            yield f"{name}: {layout} on {mesh}", _spec(model, mesh, layout, layout, **options)


def on_two() -> Iterator[tuple[str, RunSpec]]:
    """Everything on two ranks."""
    yield from _mixers("2", (("ws-1d/heads", "ws-1d/batch"),))
    yield from _feed_forward("2")


def on_four() -> Iterator[tuple[str, RunSpec]]:
    """Everything on four ranks: prefill with gathered weights, decode with the context cut."""
    yield from _mixers("2x2", (("wg-x/heads", "ws-2d/context"),))
    yield from _feed_forward("4")


def in_other_layouts() -> Iterator[tuple[str, RunSpec]]:
    """Everything in every layout family."""
    pairs = (("wg-xy/batch", "ws-2d/batch"), ("ws-2d/heads", "ws-2d/batch"), ("dp-tp/heads", "dp-tp/batch"))
    yield from _mixers("2x2", pairs)
    yield from _mixers("4", (("ws-1d-sequence/batch", "ws-1d-sequence/heads"), ("dp/heads", "dp/heads")))


def stacks() -> Iterator[tuple[str, RunSpec]]:
    """Kinds of blocks behind each other, layers without one of the parts, keys of another layer, stages, passes, replicas."""
    window = MIXERS["window"]
    hybrid = {
        "full": {"mixer": _ATTENTION, "ffn": _EXPERTS},
        "window": {"mixer": window, "ffn": _DENSE},
        "shared": {"mixer": window | {"own_kv": False}, "ffn": _DENSE},
        "state": {"mixer": _MAMBA2, "n_norms": 1},
        "wide": {"ffn": _EXPERTS, "n_norms": 1},
        "latent": {"mixer": MIXERS["indexed"], "ffn": _DENSE},
        "picked": {"mixer": _LATENT | {"top_k": 4}, "ffn": _DENSE},
    }
    model = mixed_model(hybrid)
    yield "hybrid", _spec(model, "2x2", "wg-x/heads", "wg-xy/batch", output_tokens=4)
    yield "hybrid in rounds", _spec(model, "2x2", "wg-x/heads/expert", "wg-xyz/batch/expert", looped=True)
    yield "hybrid in int8", _spec(model, "4", "ws-1d/heads/expert", "ws-1d/heads/expert", weights="int8")
    plain = {"norm": "layernorm", "norm_scale": False}
    yield "norms without scale", _spec(mixed_model({"block": hybrid["full"]}, **plain), "4", "dp/heads", "dp/batch")
    yield "hybrid in pages", _spec(model, "2x2", "dp-tp/heads", "dp-tp/context", page_size=2, kv="fp16")
    passes = {"passes": (2, 1), "batch": 8}
    yield "passes", _spec(model, "2x2", "wg-x/batch", "wg-xy/batch", **passes)
    yield "stages", _spec(model, "2", "ws-1d/batch", "ws-1d/heads", pp=2, passes=(1, 2), batch=8)
    yield "replicas", _spec(model, "2", "dp/heads/exchange", "dp/heads/exchange", dp=2, batch=8, routing="balanced")
    post = {"post_norms": True, "n_norms_per_block": 4, "norm": "layernorm", "norm_bias": True}
    yield "post norms", _spec(mixed_model({"block": hybrid["window"]}, **post), "2x2", "wg-x/heads", "ws-2d/context")


@pytest.mark.parametrize("cases", [on_two, on_four, stacks, pytest.param(in_other_layouts, marks=pytest.mark.slow)])
def test_what_is_run_equals_the_unsharded_model_and_sends_what_was_priced(cases) -> None:
    check_runs(dict(cases()))


def test_routers_send_other_rows_than_an_even_share() -> None:
    model = mixed_model({"block": {"mixer": _ATTENTION, "ffn": _EXPERTS}})
    spec = _spec(model, "4", "dp/heads/exchange", "dp/heads/exchange", batch=8)
    (reports,) = run_ranks([spec], limit_s=100)
    error, equal = compare(spec, reports)
    assert error <= TOLERANCE["fp32"]
    assert equal
    counted = sum(n for report in reports for by_axes in report.sent_bytes.values() for n in by_axes.values())
    priced = sum(n for by_axes in priced_bytes(spec).values() for n in by_axes.values())
    assert counted != priced
    assert counted == pytest.approx(priced, rel=0.2)


@pytest.mark.parametrize(
    ("mixer", "options", "match"),
    [
        pytest.param(
            "window", {"decode": "ws-1d/context", "mesh": "4", "size": 3}, "3 positions .* evenly", id="window"
        ),
        pytest.param("mamba2", {"decode": "ws-1d/heads", "mesh": "4", "n_groups": 2}, "2 groups", id="groups"),
    ],
)
def test_what_cannot_be_run_as_it_is_priced_is_refused(mixer, options, match) -> None:
    changed = dict(MIXERS[mixer])
    if "size" in options:
        changed["reach"] = {"pattern": "window", "size": options["size"]}
    if "n_groups" in options:
        changed["n_groups"] = options["n_groups"]
    model = mixed_model({"block": {"mixer": changed, "ffn": _DENSE}})
    spec = _spec(model, options["mesh"], options["decode"], options["decode"])
    with pytest.raises(SpecError, match=match):
        spec.check_shards("decode")


def test_an_uneven_share_of_balanced_tokens_is_refused() -> None:
    model = mixed_model({"block": {"mixer": _ATTENTION, "ffn": _EXPERTS}})
    spec = _spec(model, "4", "dp/heads/exchange", "dp/heads/exchange", batch=4, routing="balanced")
    with pytest.raises(SpecError, match="no even share"):
        spec.check_shards("decode")
