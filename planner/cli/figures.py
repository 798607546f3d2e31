"""``shardwise figures``: the pictures of the paper for any model on any chips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..charts.values import Chart


def figures(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model name; `shardwise show models` lists them.")],
    on: Annotated[str, typer.Option("--on", help="Pool of one count, e.g. tpu-v4:64.")],
    figure: Annotated[
        str, typer.Option("--figure", help="1, 3, 6, 7, 8, 9, B.1, C.1, several with commas, or all.")
    ] = "all",
    input_tokens: Annotated[int, typer.Option("--input", help="Input tokens where a figure fixes them.")] = 2048,
    output_tokens: Annotated[int, typer.Option("--output", help="Output tokens where a figure fixes them.")] = 64,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Batch where a figure fixes it.")] = 512,
    weights: Annotated[str, typer.Option("--weights", help="Weight formats beside each other.")] = "bf16,int8",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write a page (.html), points (.csv) or the first picture (.png)."),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Draw Figures 1, 3, 6, 7, 8, 9, B.1 and C.1 of Pope et al. for a model, with the paper's public points on them."""
    from ...hardware_specs.cluster import parse_pool
    from ...hardware_specs.dtypes import parse_dtype
    from ...hardware_specs.errors import SpecError
    from ...models.catalogue import get_model
    from ..charts.paper import paper_charts
    from ..charts.paper_case import PaperCase
    from .plots import check_plot, command_of

    check_plot(out)
    if ".." in on:
        raise SpecError(f"--on {on}: name one count of chips, e.g. tpu-v4:64; figures take others from around it")
    parse_pool(on)
    case = PaperCase(
        model=get_model(model),
        on=on,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        batch=batch,
        weights=tuple(dict.fromkeys(parse_dtype(name).name for name in weights.split(","))),
    )
    names = () if figure.strip().lower() == "all" else tuple(part.strip().upper() for part in figure.split(","))
    charts, missing = paper_charts(case, names)
    for name, reason in missing.items():
        typer.echo(f"figure {name} is left out: {reason}", err=True)
    if out is not None:
        _write(case.model.name, on, charts, out, command_of(context))
    _print(charts, as_json=as_json)


def _write(model: str, on: str, charts: "Sequence[Chart]", path: Path, command: str) -> None:
    from ...hardware_specs.documents import write_atomically
    from ..charts.rows import SAYS, chart_columns
    from ..figures import Page, PageTable, write_charts
    from ..version import __version__
    from .plots import csv_text

    columns = chart_columns(charts)
    if path.suffix.lower() == ".csv":
        write_atomically(path, csv_text(columns))
    else:
        page = Page(
            title=f"{model} on {on}: the figures of Pope et al. 2022",
            lead=("Stars are the paper's public points, curves are predictions.",),
            charts=tuple(charts),
            table=PageTable(columns=columns, says=SAYS, file_name=f"figures-{model}.csv"),
            command=command,
            provenance={"shardwise": __version__, "paper": "Pope et al., arXiv 2211.05102"},
        )
        write_charts(page, path)
    typer.echo(f"wrote {path}", err=True)


def _print(charts: "Sequence[Chart]", *, as_json: bool) -> None:
    """Every point as JSON, or a line a figure: its curves, and how many points of the paper lie on it."""
    import json

    from ..charts.rows import chart_columns
    from .text import console, table

    columns = chart_columns(charts)
    if as_json:
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        typer.echo(json.dumps({"figures": rows}, indent=1, allow_nan=False))
        return
    made = table("figure", "shows", "curves", "points", "published", right=("curves", "points", "published"))
    for chart in charts:
        ours = [curve for curve in chart.curves() if curve.style != "published"]
        published = sum(len(curve.x) for curve in chart.curves() if curve.style == "published")
        shows = chart.title.partition(": ")[2]
        made.add_row(chart.name, shows, str(len(ours)), str(sum(len(c.x) for c in ours)), str(published))
    console().print(made)
