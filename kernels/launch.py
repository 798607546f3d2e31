"""What every launcher needs: the target it runs on, and whole numbers of blocks."""

import torch

from ..hardware_specs.errors import SpecError
from .variant import Target

_HOPPER = 9
_FP8_CAPABILITY = (8, 9)


def device_target(tensor: torch.Tensor) -> Target:
    """The target whose tunings suit the tensor's device; the interpreter takes those of sm_80.

    Raises
    ------
    SpecError : a GPU older than the kernels are made for
    """
    if tensor.device.type != "cuda":
        return "sm_80"
    major, minor = torch.cuda.get_device_capability(tensor.device)
    if major < 8:
        raise SpecError(f"the kernels need sm_80 or newer; this device is sm_{major}{minor}")
    return "sm_90" if major >= _HOPPER else "sm_80"


def need_formats(device: torch.device, *dtypes: torch.dtype) -> None:
    """Nothing, if the device computes in all these formats; the interpreter does.

    Raises
    ------
    SpecError : fp8 on a GPU that has none
    """
    if device.type != "cuda" or torch.float8_e4m3fn not in dtypes:
        return
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < _FP8_CAPABILITY:
        raise SpecError(f"fp8 (e4m3) needs sm_89 or newer; this device is sm_{major}{minor}: use int8")


def need_floats(**tensors: torch.Tensor) -> None:
    """Nothing, if all tensors are in one of the formats that kernels multiply as they are.

    Raises
    ------
    SpecError : another format, or more than one
    """
    found = {tensor.dtype for tensor in tensors.values()}
    if len(found) > 1 or not found <= {torch.float16, torch.bfloat16, torch.float32}:
        said = ", ".join(f"{name} is {tensor.dtype}" for name, tensor in tensors.items())
        raise SpecError(f"{said}; all must be one of float16, bfloat16, float32")


def cdiv(n: int, size: int) -> int:
    """Blocks of `size` that cover `n`."""
    return -(-n // size)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least `n`.

    >>> next_power_of_2(17)
    32
    """
    return 1 << max(n - 1, 0).bit_length()
