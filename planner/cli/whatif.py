"""``shardwise whatif``: one question asked again with some of its figures varied."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..whatif.ask import WhatIf

_FILES = (".html", ".csv", ".json", ".png", ".svg", ".pdf")


def whatif(
    context: typer.Context,
    base: Annotated[str, typer.Argument(metavar="MODEL|PLAN.json", help="A model, or output of `plan --json`.")],
    vary: Annotated[
        list[str],
        typer.Option("--vary", help="KEY=VALUE,VALUE,... or KEY=A..B, A..B*2, A..B+4; `whatif --keys` lists the keys."),
    ] = [],  # noqa: B006
    on: Annotated[
        str | None, typer.Option("--on", help="Pool: CHIP:COUNT, or CHIP alone where chips are varied.")
    ] = None,
    input_tokens: Annotated[int | None, typer.Option("--input", help="Input tokens of a request.")] = None,
    output_tokens: Annotated[int | None, typer.Option("--output", help="Output tokens of a request.")] = None,
    batch: opt.Batch = None,
    prefill_batch: opt.PrefillBatch = None,
    decode_batch: opt.DecodeBatch = None,
    weights: opt.Weights = None,
    kv_dtype: opt.KvDtype = None,
    prefill: opt.Prefill = None,
    decode: opt.Decode = None,
    tp: opt.Tp = None,
    pp: opt.Pp = None,
    dp: opt.Dp = None,
    ttft: opt.Ttft = None,
    tpot: opt.Tpot = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests a second that must be answered.")] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="What each point's plan is best at: latency, cost or throughput.")
    ] = None,
    engine: opt.Engine = None,
    bound: opt.Bound = False,
    memory_share: opt.MemoryShare = None,
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file to start from.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Answer however many points there are.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write a page (.html), rows (.csv, .json) or a picture (.png, .svg, .pdf)."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate a plan's traffic at each --vary rate=..., several seeds each.")
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs at each rate.")] = 3,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests of a run.")] = 500,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Write one page of controls that answers offline, with a grid inside.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes for the grid of --interactive; one a core unless said.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List what can be varied, and exit.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Vary chips, formats, batch, lengths, bandwidths, prices, ... together; every combination is answered."""
    from ...hardware_specs.errors import SpecError
    from ..whatif.ask import what_if
    from .plots import command_of
    from .text import objective_of

    if keys:
        _print_keys()
        return
    if not vary and not interactive:
        raise SpecError("say what to vary, e.g. --vary chips=8,16,32 --vary weights=bf16,int8; --keys lists the keys")
    _check_output(out)
    if simulate:
        from .whatif_load import whatif_under_load

        whatif_under_load(
            base,
            vary,
            rank=rank,
            limits={"ttft_s": opt.seconds(ttft), "tpot_s": opt.seconds(tpot)},
            n_seeds=seeds,
            n_requests=requests,
            out=out,
            command=command_of(context),
            as_json=as_json,
        )
        return
    given: dict[str, Any] = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "prefill_batch": prefill_batch if prefill_batch is not None else batch,
        "decode_batch": decode_batch if decode_batch is not None else batch,
        "weights": weights,
        "kv_dtype": kv_dtype,
        "prefill": prefill,
        "decode": decode,
        "tp": tp,
        "pp": pp,
        "dp": dp,
        "ttft_s": opt.seconds(ttft),
        "tpot_s": opt.seconds(tpot),
        "rate_per_s": rate,
        "engine": engine,
        "bound": bound or None,
        "memory_share": memory_share,
    }
    if interactive:
        from ..whatif.ask import is_file
        from .text import refuse_path
        from .whatif_explorer import write_interactive

        if not is_file(base):
            refuse_path(base)
        write_interactive(
            base,
            on,
            vary,
            rank=rank,
            objective=objective_of(objective),
            yes=yes,
            given=given,
            out=out,
            command=command_of(context),
            jobs=jobs,
            as_json=as_json,
        )
        return
    answer = what_if(base, on, vary=vary, rank=rank, objective=objective_of(objective), yes=yes, **given)
    if out is not None:
        _write(answer, out, command_of(context))
    _print(answer, as_json=as_json)
    if not answer.n_fitting:
        typer.echo("nothing fits; the reasons stand beside the points", err=True)
        raise typer.Exit(1)


def _check_output(path: Path | None) -> None:
    """Refuse a file that cannot be written, or of a kind that nothing here writes."""
    from ...hardware_specs.errors import SpecError
    from .plots import check_plot

    if path is None:
        return
    if path.suffix.lower() not in _FILES:
        raise SpecError(f"{path.name}: write one of {', '.join(_FILES)}")
    check_plot(path)


def _write(answer: "WhatIf", path: Path, command: str) -> None:
    import json

    from ...hardware_specs.documents import write_atomically
    from .plots import csv_text

    suffix = path.suffix.lower()
    if suffix == ".json":
        write_atomically(path, json.dumps(answer.document(), indent=1, allow_nan=False) + "\n")
    elif suffix == ".csv":
        write_atomically(path, csv_text(answer.columns))
    else:
        from ..figures import write_charts
        from ..whatif.page import whatif_page

        write_charts(whatif_page(answer, command), path)
    typer.echo(f"wrote {path}", err=True)


def _print(answer: "WhatIf", *, as_json: bool) -> None:
    """The rows, or the first of them as a table; on stderr how many there were."""
    import json

    if as_json:
        typer.echo(json.dumps(answer.document(), indent=1, allow_nan=False))
    else:
        _print_table(answer)
    typer.echo(f"{answer.n_points:,} points, {answer.n_fitting:,} fit, in {answer.wall_s:.2f} s", err=True)


_MOST_ROWS = 20


def _print_table(answer: "WhatIf") -> None:
    """The points in their order, the first so many."""
    from ...hardware_specs.units import format_seconds
    from .text import console, table

    varied = list(answer.columns)[: len(answer.axes)]
    made = table(
        *varied, "TTFT", "TPOT", "request", "$/Mtok", "plan, or why not", right=("TTFT", "TPOT", "request", "$/Mtok")
    )
    for row in answer.rows()[:_MOST_ROWS]:
        asked = [str(row[name]) for name in varied]
        if not row["fits"]:
            made.add_row(*asked, "-", "-", "-", "-", str(row["reason"]))
            continue
        times = (format_seconds(float(row[name] or 0.0)) for name in ("ttft_s", "tpot_s", "request_latency_s"))
        price = "-" if row["usd_per_mtok_output"] is None else f"{row['usd_per_mtok_output']:.4g}"
        layout = str(row["decode_layout"]).removeprefix("ws-1d-")
        cut = f"tp{row['tp']} pp{row['pp']} dp{row['dp']} b{row['decode_batch']} {layout}"
        made.add_row(*asked, *times, price, cut)
    out = console()
    question = answer.question
    title = " ".join(filter(None, (question.described.name, question.hardware and f"on {question.hardware}")))
    out.print(f"{title}; each point the best by {answer.objective}", highlight=False)
    out.print(made)
    if answer.n_points > _MOST_ROWS:
        out.print(f"and {answer.n_points - _MOST_ROWS:,} more: --json prints all, -o writes them", highlight=False)


def _print_keys() -> None:
    from ..whatif.keys import KEYS
    from .text import console, table

    made = table("key", "varies", "example")
    for key in KEYS.values():
        made.add_row(key.name, key.says, f"--vary {key.name}={key.example}")
    console().print(made)
