"""Search, ranking, explanation and figures; `planner.cli` is the terminal.

>>> from shardwise import planner
>>> planner.estimate("gpt2", "l40s:1", input_tokens=512, output_tokens=64).best.n_chips
1
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import estimate, plan

__all__ = ["estimate", "plan"]


def __getattr__(name: str) -> Any:
    """Load the planner when one of its questions is asked."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
