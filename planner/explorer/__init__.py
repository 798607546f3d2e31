"""The explorer: one page of controls and figures, fed by a grid inside it or by a server on the same machine.

A *question* (model, chip, counts, workload, formats) has one *sheet* as its answer: every plan that some limits, some batch
and some number of chips would make the best. The page chooses among them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .page import live_page, write_explorer
    from .question import Offer, Question, Start, make_offer
    from .sheet import Sheet, make_sheet

_HOMES = {
    "Offer": "question",
    "Question": "question",
    "Sheet": "sheet",
    "Start": "question",
    "live_page": "page",
    "make_offer": "question",
    "make_sheet": "sheet",
    "write_explorer": "page",
}

__all__ = ["Offer", "Question", "Sheet", "Start", "live_page", "make_offer", "make_sheet", "write_explorer"]


def __getattr__(name: str) -> Any:
    """Load a part when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
