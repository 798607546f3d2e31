"""What every launcher needs: the target it runs on, and whole numbers of blocks."""

import torch

from ..hardware_specs.errors import SpecError
from .variant import Target

_HOPPER = 9


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


def cdiv(n: int, size: int) -> int:
    """Blocks of `size` that cover `n`."""
    return -(-n // size)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least `n`.

    >>> next_power_of_2(17)
    32
    """
    return 1 << max(n - 1, 0).bit_length()
