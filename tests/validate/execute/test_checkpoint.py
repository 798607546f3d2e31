import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="execution needs torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors")

import torch
from safetensors.torch import save_file
from shardwise.hardware_specs.errors import SpecError
from shardwise.models.description import Model
from shardwise.tests.strategies import small_model
from shardwise.validate.execute.checkpoint import Checkpoint, read_settings
from shardwise.validate.execute.comm import MeshShape
from shardwise.validate.execute.ranks import run_ranks
from shardwise.validate.execute.reference.model import Reference
from shardwise.validate.execute.run import TOLERANCE, compare
from shardwise.validate.execute.spec import PhaseSpec, RunSpec

_SIZES = {"n_layers": 2, "d_model": 64, "d_ff": 96, "n_heads": 8, "d_head": 8, "vocab_size": 80}
_LLAMA = _SIZES | {"n_kv_heads": 2, "gated": True, "activation": "silu"}
_GPT = _SIZES | {
    "n_kv_heads": 8,
    "norm": "layernorm",
    "norm_bias": True,
    "positions": "learned",
    "n_learned_positions": 32,
    "tied_embeddings": True,
    "biases": {"qkv": True, "attention_out": True, "ffn": True},
}


def llama_tensors(model: Model) -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes that Hugging Face's Llama writes."""
    generator = torch.Generator().manual_seed(7)
    e, f, h = model.d_model, model.d_ff, model.n_heads * model.d_head
    kv, v = model.n_kv_heads * model.d_head, model.vocab_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, e), "model.norm.weight": (e,)}
    if not model.tied_embeddings:
        shapes["lm_head.weight"] = (v, e)
    for i in range(model.n_layers):
        layer = f"model.layers.{i}"
        for name, shape in {"q_proj": (h, e), "k_proj": (kv, e), "v_proj": (kv, e), "o_proj": (e, h)}.items():
            shapes[f"{layer}.self_attn.{name}.weight"] = shape
            if model.biases.qkv and name != "o_proj":
                shapes[f"{layer}.self_attn.{name}.bias"] = shape[:1]
        for name in ("q_norm", "k_norm") if model.qk_norm else ():
            shapes[f"{layer}.self_attn.{name}.weight"] = (model.d_head,)
        for name, shape in {"gate_proj": (f, e), "up_proj": (f, e), "down_proj": (e, f)}.items():
            shapes[f"{layer}.mlp.{name}.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (e,)
    return {
        name: torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
        + (len(shape) == 1)
        for name, shape in shapes.items()
    }


def opt_tensors(model: Model) -> dict[str, torch.Tensor]:
    """Random weights as Hugging Face's OPT writes them; two rows of the positions are never used."""
    e, f, found = model.d_model, model.d_ff, {}
    shapes = {
        "model.decoder.embed_tokens.weight": (model.vocab_size, e),
        "model.decoder.embed_positions.weight": (32, e),
    }
    norms = ["model.decoder.final_layer_norm"]
    for i in range(model.n_layers):
        layer = f"model.decoder.layers.{i}"
        linear = {f"self_attn.{name}_proj": (e, e) for name in ("q", "k", "v", "out")} | {"fc1": (f, e), "fc2": (e, f)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        norms += [f"{layer}.self_attn_layer_norm", f"{layer}.final_layer_norm"]
    for name in norms:
        shapes |= {f"{name}.weight": (e,), f"{name}.bias": (e,)}
    for i, (name, shape) in enumerate(shapes.items()):
        found[name] = torch.randn(shape, generator=torch.Generator().manual_seed(i)) * 0.1
    return found


def gpt2_tensors(model: Model) -> dict[str, torch.Tensor]:
    """Random weights as Hugging Face's GPT-2 writes them: [in, out], q, k and v side by side, masks among them."""
    e, f, found = model.d_model, model.d_ff, {}
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (model.vocab_size, e), "wpe.weight": (32, e)}
    norms = ["ln_f"]
    for i in range(model.n_layers):
        linear = {"attn.c_attn": (e, 3 * e), "attn.c_proj": (e, e), "mlp.c_fc": (e, f), "mlp.c_proj": (f, e)}
        for name, shape in linear.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
        shapes[f"h.{i}.attn.bias"] = (1, 1, 32, 32)
    for name in norms:
        shapes |= {f"{name}.weight": (e,), f"{name}.bias": (e,)}
    for i, (name, shape) in enumerate(shapes.items()):
        found[name] = torch.randn(shape, generator=torch.Generator().manual_seed(i)) * 0.1
    return found


def llama_logits(
    w: dict[str, torch.Tensor], model: Model, tokens: torch.Tensor, theta: float, eps: float
) -> torch.Tensor:
    """The last position's logits, written after Hugging Face's modeling_llama: rows of heads, halves turned."""

    def norm(x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight

    def turned(x):
        first, second = x.chunk(2, -1)
        return torch.cat((-second, first), -1)

    n, d = tokens.shape[1], model.d_head
    angles = torch.outer(torch.arange(n), theta ** (-torch.arange(0, d, 2) / d)).repeat(1, 2)
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(model.n_layers):
        a, m = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        y = norm(x, w[f"model.layers.{i}.input_layernorm.weight"])
        q, k, v = (
            (y @ w[f"{a}.{p}_proj.weight"].T + w.get(f"{a}.{p}_proj.bias", torch.zeros(1)))
            .unflatten(-1, (-1, d))
            .transpose(1, 2)
            for p in "qkv"
        )
        if model.qk_norm:
            q, k = norm(q, w[f"{a}.q_norm.weight"]), norm(k, w[f"{a}.k_norm.weight"])
        q, k = (t * angles.cos() + turned(t) * angles.sin() for t in (q, k))
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scores = (q @ k.transpose(-1, -2)) * d**-0.5 + torch.full((n, n), -torch.inf).triu(1)
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ w[f"{a}.o_proj.weight"].T
        y = norm(x, w[f"model.layers.{i}.post_attention_layernorm.weight"])
        gate = torch.nn.functional.silu(y @ w[f"{m}.gate_proj.weight"].T)
        x = x + (gate * (y @ w[f"{m}.up_proj.weight"].T)) @ w[f"{m}.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x[:, -1], w["model.norm.weight"]) @ head.T


def _spec(model: Model, path: Path, **options: object) -> RunSpec:
    fields = {"batch": 4, "input_tokens": 5, "output_tokens": 3, "checkpoint": str(path)} | options
    return RunSpec(
        model=model,
        mesh=MeshShape(axes={"x": 2, "y": 2, "z": 1}),
        prefill=PhaseSpec(layout="wg-x", attention="heads"),
        decode=PhaseSpec(layout="ws-2d", attention="batch"),
        **fields,
    )


def _checkpoint(path: Path, model: Model) -> Checkpoint:
    return Checkpoint(str(path), _spec(model, path).weight_plan(), torch.float32)


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied_embeddings": True, "biases": {"qkv": True}}, {"qk_norm": True}],
    ids=["llama", "qwen2, tied", "qwen3"],
)
def test_a_llama_checkpoint_gives_the_logits_of_its_own_arithmetic(tmp_path, changes) -> None:
    model = small_model(**(_LLAMA | changes))
    tensors, tokens = llama_tensors(model), torch.randint(80, (2, 6))
    save_file(tensors, tmp_path / "model.safetensors")
    spec = _spec(model, tmp_path, theta=5e5, norm_eps=1e-6)
    ours = Reference(spec, _checkpoint(tmp_path, model))(tokens, 0)
    assert torch.allclose(ours, llama_logits(tensors, model, tokens, 5e5, 1e-6), atol=1e-5)


def test_a_checkpoint_in_several_files_is_sharded_and_equals_the_unsharded_model(tmp_path) -> None:
    model = small_model(**_LLAMA)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in llama_tensors(model).items()}
    parts = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for i, (name, tensor) in enumerate(tensors.items()):
        list(parts.values())[i % 2][name] = tensor
    for file, part in parts.items():
        save_file(part, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = _spec(model, tmp_path, theta=5e5, norm_eps=1e-6)
    (reports,) = run_ranks([spec], limit_s=120)
    error, equal = compare(spec, reports)
    assert equal
    assert error <= TOLERANCE["fp32"]
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SpecError, match=r"lacks 1 of 2 files its index names, model-00002-of-00002\.safetensors first"):
        _checkpoint(tmp_path, model)


@pytest.mark.parametrize(("tensors", "prefix"), [(opt_tensors, ""), (gpt2_tensors, ""), (gpt2_tensors, "transformer.")])
def test_other_families_are_read_whole(tmp_path, tensors, prefix) -> None:
    model = small_model(**_GPT)
    made = {f"{prefix}{name}": tensor for name, tensor in tensors(model).items()}
    save_file(made, tmp_path / "model.safetensors")
    found = _checkpoint(tmp_path, model)
    if tensors is opt_tensors:
        assert torch.equal(found(-1, "positions")[0], made["model.decoder.embed_positions.weight"][2])
        assert torch.equal(found(1, "w_q").flatten(1), made["model.decoder.layers.1.self_attn.q_proj.weight"].T)
        assert torch.equal(found(0, "norms")[1], made["model.decoder.layers.0.self_attn_layer_norm.bias"])
    else:
        packed = made[f"{prefix}h.1.attn.c_attn.weight"]
        assert torch.equal(found(1, "w_q").flatten(1), packed[:, :64])
        assert torch.equal(found(1, "w_kv")[1].flatten(1), packed[:, 128:])
        assert torch.equal(found(1, "bias of kv")[0].flatten(), made[f"{prefix}h.1.attn.c_attn.bias"][64:128])
    spec = _spec(model, tmp_path)
    (reports,) = run_ranks([spec], limit_s=120)
    error, equal = compare(spec, reports)
    assert equal
    assert error <= TOLERANCE["fp32"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lm_head.weight": None}, r"has no lm_head\.weight, which small keeps its unembedding in"),
        ({"model.layers.1.mlp.up_proj.weight": None}, r"has no model\.layers\.1\.mlp\.up_proj\.weight"),
        ({"model.layers.0.self_attn.k_proj.weight": (64, 64)}, r"k_proj\.weight of .* is 64 x 64, small has 16 x 64"),
        ({"model.layers.2.mlp.up_proj.weight": (96, 64)}, r"has 1 tensors that small \(2 layers\) has no place for"),
        ({"model.layers.0.self_attn.q_proj.bias": (64,)}, "has no place for"),
        (
            {"model.norm.weight": torch.ones(64, dtype=torch.int8)},
            r"model\.norm\.weight of .* is in I8, which is not read",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_numbers(tmp_path, change, says) -> None:
    model = small_model(**_LLAMA)
    made = llama_tensors(model)
    for name, new in change.items():
        if new is None:
            del made[name]
        else:
            made[name] = torch.zeros(new) if isinstance(new, tuple) else new
    save_file(made, tmp_path / "model.safetensors")
    with pytest.raises(SpecError, match=says):
        _checkpoint(tmp_path, model)


def test_what_is_no_checkpoint_is_refused(tmp_path) -> None:
    model = small_model(**_LLAMA)
    with pytest.raises(SpecError, match="no checkpoint"):
        _checkpoint(tmp_path / "nowhere", model)
    with pytest.raises(SpecError, match=r"holds no \.safetensors file"):
        _checkpoint(tmp_path, model)
    save_file({"bert.pooler": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(SpecError, match=r"no family known here \(Llama, OPT, GPT-2\): bert\.pooler"):
        _checkpoint(tmp_path, model)
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(SpecError, match="is no safetensors file"):
        _checkpoint(tmp_path, model)


def test_the_configuration_beside_a_checkpoint_sets_rotation_and_norm(tmp_path) -> None:
    assert read_settings(tmp_path).theta is None
    (tmp_path / "config.json").write_text(json.dumps({"rope_theta": 5e5, "rms_norm_eps": 1e-6}))
    assert read_settings(tmp_path).theta == 5e5
    assert read_settings(tmp_path).norm_eps == 1e-6
    stretched = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "llama3"}, "layer_norm_epsilon": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(stretched))
    assert read_settings(tmp_path).theta == 1e6
    assert "rotary scaling 'llama3'" in read_settings(tmp_path).notes[0]
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(SpecError, match="no model's configuration"):
        read_settings(tmp_path)
