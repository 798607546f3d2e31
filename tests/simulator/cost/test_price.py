"""Prices of steps and passes: monotone, linear in layers, and free where nobody is to talk to."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.cluster import meshes, parse_pool
from shardwise.models.description import Model
from shardwise.models.layouts import LAYOUTS, AttentionSharding
from shardwise.models.lower import lower
from shardwise.models.program import Collective
from shardwise.models.sizes import Sizes, TokenGroup, batch_prefix
from shardwise.models.types import Array
from shardwise.simulator.cost.constants import BOUND, Constants
from shardwise.simulator.cost.machine import Machine, make_machine
from shardwise.simulator.cost.phases import PhasePrice, PhaseSetting, price_phase
from shardwise.simulator.cost.price import Engine, StepPrice, pass_time_s, price_pass
from shardwise.simulator.types import PhaseName, Workload
from shardwise.tests.strategies import (
    BF16,
    INT8,
    attentions,
    faster_wires,
    layout_names,
    machine_of,
    machines,
    models,
    small_model,
    token_groups,
)

_CONSTANTS = Constants(
    matmul_efficiency=0.8,
    hbm_efficiency=0.9,
    link_efficiency=0.7,
    network_efficiency=0.6,
    ring_efficiency=0.5,
    collective_launch_s=5e-6,
    hop_s=1e-6,
    kernel_launch_s=2e-6,
    pass_s=1e-3,
)
engines = st.builds(
    Engine,
    constants=st.sampled_from([BOUND, _CONSTANTS]),
    looped=st.booleans(),
    axes_at_once=st.booleans(),
    materialised_scores=st.booleans(),
    static_buffers=st.booleans(),
)
phases = st.sampled_from(["prefill", "decode"])
# Sums of some dozens of steps whose terms are each monotone to the last digit: rounding may turn equal sums by this much.
_ROUNDING = 1 + 1e-12


@st.composite
def phase_settings(draw: st.DrawFn) -> PhaseSetting:
    """A phase of a small model."""
    return PhaseSetting(
        model=draw(models()),
        phase=draw(phases),
        layout=draw(layout_names),
        attention=draw(attentions),
        formats=draw(st.sampled_from([BF16, INT8])),
        workload=Workload(input_tokens=draw(st.integers(1, 512)), output_tokens=draw(st.integers(1, 64))),
    )


def _price(setting: PhaseSetting, machine: Machine, batch: float, engine: Engine) -> PhasePrice:
    return price_phase(setting, machine, np.array([batch]), engine)


def _latency_s(setting: PhaseSetting, machine: Machine, batch: float, engine: Engine) -> float:
    return float(_price(setting, machine, batch, engine).latency_s[0])


def _all_s(setting: PhaseSetting, machine: Machine, batch: float, engine: Engine) -> float:
    """Seconds of one pass, whatever the phase."""
    return float(_price(setting, machine, batch, engine).pass_s[0])


@given(
    setting=phase_settings(),
    machine=machines(),
    engine=engines,
    batches=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_a_larger_batch_cut_alike_never_takes_less_time(
    setting: PhaseSetting, machine: Machine, engine: Engine, batches: tuple[int, int]
) -> None:
    small, large = (float(batch) for batch in sorted(batches))
    if batch_prefix(machine.mesh, small) == batch_prefix(machine.mesh, large):
        assert _latency_s(setting, machine, small, engine) <= _latency_s(setting, machine, large, engine) * _ROUNDING


@given(
    setting=phase_settings(),
    machine=machines(),
    engine=engines,
    batch=st.integers(1, 128),
    more_tokens=st.integers(0, 300),
    more_layers=st.integers(0, 3),
)
def test_more_input_tokens_or_layers_never_take_less_time(
    setting: PhaseSetting, machine: Machine, engine: Engine, batch: int, more_tokens: int, more_layers: int
) -> None:
    work, model = setting.workload, setting.model
    t = _latency_s(setting, machine, float(batch), engine)
    longer = replace(setting, workload=replace(work, input_tokens=work.input_tokens + more_tokens))
    deeper = replace(setting, model=model.model_copy(update={"n_layers": model.n_layers + more_layers}))
    assert t <= _latency_s(longer, machine, float(batch), engine) * _ROUNDING
    assert t <= _latency_s(deeper, machine, float(batch), engine) * _ROUNDING


def _faster_chip(machine: Machine, *, flop: float = 1.0, hbm: float = 1.0) -> Machine:
    chip = machine.chip
    peaks = {name: rate.model_copy(update={"value": rate.value * flop}) for name, rate in chip.dense_flop_per_s.items()}
    memory = chip.hbm_bytes_per_s.model_copy(update={"value": chip.hbm_bytes_per_s.value * hbm})
    return replace(machine, chip=chip.model_copy(update={"dense_flop_per_s": peaks, "hbm_bytes_per_s": memory}))


@given(
    setting=phase_settings(), machine=machines(), engine=engines, batch=st.integers(1, 128), more=st.floats(1.0, 100.0)
)
def test_faster_chips_memory_or_wires_never_take_more_time(
    setting: PhaseSetting, machine: Machine, engine: Engine, batch: int, more: float
) -> None:
    t = _latency_s(setting, machine, float(batch), engine) * _ROUNDING
    for faster in (_faster_chip(machine, flop=more), _faster_chip(machine, hbm=more), faster_wires(machine, more)):
        assert _latency_s(setting, faster, float(batch), engine) <= t


@given(
    setting=phase_settings(),
    machine=machines(),
    engine=engines,
    batch=st.integers(1, 128),
    n_layers=st.integers(2, 100),
)
def test_n_layers_take_n_times_one_layer_beside_the_two_ends(
    setting: PhaseSetting, machine: Machine, engine: Engine, batch: int, n_layers: int
) -> None:
    def deep(n: int) -> float:
        return _all_s(
            replace(setting, model=setting.model.model_copy(update={"n_layers": n})), machine, float(batch), engine
        )

    one, two = deep(1), deep(2)
    # differences of nearly equal sums lose digits: 1e-16 of the whole, up to 100 times
    assert deep(n_layers) == pytest.approx(one + (n_layers - 1) * (two - one), rel=1e-10, abs=0)


def _steps(
    model: Model, layout: str, attention: AttentionSharding, machine: Machine, group: TokenGroup, engine: Engine
) -> list[tuple[StepPrice, Collective | None]]:
    """Prices of a pass, each beside its collective if it is one."""
    program = lower(model, layout, attention, looped=engine.looped)
    sizes = Sizes(program, machine.mesh, [group])
    steps = [
        step if isinstance(step, Collective) else None for step in (*program.first, *program.only.steps, *program.last)
    ]
    prices = price_pass(program, sizes, BF16, machine, engine)
    assert [price.name for price, step in zip(prices, steps, strict=False) if step] == [
        step.name for step in steps if step
    ]
    # the host's share of a pass comes last
    return list(zip(prices, [*steps, None], strict=True))


@given(model=models(), layout=layout_names, attention=attentions, group=token_groups(), engine=engines)
def test_one_chip_talks_to_nobody(
    model: Model, layout: str, attention: AttentionSharding, group: TokenGroup, engine: Engine
) -> None:
    for pool in ("tpu-v4:1", "h100-sxm:1"):
        for price, step in _steps(model, layout, attention, machine_of(pool, (1, 1, 1)), group, engine):
            assert price.comm_s == 0
            assert step is None or price.overhead_s == 0


@given(layout=layout_names, attention=attentions, machine=machines(), group=token_groups(), engine=engines)
def test_collectives_over_axes_of_size_one_are_free(
    layout: str, attention: AttentionSharding, machine: Machine, group: TokenGroup, engine: Engine
) -> None:
    for price, step in _steps(small_model(), layout, attention, machine, group, engine):
        if step is not None and all(machine.mesh[axis] == 1 for axis in step.axes):
            assert (price.comm_s, price.overhead_s) == (0, 0)


def test_2d_weight_stationary_on_one_axis_pays_for_that_axis_alone() -> None:
    machine = machine_of("h100-sxm:4", (4, 1, 1))
    group = TokenGroup(n_sequences=8.0, new_tokens=16.0, past_tokens=0.0)
    priced = _steps(small_model(), "ws-2d", "heads", machine, group, Engine(constants=_CONSTANTS))
    collectives = [(step, float(price.comm_s + price.overhead_s)) for price, step in priced if step is not None]
    assert all((paid > 0) == ("x" in step.axes) for step, paid in collectives)
    assert {paid > 0 for _, paid in collectives} == {True, False}


@pytest.mark.parametrize("pool", ["tpu-v4:4x4x8", "h100-sxm:2x8"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_candidates_priced_together_cost_what_each_costs_alone(pool: str, phase: PhaseName) -> None:
    slice_ = parse_pool(pool)[0]
    found = list(meshes(slice_))
    cells = [(mesh, batch, micro) for mesh in found for batch, micro in ((1, 1), (6, 1), (512, 4))]
    machine = make_machine(slice_.chip, [mesh for mesh, _, _ in cells])
    batch = np.array([float(batch) for _, batch, _ in cells])
    micro = np.array([float(n) for _, _, n in cells])
    engine = Engine(constants=_CONSTANTS, looped=True)
    model = small_model(n_heads=48, n_kv_heads=8)
    for layout in LAYOUTS:
        setting = PhaseSetting(
            model=model,
            phase=phase,
            layout=layout,
            attention="batch",
            formats=BF16,
            workload=Workload(input_tokens=100, output_tokens=20),
            page_size=16,
        )
        together = _fields(price_phase(setting, machine, batch, engine, n_microbatches=micro))
        for i, (mesh, size, n) in enumerate(cells):
            alone = price_phase(
                setting, make_machine(slice_.chip, [mesh]), np.array([float(size)]), engine, n_microbatches=float(n)
            )
            # numpy may sum arrays and scalars in another order
            for name, value in _fields(alone).items():
                assert np.asarray(together[name])[i] == pytest.approx(np.asarray(value)[0], rel=1e-12, abs=0), name


def _fields(price: PhasePrice) -> dict[str, Array]:
    memory = price.memory
    return {
        "pass_s": price.pass_s,
        "latency_s": price.latency_s,
        "flop": price.flop,
        "weights": memory.weights,
        "kv_cache": memory.kv_cache,
        "activations": memory.activations,
        "gathered": memory.gathered,
    }


@given(layout=st.sampled_from(["wg-x", "wg-xy", "wg-xyz"]), group=token_groups())
def test_a_looped_gather_is_exposed_only_as_far_as_it_outlasts_its_matmul(layout: str, group: TokenGroup) -> None:
    machine = machine_of("tpu-v4:4x4x4", (4, 4, 4))
    plain = _steps(small_model(), layout, "batch", machine, group, Engine(constants=BOUND, axes_at_once=False))
    looped = _steps(
        small_model(), layout, "batch", machine, group, Engine(constants=BOUND, axes_at_once=False, looped=True)
    )
    apart, together = (float(pass_time_s([price for price, _ in priced])) for priced in (plain, looped))
    block = [(price, step) for price, step in plain if price.part == "block"]
    moved = [(float(p.total_s), str(c.partner)) for p, c in block if c is not None and c.moves_weights]
    matmul_s = {price.name: float(price.total_s) for price, _ in block}
    gather_s = {partner: sum(s for s, other in moved if other == partner) for _, partner in moved}
    hidden_s = sum(min(seconds, matmul_s[partner]) for partner, seconds in gather_s.items())
    # one ring either way, and no launches at the bound; a small difference of sums of dozens of terms
    assert apart - together == pytest.approx(hidden_s, rel=1e-9, abs=1e-12 * apart)
    assert hidden_s > 0


def test_what_is_summed_is_the_slower_of_compute_and_memory_then_the_wires_then_the_overhead() -> None:
    price = StepPrice(name="s", part="block", count=3.0, compute_s=2.0, memory_s=5.0, comm_s=1.0, overhead_s=0.5)
    assert price.total_s == 3 * 6.5
    assert pass_time_s([price, price]) == 2 * 3 * 6.5


def test_fitted_constants_only_add_to_the_bound() -> None:
    machine = machine_of("tpu-v4:4x4x4", (4, 4, 4))
    group = TokenGroup(n_sequences=64.0, new_tokens=1.0, past_tokens=100.0)
    bound, fitted = (
        _steps(small_model(), "ws-2d", "batch", machine, group, Engine(constants=c)) for c in (BOUND, _CONSTANTS)
    )
    assert all(price.overhead_s == 0 for price, _ in bound)
    assert all(real.total_s > ideal.total_s for (ideal, _), (real, _) in zip(bound, fitted, strict=True))
    assert {price.part for price, _ in bound} == {"first", "block", "last", "pass"}
