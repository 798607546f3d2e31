"""Every model of the catalogue lowered: what lies on chips is what is counted, and every layout that fits it moves it."""

import pytest
from shardwise.models.catalogue import load_models
from shardwise.models.description import Model
from shardwise.models.layouts import ATTENTION_SHARDINGS, EXPERT_SHARDINGS, LAYOUTS
from shardwise.models.lower import lower
from shardwise.models.params import text_params
from shardwise.models.program import Exchange, Experts
from shardwise.models.sizes import Sizes, TokenGroup
from shardwise.models.work import step_work
from shardwise.planner.space import Cut, misfit
from shardwise.tests.strategies import BF16

_ONE = [TokenGroup(n_sequences=1.0, new_tokens=1.0, past_tokens=0.0, input_tokens=1.0)]
_PLANNED = list(load_models().values())
_MIXED = [m for m in _PLANNED if m.stack]
_models = pytest.mark.parametrize("model", _PLANNED, ids=lambda m: m.name)
_mixed = pytest.mark.parametrize("model", _MIXED, ids=lambda m: m.name)


@_models
def test_the_weights_of_one_chip_are_the_parameters_counted(model: Model) -> None:
    program = lower(model, "ws-1d-allreduce", "heads")
    sizes = Sizes(program, {}, _ONE)
    blocks = sum(b.n_layers * sum(float(sizes.of(b).total(w)) for w in b.weights) for b in program.blocks)
    ends = dict.fromkeys((*program.first_weights, *program.last_weights))
    read = 0.0
    if program.encoder is not None:
        own = sizes.of_input
        read = sum(float(own.total(w)) for w in program.encoder.weights)
        read += sum(b.n_layers * sum(float(own.of(b).total(w)) for w in b.weights) for b in program.encoder.blocks)
    assert read + blocks + sum(float(sizes.total(w)) for w in ends) == text_params(model)


@_mixed
def test_layouts_that_fit_on_eight_chips_do_all_the_flop_of_one(model: Model) -> None:
    """Sums over chips: what is replicated may be done more than once, but nothing less."""
    group = [TokenGroup(n_sequences=16.0, new_tokens=8.0, past_tokens=8.0, input_tokens=32.0)]
    one = _flop(model, "ws-1d-allreduce", "heads", "tensor", (1, 1, 1), group)
    for layout, attention, experts in (
        (name, attention, experts)
        for name in LAYOUTS
        for attention in ATTENTION_SHARDINGS
        for experts in (EXPERT_SHARDINGS if model.has_experts else ("tensor",))
    ):
        mesh = (8, 1, 1) if not LAYOUTS[layout].needs_2d else (2, 2, 2)
        head_axes = tuple(axis for axis in ("x", "y", "z") if axis not in LAYOUTS[layout].data_axes)
        if misfit(model, Cut(LAYOUTS[layout], attention, experts, head_axes), mesh) is None:
            assert _flop(model, layout, attention, experts, mesh, group) >= one * (1.0 - 1e-9)


def _flop(model: Model, layout: str, attention: str, experts: str, mesh: tuple[int, int, int], groups: list) -> float:
    program = lower(model, layout, attention, experts=experts)
    sizes = Sizes(program, dict(zip("xyz", map(float, mesh), strict=True)), groups)
    chips = mesh[0] * mesh[1] * mesh[2]
    return chips * sum(
        part.count * float(step_work(step, sizes.at(part), BF16).flop)
        for part in program.parts
        if part.block is not None
        for step in part.steps
    )


@pytest.mark.parametrize("model", [m for m in _MIXED if m.has_experts], ids=lambda m: m.name)
def test_tokens_sent_to_experts_are_those_the_experts_meet(model: Model) -> None:
    program = lower(model, "dp", "heads", experts="exchange")
    group = TokenGroup(n_sequences=64.0, new_tokens=1.0, past_tokens=100.0, input_tokens=100.0)
    sizes = Sizes(program, {"x": 4.0}, [group])
    for block in program.blocks:
        experts = [step for step in block.steps if isinstance(step, Experts)]
        for step in experts:
            moved = [s for s in block.steps if isinstance(s, Exchange)]
            assert [s.name for s in moved] == ["dispatch", "combine"]
            # each chip sends its 16 tokens once for each of their experts, and meets as many
            rows = 16.0 * step.ffn.n_experts_per_token
            width = step.ffn.d_latent or model.d_model
            assert float(step_work(step, sizes.of(block), BF16).n_rows) == rows * (step.ffn.capacity_factor or 1.0)
            for exchange in moved:
                assert (
                    float(step_work(exchange, sizes.of(block), BF16).full_bytes)
                    == rows * width * 2 + exchange.n_counts * 4
                )
