"""What random inputs look like: small models, forms, layouts, meshes and token groups."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from shardwise.hardware_specs.cluster import Mesh, meshes, parse_pool
from shardwise.hardware_specs.dtypes import parse_dtype
from shardwise.models.blocks import Block
from shardwise.models.description import PLAIN, Model
from shardwise.models.formats import Formats
from shardwise.models.forms import AXES, Form
from shardwise.models.layouts import ATTENTION_SHARDINGS, LAYOUTS
from shardwise.models.sizes import TokenGroup
from shardwise.simulator.cost.machine import Machine, make_machine

# The first example of a test pays for imports and caches; a wall-clock limit on it would fail on a slow machine alone.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

BF16 = Formats(weights=parse_dtype("bf16"), activations=parse_dtype("bf16"), kv=parse_dtype("bf16"))
INT8 = Formats(weights=parse_dtype("int8"), activations=parse_dtype("bf16"), kv=parse_dtype("bf16"))

layout_names = st.sampled_from(sorted(LAYOUTS))
attentions = st.sampled_from(ATTENTION_SHARDINGS)
batch_prefixes = st.sampled_from([AXES[:n] for n in range(len(AXES) + 1)])


def plain_block(model: Model) -> Block:
    """The one kind of block of a plain model."""
    return model.kinds[PLAIN]


def small_model(**changes: object) -> Model:
    """A model whose every dimension divides over meshes of up to 64 chips, with `changes`."""
    fields: dict[str, object] = {
        "name": "small",
        "source": "made up",
        "n_layers": 3,
        "d_model": 256,
        "d_ff": 1024,
        "n_heads": 64,
        "n_kv_heads": 64,
        "d_head": 16,
        "vocab_size": 512,
        "gated": False,
        "activation": "gelu",
        "block": "serial",
        "norm": "rmsnorm",
        "n_norms_per_block": 2,
        "positions": "rope",
        "tied_embeddings": False,
    }
    return Model.model_validate(fields | changes)


@st.composite
def models(draw: st.DrawFn, *, divisible: bool = False) -> Model:
    """Small models; `divisible` ones can be cut over 64 chips without a remainder, the others seldom can."""
    unit = 64 if divisible else 1
    n_heads = unit * draw(st.integers(1, 6))
    n_kv_heads = draw(st.sampled_from([n for n in range(1, n_heads + 1) if n_heads % n == 0]))
    return small_model(
        n_layers=draw(st.integers(1, 5)),
        d_model=unit * draw(st.integers(1, 40)),
        d_ff=unit * draw(st.integers(1, 90)),
        n_heads=n_heads,
        n_kv_heads=n_heads if divisible else n_kv_heads,
        d_head=draw(st.integers(1, 32)),
        vocab_size=unit * draw(st.integers(1, 50)),
        gated=draw(st.booleans()),
        block=draw(st.sampled_from(["serial", "parallel"])),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        positions=draw(st.sampled_from(["rope", "none"])),
        tied_embeddings=draw(st.booleans()),
    )


@st.composite
def form_pairs(draw: st.DrawFn, dims: str = "BF") -> tuple[Form, Form]:
    """Start and goal over the same dimensions; what is partial in the goal is so at the start."""
    places = [*dims, "partial", "nowhere"]
    begin = {axis: draw(st.sampled_from(places)) for axis in AXES}
    end = {
        axis: draw(st.sampled_from([p for p in places if p != "partial" or begin[axis] == "partial"])) for axis in AXES
    }
    return _form(draw, dims, begin), _form(draw, dims, end)


def _form(draw: st.DrawFn, dims: str, place: Mapping[str, str]) -> Form:
    order = draw(st.permutations(AXES))
    cut = tuple((dim, tuple(axis for axis in order if place[axis] == dim)) for dim in dims)
    return Form(cut, tuple(axis for axis in AXES if place[axis] == "partial"))


mesh_sizes = st.fixed_dictionaries({axis: st.sampled_from([1.0, 2.0, 4.0]) for axis in AXES})


@st.composite
def token_groups(draw: st.DrawFn) -> TokenGroup:
    """Prefill, decode or a chunk between them."""
    return TokenGroup(
        n_sequences=float(draw(st.integers(1, 64))),
        new_tokens=float(draw(st.integers(1, 64))),
        past_tokens=float(draw(st.integers(0, 512))),
    )


def machine_of(pool: str, sizes: tuple[int, int, int]) -> Machine:
    """The first mesh of these sizes on a pool's first slice."""
    slice_ = parse_pool(pool)[0]
    return make_machine(slice_.chip, [next(mesh for mesh in meshes(slice_) if mesh.sizes == sizes)])


def meshes_of(*pools: str) -> list[tuple[str, Mesh]]:
    """Every mesh of some pools."""
    return [(pool, mesh) for pool in pools for slice_ in parse_pool(pool) for mesh in meshes(slice_)]


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """One mesh on a small torus or behind switches."""
    pool, mesh = draw(
        st.sampled_from(meshes_of("tpu-v4:2x2x4", "tpu-v4:4x4x4", "tpu-v5e:4x4", "h100-sxm:8", "h100-sxm:2x8"))
    )
    return make_machine(parse_pool(pool)[0].chip, [mesh])


def faster_wires(machine: Machine, factor: float) -> Machine:
    """All wires `factor` times as fast."""
    rates = ("inner_bytes_per_s", "ring_bytes_per_s", "exchange_bytes_per_s", "outer_bytes_per_s")
    axes = {
        axis: replace(links, **{name: getattr(links, name) * factor for name in rates})
        for axis, links in machine.axes.items()
    }
    return replace(machine, axes=axes, stage_bytes_per_s=machine.stage_bytes_per_s * factor)
