"""Pages that load nothing: figures, the table behind them, and where they come from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from ...hardware_specs.documents import write_atomically
from ...hardware_specs.errors import SpecError
from ..charts.values import AnyChart, BarChart, Chart
from .bars import draw_bars
from .heat import draw_heat
from .lines import draw_chart
from .look import CONFIG, themes

IMAGES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTable:
    """The table behind a picture: columns of plain values, and what each is."""

    columns: Mapping[str, Sequence[Any]]
    says: Mapping[str, str]
    file_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page.

    Parameters
    ----------
    lead : sentences under the title
    command : what makes the page again
    provenance : names and values: version, hash, inputs
    notes : what the numbers leave out
    """

    title: str
    lead: tuple[str, ...]
    charts: tuple[AnyChart, ...]
    table: PageTable | None = None
    command: str = ""
    provenance: Mapping[str, str]
    notes: tuple[str, ...] = ()


def draw(chart: AnyChart) -> go.Figure:
    """Any chart as a plotly figure."""
    if isinstance(chart, Chart):
        return draw_chart(chart)
    return draw_bars(chart) if isinstance(chart, BarChart) else draw_heat(chart)


def page_html(page: Page) -> str:
    """The page as one document."""
    parts = [_section(chart) for chart in page.charts]
    body = [
        f"<h1>{escape(page.title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in page.lead),
        *parts,
        _table(page.table),
        _origin(page),
    ]
    data = {
        "config": CONFIG,
        "themes": themes(),
        "figures": {chart.name: _bare(draw(chart)) | _narrow(chart) for chart in page.charts},
        "table": None if page.table is None else _table_data(page.table),
    }
    return _DOCUMENT.format(
        title=escape(page.title),
        style=_asset("page.css"),
        plotly=get_plotlyjs(),
        body="\n".join(filter(None, body)),
        data=_script_json(data),
        script=_asset("page.js"),
    )


def write_charts(page: Page, path: Path) -> None:
    """Write a page, or its first chart as a picture, by the suffix of the path.

    Raises
    ------
    SpecError : an image without kaleido, or a file that cannot be written
    """
    if path.suffix.lower() in IMAGES:
        write_image(draw(page.charts[0]), path)
    else:
        write_atomically(path, page_html(page))


def check_picture(path: Path) -> None:
    """Refuse a picture that nothing here can make.

    Raises
    ------
    SpecError : kaleido is missing
    """
    if path.suffix.lower() in IMAGES and find_spec("kaleido") is None:
        raise SpecError(
            f"{path.name}: pictures need kaleido and a Chrome or Chromium (pip install 'shardwise[images]'); "
            "write a page instead, as .html"
        )


def write_image(figure: go.Figure, path: Path) -> None:
    """Write a figure as png, svg or pdf.

    Raises
    ------
    SpecError : no kaleido, or no browser for it
    """
    check_picture(path)
    try:
        figure.write_image(path, width=1100, height=620, scale=2)
    except Exception as error:  # kaleido raises what its browser does
        raise SpecError(f"{path.name} could not be drawn: {error}; write a page instead, as .html") from None


def _section(chart: AnyChart) -> str:
    return (
        f'<section><h2>{escape(chart.title)}</h2><p class="says">{escape(chart.says)}</p>'
        f'<div class="figure" id="figure-{escape(chart.name)}" role="img" aria-label="{escape(chart.title)}"></div></section>'
    )


def _bare(figure: go.Figure) -> dict[str, Any]:
    """A figure's data and layout; its title stands in the page."""
    made: dict[str, Any] = json.loads(figure.to_json())
    made["layout"].pop("title", None)
    made["layout"].pop("template", None)
    margin = made["layout"].setdefault("margin", {})
    margin["t"] = 36
    return {"data": made["data"], "layout": made["layout"]}


def _narrow(chart: AnyChart) -> dict[str, Any]:
    """The layout on a phone, where it is another: the panels under each other."""
    if not isinstance(chart, Chart) or len(chart.panels) < 2:
        return {}
    return {"narrow": _bare(draw_chart(chart, narrow=True))["layout"]}


def _table(table: PageTable | None) -> str:
    if table is None:
        return ""
    return (
        '<section id="table"><h2>The numbers</h2><p class="tools">'
        '<button type="button" id="download">Download CSV</button> '
        '<label>Filter <input id="filter" type="search" autocomplete="off"></label> <span id="count"></span></p>'
        '<div class="scroll"><table><thead></thead><tbody></tbody></table></div>'
        '<p class="tools"><button type="button" id="more">Show more rows</button></p></section>'
    )


def _table_data(table: PageTable) -> dict[str, Any]:
    return {
        "names": list(table.columns),
        "columns": [list(column) for column in table.columns.values()],
        "says": [table.says.get(name, "") for name in table.columns],
        "file": table.file_name,
    }


def _origin(page: Page) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.provenance.items())
    command = f'<p>Made by</p><pre id="command">{escape(page.command)}</pre>' if page.command else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    listed = f"<h3>What the numbers leave out</h3><ul>{notes}</ul>" if notes else ""
    return f"<section><h2>Where this comes from</h2>{command}<dl>{rows}</dl>{listed}</section>"


def _script_json(data: Any) -> str:
    """JSON that cannot end the script it stands in; what is no number is null."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="shardwise">
<title>{title}</title>
<style>
{style}
</style>
<script>{plotly}</script>
</head>
<body>
<button type="button" id="theme" aria-label="Change between light and dark">Light / dark</button>
<main>
{body}
</main>
<script type="application/json" id="data">{data}</script>
<script>
{script}
</script>
</body>
</html>
"""
