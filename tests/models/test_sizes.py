"""Sizes of shards: what the chips hold together is the whole."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.models.description import Model
from shardwise.models.forms import AXES, Form, parse_form
from shardwise.models.layouts import AttentionSharding
from shardwise.models.lower import lower
from shardwise.models.sizes import Sizes, TokenGroup, batch_prefix, ceil_div, padded_heads
from shardwise.models.types import Array
from shardwise.tests.strategies import attentions, layout_names, mesh_sizes, models, small_model, token_groups


def _distinct(form: Form, mesh: dict[str, float]) -> float:
    """Chips that hold different parts of a tensor of this form."""
    return float(np.prod([mesh[axis] for axis in form.axes], initial=1.0))


def _whole(form: Form, sizes: Sizes) -> Array:
    """Elements of the unsharded tensor."""
    return sizes.elements(Form(tuple((dim, ()) for dim, _ in form.dims)))


@given(model=models(), layout=layout_names, attention=attentions, mesh=mesh_sizes, group=token_groups())
def test_shards_hold_at_least_the_whole_together(
    model: Model, layout: str, attention: AttentionSharding, mesh: dict[str, float], group: TokenGroup
) -> None:
    program = lower(model, layout, attention)
    sizes = Sizes(program, mesh, [group])
    for tensor in (*program.only.weights, *program.first_weights, *program.last_weights, program.only.state[0]):
        assert sizes.elements(tensor.form) * _distinct(tensor.form, mesh) >= _whole(tensor.form, sizes)


@given(model=models(divisible=True), layout=layout_names, mesh=mesh_sizes, batch=st.integers(1, 3))
def test_shards_hold_just_the_whole_where_everything_divides(
    model: Model, layout: str, mesh: dict[str, float], batch: int
) -> None:
    group = TokenGroup(n_sequences=64.0 * batch, new_tokens=64.0, past_tokens=0.0)
    for attention in ("heads", "batch", "context"):
        program = lower(model, layout, attention)
        sizes = Sizes(program, mesh, [group])
        for tensor in (*program.only.weights, *program.first_weights, *program.last_weights, program.only.state[0]):
            assert sizes.elements(tensor.form) * _distinct(tensor.form, mesh) == _whole(tensor.form, sizes)


def test_a_form_without_tokens_is_held_once_whatever_the_groups() -> None:
    program = lower(small_model(), "ws-1d", "heads")
    group = TokenGroup(n_sequences=8.0, new_tokens=3.0, past_tokens=5.0)
    one, two = (Sizes(program, {"x": 4.0}, [group] * n) for n in (1, 2))
    weight, tokens, cache = parse_form("EF_xyz"), parse_form("BLE"), parse_form("BSKQ")
    assert two.elements(weight) == one.elements(weight) == 256 * 1024 / 4
    assert two.elements(tokens) == 2 * one.elements(tokens) == 2 * 8 * 3 * 256
    assert one.elements(cache) == 8 * (3 + 5) * 64 * 16


@given(dim=st.integers(1, 10_000), n_shards=st.integers(1, 600))
def test_the_largest_shard_is_the_ceiling(dim: int, n_shards: int) -> None:
    assert ceil_div(float(dim), float(n_shards)) == -(-dim // n_shards)


@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "n_shards", "padded"),
    [
        pytest.param(48, 48, 64, (64.0, 64.0), id="multihead-pads-both"),
        pytest.param(48, 1, 64, (64.0, 1.0), id="multiquery-pads-queries-alone"),
        pytest.param(64, 8, 16, (64.0, 8.0), id="grouped-kv-heads-are-replicated-not-padded"),
        pytest.param(48, 48, 16, (48.0, 48.0), id="what-divides-stays"),
    ],
)
def test_heads_are_padded_until_every_shard_holds_equally_many(
    n_heads: int, n_kv_heads: int, n_shards: int, padded: tuple[float, float]
) -> None:
    assert padded_heads(n_heads, n_kv_heads, float(n_shards)) == padded


def test_each_chip_holds_one_kv_head_where_there_are_fewer_than_chips() -> None:
    for n_kv_heads, held in ((64, 4), (8, 1), (1, 1)):
        program = lower(small_model(n_kv_heads=n_kv_heads), "ws-1d", "heads")
        sizes = Sizes(program, {"x": 16.0}, [TokenGroup(n_sequences=1.0, new_tokens=1.0, past_tokens=0.0)])
        assert sizes.elements(program.only.state[0].form) == held * 16


@given(mesh=mesh_sizes, batch=st.integers(1, 200))
def test_the_batch_is_cut_over_the_longest_prefix_that_divides_it(mesh: dict[str, float], batch: int) -> None:
    length = int(batch_prefix(mesh, float(batch)))
    shards = [float(np.prod([mesh[a] for a in AXES[:n]], initial=1.0)) for n in range(4)]
    assert batch % shards[length] == 0
    # a longer prefix is a multiple of a shorter one, so once one does not divide none after it does
    assert length == 3 or batch % shards[length + 1] != 0


def test_arrays_of_meshes_and_batches_give_what_each_gives_alone() -> None:
    cells = list(itertools.product((1.0, 2.0, 4.0), (1.0, 4.0), (6.0, 7.0, 64.0)))
    x, y, batch = (np.array(column) for column in zip(*cells, strict=True))
    program = lower(small_model(n_heads=48, n_kv_heads=48), "ws-2d", "heads")

    def elements(x: Array, y: Array, batch: Array) -> list[Array]:
        group = TokenGroup(n_sequences=batch, new_tokens=3.0, past_tokens=10.0)
        sizes = Sizes(program, {"x": x, "y": y, "z": 2.0}, [group])
        return [sizes.elements(t.form) for t in (*program.only.weights, program.only.state[0])]

    together = [np.broadcast_to(values, (len(cells),)) for values in elements(x, y, batch)]
    for i, cell in enumerate(cells):
        assert [values[i] for values in together] == elements(*cell)
