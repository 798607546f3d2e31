"""The explorer's page: one template, styles and scripts, with the data that feed it."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ...hardware_specs.documents import write_atomically
from .grid import make_grid
from .question import Offer, Start

# In the order in which they need each other.
_SCRIPTS = ("format.js", "choose.js", "source.js", "state.js", "controls.js", "figures.js", "tell.js", "main.js")


def write_explorer(
    offer: Offer,
    start: Start,
    path: Path,
    *,
    made_by: str = "",
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the explorer as one file that needs nothing else, with the answer to every question its controls can put.

    Parameters
    ----------
    made_by : the command that made it, shown on the page
    jobs : processes that compute sheets
    progress : told how many sheets of how many are done

    Raises
    ------
    SpecError : the file cannot be written, or no question of the offer has an answer
    """
    sheets = make_grid(list(offer.questions()), jobs=jobs, progress=progress)
    data = _page_data(offer, start) | {"sheets": sheets, "made_by": made_by}
    write_atomically(path, _render(data, connect="'none'"))


def live_page(offer: Offer, start: Start) -> str:
    """The same page, which asks the server that sent it."""
    return _render(_page_data(offer, start), connect="'self'")


def _page_data(offer: Offer, start: Start) -> dict[str, Any]:
    return {"offer": offer.model_dump(mode="json"), "start": start.model_dump(mode="json")}


def _render(data: dict[str, Any], *, connect: str) -> str:
    """The page with its data; `connect` is what it may send requests to."""
    from plotly.offline import get_plotlyjs

    folder = files(__package__) / "data"

    def read(name: str) -> str:
        return (folder / name).read_text("utf-8")

    start = data["start"]
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Template(read("page.html")).substitute(
        title=f"shardwise: {start['model']} on {start['chip']}",
        connect=connect,
        css=read("page.css"),
        plotly=get_plotlyjs(),
        # a closing tag inside the data must not end the script
        data=text.replace("<", "\\u003c"),
        scripts="\n".join(read(name) for name in _SCRIPTS),
    )
