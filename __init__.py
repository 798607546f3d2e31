"""Planner, simulator and proving ground for distributed transformer inference.

>>> import shardwise
>>> result = shardwise.estimate("llama-3-8b", "h100-sxm:1", input_tokens=2048, output_tokens=64, batch=32)
>>> result.best.decode.layout
'ws-1d-allreduce/heads'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hardware_specs.catalogue import get_chip
    from .hardware_specs.errors import SpecError
    from .models.catalogue import get_model
    from .planner.api import estimate, plan
    from .planner.break_even import BreakEven, break_even
    from .planner.result import PhasePlan, Plan, PlanResult
    from .planner.serving import simulate
    from .planner.version import __version__
    from .planner.whatif.ask import WhatIf, what_if
    from .simulator.report import Report

_HOMES = {
    "BreakEven": "planner.break_even",
    "PhasePlan": "planner.result",
    "Plan": "planner.result",
    "PlanResult": "planner.result",
    "Report": "simulator.report",
    "SpecError": "hardware_specs.errors",
    "WhatIf": "planner.whatif.ask",
    "__version__": "planner.version",
    "break_even": "planner.break_even",
    "estimate": "planner.api",
    "get_chip": "hardware_specs.catalogue",
    "get_model": "models.catalogue",
    "plan": "planner.api",
    "simulate": "planner.serving",
    "what_if": "planner.whatif.ask",
}

__all__ = [
    "BreakEven",
    "PhasePlan",
    "Plan",
    "PlanResult",
    "Report",
    "SpecError",
    "WhatIf",
    "__version__",
    "break_even",
    "estimate",
    "get_chip",
    "get_model",
    "plan",
    "simulate",
    "what_if",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
