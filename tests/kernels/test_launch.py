import doctest
from importlib import import_module

import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels import launch
from shardwise.kernels.quantise import quantise


class _OnGpu:
    """Stands for a tensor of a device that is not here."""

    device = torch.device("cuda")


@pytest.mark.parametrize(("capability", "target"), [((8, 0), "sm_80"), ((8, 9), "sm_80"), ((9, 0), "sm_90")])
def test_a_gpu_takes_the_tunings_of_its_target(capability, target, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert launch.device_target(_OnGpu()) == target


def test_an_old_gpu_is_refused_by_name(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    with pytest.raises(SpecError, match="need sm_80 or newer; this device is sm_75"):
        launch.device_target(_OnGpu())


def test_fp8_is_refused_by_name_where_the_gpu_has_none(monkeypatch) -> None:
    gpu = _OnGpu.device
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    with pytest.raises(SpecError, match=r"fp8 \(e4m3\) needs sm_89 or newer; this device is sm_80: use int8"):
        launch.need_formats(gpu, torch.bfloat16, torch.float8_e4m3fn)
    launch.need_formats(gpu, torch.bfloat16, torch.int8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    launch.need_formats(gpu, torch.float8_e4m3fn)


def test_the_interpreter_knows_every_format(device) -> None:
    if device == "cuda":
        pytest.skip("a GPU says itself what it has")
    assert quantise(torch.ones(1, 4), torch.float8_e4m3fn)[0].dtype == torch.float8_e4m3fn


def test_formats_that_are_not_multiplied_are_refused_by_name(device) -> None:
    wide, plain = torch.zeros(1, dtype=torch.float64), torch.zeros(1)
    with pytest.raises(SpecError, match=r"x is torch\.float64; all must be one of float16"):
        launch.need_floats(x=wide)
    with pytest.raises(SpecError, match=r"x is torch\.float64, w is torch\.float32"):
        launch.need_floats(x=wide, w=plain)


@pytest.mark.parametrize("name", ["aot", "launch"])
def test_the_examples_of_a_module_print_what_they_say(name) -> None:
    result = doctest.testmod(import_module(f"shardwise.kernels.{name}"))
    assert (result.failed, result.attempted > 0) == (0, True)
