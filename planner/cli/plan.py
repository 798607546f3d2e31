"""``shardwise plan``: search everything a pool allows."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt


def plan(
    model: Annotated[str, typer.Argument(help="Model name; `shardwise show models` lists them.")],
    on: opt.On,
    input_tokens: opt.Input,
    output_tokens: opt.Output,
    decode_on: opt.DecodeOn = None,
    batch: opt.Batch = None,
    prefill_batch: opt.PrefillBatch = None,
    decode_batch: opt.DecodeBatch = None,
    weights: opt.Weights = None,
    kv_dtype: opt.KvDtype = None,
    page_size: opt.PageSize = "1",
    prefill: opt.Prefill = None,
    decode: opt.Decode = None,
    tp: opt.Tp = None,
    pp: opt.Pp = None,
    dp: opt.Dp = None,
    mesh: opt.Mesh = None,
    ttft: opt.Ttft = None,
    tpot: opt.Tpot = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests a second; the best plans are simulated.")
    ] = None,
    attainment: Annotated[
        float, typer.Option("--attain", help="Share of requests that must keep the limits at that rate.")
    ] = 0.9,
    objective: Annotated[
        str | None, typer.Option("--objective", help="latency (default), cost (default with a limit) or throughput.")
    ] = None,
    engine: opt.Engine = None,
    bound: opt.Bound = False,
    memory_share: opt.MemoryShare = None,
    price: opt.Price = None,
    top: Annotated[int, typer.Option("--top", help="Plans to print.")] = 5,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write the frontier as an offline page.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Choose sharding, batching and KV layout for a model on a pool of chips."""
    from .. import api
    from .answer import is_rated, print_answer
    from .plots import check_plot
    from .text import objective_of, print_refusals, print_result, say_unknown_fields

    check_plot(plot)
    say_unknown_fields(model)
    result = api.plan(
        model,
        on,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        decode_on=decode_on,
        batch=batch,
        prefill_batch=prefill_batch,
        decode_batch=decode_batch,
        weights=weights,
        kv_dtype=kv_dtype,
        page_size=opt.page_sizes(page_size),
        prefill=prefill,
        decode=decode,
        tp=tp,
        pp=pp,
        dp=dp,
        mesh=mesh,
        ttft_s=opt.seconds(ttft),
        tpot_s=opt.seconds(tpot),
        rate_per_s=rate,
        attainment=attainment,
        objective=objective_of(objective),
        engine=engine,
        bound=bound,
        memory_share=memory_share,
        price=price,
        top=top,
    )
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
    elif is_rated(result.plans):
        print_answer(result)
    else:
        print_result(result)
    print_refusals(result)
    if plot is not None and result.plans:
        from ..charts.frontier import frontier_chart
        from .plots import write_plot

        write_plot(plot, f"{result.model} on {result.on}", [frontier_chart(result)])
    if not result.plans:
        raise typer.Exit(1)
