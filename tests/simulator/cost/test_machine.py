"""Chips at what-if rates are priced as chips that claim those rates, and workloads as columns as one by one."""

import numpy as np
import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.chip import Chip, Figure, Torus
from shardwise.hardware_specs.cluster import Slice, meshes
from shardwise.models.catalogue import get_model
from shardwise.models.formats import default_formats
from shardwise.simulator.cost.calibrated import calibration_of
from shardwise.simulator.cost.machine import Speed, at_speed, make_machine, take
from shardwise.simulator.cost.phases import PhaseSetting, price_phase
from shardwise.simulator.types import PhaseName, Workload, Workloads

SPEED = {"flop": 1.5, "hbm": 2.0, "links": 3.0, "network": 0.5}


def setting(model: str, layout: str, phase: PhaseName, n_in: int = 700, n_out: int = 9) -> PhaseSetting:
    described = get_model(model)
    return PhaseSetting(
        model=described,
        phase=phase,
        layout=layout,
        attention="heads",
        formats=default_formats(described),
        workload=Workload(input_tokens=n_in, output_tokens=n_out),
    )


def times(figure: Figure, factor: float) -> Figure:
    return figure.model_copy(update={"value": figure.value * factor})


def faster(chip: Chip) -> Chip:
    """The chip as if its maker claimed `SPEED` times as much."""
    wires = chip.scale_up
    name = "link_bytes_per_s" if isinstance(wires, Torus) else "bytes_per_s"
    port = chip.scale_out_bytes_per_s
    return chip.model_copy(
        update={
            "name": f"{chip.name}-faster",
            "dense_flop_per_s": {key: times(rate, SPEED["flop"]) for key, rate in chip.dense_flop_per_s.items()},
            "hbm_bytes_per_s": times(chip.hbm_bytes_per_s, SPEED["hbm"]),
            "scale_up": wires.model_copy(update={name: times(getattr(wires, name), SPEED["links"])}),
            "scale_out_bytes_per_s": None if port is None else times(port, SPEED["network"]),
        }
    )


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("model", "chip", "shape", "layout"),
    [
        pytest.param("llama-3.1-8b", "h100-sxm", (1, 4), "ws-1d-allreduce", id="measured kernels in a node"),
        pytest.param("llama-3.1-70b", "h100-sxm", (2, 8), "ws-1d-allreduce", id="over the network"),
        pytest.param("palm-62b", "tpu-v4", (2, 2, 4), "ws-2d", id="torus, by constants"),
    ],
)
def test_a_chip_at_a_what_if_rate_is_priced_as_one_that_claims_it(
    phase: PhaseName, model: str, chip: str, shape: tuple[int, ...], layout: str
) -> None:
    claimed = get_chip(chip)
    asked = setting(model, layout, phase)
    batch = np.array([1.0, 8.0, 64.0])
    prices = []
    for one, speed in ((claimed, Speed(**SPEED)), (faster(claimed), None)):
        slice_ = Slice(chip=one, chip_name=one.name, shape=shape)
        found = [
            mesh for mesh in meshes(slice_) if mesh.sizes == ((4, 2, 2) if len(shape) == 3 else (np.prod(shape), 1, 1))
        ]
        machine = make_machine(one, found[:1])
        engine = calibration_of(one).engine
        prices.append(price_phase(asked, machine if speed is None else at_speed(machine, speed), batch, engine))
    np.testing.assert_allclose(prices[0].latency_s, prices[1].latency_s, rtol=1e-12)


def test_speeds_may_differ_between_candidates() -> None:
    chip = get_chip("h100-sxm")
    slice_ = Slice(chip=chip, chip_name=chip.name, shape=(1, 2))
    machine = make_machine(chip, [next(mesh for mesh in meshes(slice_) if mesh.sizes == (2, 1, 1))])
    engine, asked = calibration_of(chip).engine, setting("llama-3.1-8b", "ws-1d-allreduce", "decode")
    speeds = np.array([1.0, 2.0, 4.0])
    many = price_phase(asked, at_speed(machine, Speed(hbm=speeds)), np.full(3, 16.0), engine)
    alone = [price_phase(asked, at_speed(machine, Speed(hbm=s)), np.array([16.0]), engine) for s in speeds]
    np.testing.assert_allclose(many.latency_s, [one.latency_s[0] for one in alone], rtol=1e-12)
    assert np.all(np.diff(many.latency_s) < 0.0)


def test_taking_candidates_takes_their_speeds() -> None:
    chip = get_chip("h100-sxm")
    slice_ = Slice(chip=chip, chip_name=chip.name, shape=(1, 2))
    machine = at_speed(make_machine(chip, meshes(slice_)[:1]), Speed(flop=np.array([1.0, 2.0, 3.0])))
    taken = take(machine, np.array([2, 0]))
    assert taken.speed is not None
    assert np.asarray(taken.speed.flop).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_workloads_as_columns_are_priced_as_one_by_one(phase: PhaseName) -> None:
    chip = get_chip("h100-sxm")
    slice_ = Slice(chip=chip, chip_name=chip.name, shape=(1, 2))
    machine = make_machine(chip, [next(mesh for mesh in meshes(slice_) if mesh.sizes == (2, 1, 1))])
    engine, batch = calibration_of(chip).engine, np.array([2.0, 7.0, 7.0])
    works = Workloads(input_tokens=np.array([10.0, 2000.0, 10.0]), output_tokens=np.array([1.0, 5.0, 300.0]))
    many = price_phase(setting("llama-3.1-8b", "ws-1d-allreduce", phase), machine, batch, engine, works=works)
    for i in range(3):
        one = setting("llama-3.1-8b", "ws-1d-allreduce", phase, int(works.input_tokens[i]), int(works.output_tokens[i]))
        alone = price_phase(one, machine, batch[i : i + 1], engine)
        np.testing.assert_allclose(many.latency_s[i], alone.latency_s[0], rtol=1e-12)
        np.testing.assert_allclose(many.memory.kv_cache[i], alone.memory.kv_cache[0], rtol=1e-12)
