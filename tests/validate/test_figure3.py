"""Figure 3 and the closed forms of Pope2022, from the programs that are priced."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.models.catalogue import get_model
from shardwise.models.description import Model
from shardwise.models.lower import lower
from shardwise.models.program import Collective, Pointwise, ShardedProgram
from shardwise.models.sizes import Sizes, TokenGroup
from shardwise.models.work import step_work
from shardwise.simulator.cost.memory import kv_cache_bytes
from shardwise.tests.strategies import BF16, small_model
from shardwise.validate.published import MaxContext, SwitchPoint, load_pope2022

_PAPER = load_pope2022()
_FIGURE = _PAPER.fig3
_POINTS = [(layout, tokens, gb) for layout, row in _FIGURE.volumes_gb.items() for tokens, gb in row.items()]


def _ffn(d_model: int, d_ff: int) -> Model:
    """A feed-forward part of two matrices, behind its own norm."""
    return small_model(d_model=d_model, d_ff=d_ff, gated=False, block="serial")


def _ffn_collectives(program: ShardedProgram) -> list[Collective]:
    """The collectives between the attention's residual and the block's end, but for the norm's statistics."""
    names = [step.name for step in program.only.steps]
    steps = program.only.steps[names.index("attention out add") + 1 :]
    assert isinstance(program.only.steps[names.index("attention out add")], Pointwise)
    return [step for step in steps if isinstance(step, Collective) and step.tensors[0].role != "statistic"]


def _volume_bytes(model: Model, layout: str, mesh: dict[str, float], tokens: float, *, length: float = 1.0) -> float:
    """Bytes a chip moves for `tokens` in sequences of `length`, (K-1)/K taken as 1: the full tensor of every collective."""
    program = lower(model, layout, "heads")
    sizes = Sizes(program, mesh, [TokenGroup(n_sequences=tokens / length, new_tokens=length, past_tokens=0.0)])
    return float(sum(step_work(step, sizes, BF16).full_bytes for step in _ffn_collectives(program)))


def _figure3_bytes(layout: str, tokens: float) -> float:
    return _volume_bytes(_ffn(_FIGURE.d_model, _FIGURE.d_ff), layout, _FIGURE.mesh, tokens)


def test_the_figure_has_fifty_six_points() -> None:
    assert len(_POINTS) == 56


# the figure's coordinates carry five digits, some rounded twice
@pytest.mark.parametrize(("layout", "tokens", "gb"), [pytest.param(*p, id=f"{p[0]}-{p[1]}") for p in _POINTS])
def test_figure_3_volumes_come_out_of_the_programs(layout: str, tokens: int, gb: float) -> None:
    assert _figure3_bytes(layout, float(tokens)) / 1e9 == pytest.approx(gb, rel=1e-3)


@pytest.mark.parametrize("point", _FIGURE.switch_tokens, ids=lambda p: f"{p.start}-{p.end}")
def test_layouts_of_figure_3_change_places_where_the_paper_says(point: SwitchPoint) -> None:
    low, high = 1024.0, 2.0**24
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        if _figure3_bytes(point.start, middle) < _figure3_bytes(point.end, middle):
            low = middle
        else:
            high = middle
    # sequences are cut in whole ones over 4 chips (wg-x) or 16 (wg-xy): 4 in 16,384 and 16 in 65,536 are 0.02 %
    assert low == pytest.approx(point.tokens, rel=1e-3)


_dims = st.integers(1, 12)
_axes = st.sampled_from([1.0, 2.0, 4.0])


@given(e=_dims, f=_dims, x=_axes, y=_axes, z=_axes, sequences=_dims)
def test_volumes_are_the_closed_forms_of_the_appendix(
    e: int, f: int, x: float, y: float, z: float, sequences: int
) -> None:
    d_model, d_ff, tokens = 64 * e, 64 * f, 64.0 * 64.0 * sequences
    model, mesh, n = _ffn(d_model, d_ff), {"x": x, "y": y, "z": z}, x * y * z
    numbers = {
        "ws-1d": 2 * tokens * d_model,
        "ws-2d": 2 * tokens * (d_model / x + d_ff / (y * z)),
        "wg-x": 2 * d_model * d_ff * x / n + 2 * tokens * d_model / x,
        "wg-xy": 2 * d_model * d_ff * x * y / n + 2 * tokens * d_model / (x * y),
        "wg-xyz": 2 * d_model * d_ff,
        "ws-1d-sequence": 2 * tokens * d_model,
        "ws-1d-allreduce": 2 * tokens * d_model,
    }
    for layout, elements in numbers.items():
        # sums of the same numbers in another order: a few roundings of 2**-53
        assert _volume_bytes(model, layout, mesh, tokens, length=64.0) == pytest.approx(2 * elements, rel=1e-12)


def _meshes(n: int) -> list[tuple[float, float]]:
    """(X, YZ) of n chips in powers of two."""
    return [(2.0**i, n / 2.0**i) for i in range(int(math.log2(n)) + 1)]


def _least(model: Model, n: int, tokens: float) -> tuple[float, float]:
    """The least 2D volume on n chips, and the X that has it."""
    return min((_volume_bytes(model, "ws-2d", {"x": x, "y": yz}, tokens), x) for x, yz in _meshes(n))


def test_the_best_2d_mesh_of_64_chips_is_4_by_16() -> None:
    # appendix A.2.1: X = sqrt(n) / 2, YZ = 2 sqrt(n) at F = 4E
    for n, x in ((16, 2.0), (64, 4.0), (256, 8.0)):
        assert _least(_ffn(4096, 16384), n, 1024.0)[1] == x


@pytest.mark.parametrize("n", [1, 4, 16, 64, 256])
def test_2d_moves_less_than_1d_beyond_16_chips_and_as_much_at_16(n: int) -> None:
    # section 3.2.2, F = 4E: 8 BLE / sqrt(n) against 2 BLE
    model, tokens = _ffn(4096, 16384), 1024.0
    one, two = _volume_bytes(model, "ws-1d", {"x": float(n)}, tokens), _least(model, n, tokens)[0]
    assert (one > two) == (n > 16)
    assert (one == two) == (n == 16)


def _max_context(model: str, attention: str, batch: int) -> float:
    """Tokens a sequence may have if 30 % of 64 chips' memory is for the cache."""
    # the paper's 4 x 4 x 4 slice of TPU v4 with 32 GiB a chip (section 4.2)
    program = lower(get_model(model), "ws-2d", attention)  # type: ignore[arg-type]
    group = TokenGroup(n_sequences=float(batch), new_tokens=1.0, past_tokens=0.0)
    sizes = Sizes(program, {"x": 4.0, "y": 4.0, "z": 4.0}, [group])
    per_token = float(kv_cache_bytes(program, sizes, BF16, context=1000.0)) / 1000.0
    return 0.3 * 32 * 2.0**30 / per_token


@pytest.mark.parametrize("row", _PAPER.table1, ids=lambda r: f"{r.model}-{r.attention}-{r.batch}")
def test_table_1_contexts_fit_into_30_percent_of_memory(row: MaxContext) -> None:
    # the paper rounds to two or three digits: up to 1.1 % (660 for 666.5)
    assert _max_context(row.model, row.attention, row.batch) == pytest.approx(row.max_context, rel=0.015)


def test_head_sharded_multiquery_holds_twice_what_multihead_does() -> None:
    # section 3.3: one K/V head of 256 on every chip against one of 64 heads of 128
    for batch in (128, 512):
        multihead = _max_context("palm-540b-multihead-padded", "heads", batch)
        assert multihead == 2 * _max_context("palm-540b-padded", "heads", batch)
        assert _max_context("palm-540b-padded", "batch", batch) == 64 * _max_context("palm-540b-padded", "heads", batch)


def test_phases_change_between_stationary_and_gathered_at_twice_the_hidden_width() -> None:
    # derived from the volumes at 4 x 4 x 4 and F = 4E: B L = E F / (E / X + F / (Y Z)) = 2 F
    for d_model, d_ff in ((16384, 65536), (18432, 73728)):
        model, tokens = _ffn(d_model, d_ff), 2.0 * d_ff
        stationary, gathered = (_volume_bytes(model, name, _FIGURE.mesh, tokens) for name in ("ws-2d", "wg-xyz"))
        assert stationary == gathered


def test_the_order_of_layouts_by_tokens_is_the_papers() -> None:
    best = [min(_FIGURE.volumes_gb, key=lambda name: _figure3_bytes(name, 2.0**i)) for i in range(12, 25)]
    assert [name for name, _ in itertools.groupby(best)] == ["ws-2d", "wg-x", "wg-xy", "wg-xyz"]
