"""What a bench times: one op on one shape, our kernel beside torch's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ..models.ops import OpWork

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The two things to time on inputs that lie ready: our kernel, and what torch has for the same op."""

    kernel: Callable[[], object]
    torch: Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCase:
    """One op on one shape.

    Parameters
    ----------
    shape : sizes by name, e.g. ``{"m": 4096, "k": 4096, "n": 4096}``
    dtype : the number format, as in `hardware_specs.dtypes`
    work : what the op must do, by `models.ops`
    prepare : makes the inputs on a device from a generator of that device
    """

    op: str
    shape: Mapping[str, int]
    dtype: str
    work: OpWork
    prepare: Callable[[Device, torch.Generator], Runs]
