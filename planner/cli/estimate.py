"""``shardwise estimate``: price what is given, without searching pipeline stages or replicas."""

from typing import Annotated

import typer

from . import options as opt


def estimate(
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
    engine: opt.Engine = None,
    bound: opt.Bound = False,
    memory_share: opt.MemoryShare = None,
    price: opt.Price = None,
    as_json: opt.Json = False,
) -> None:
    """Price one deployment: the layouts and batch given, on the best wiring of the slice."""
    from .. import api
    from .text import print_phases, print_refusals, print_result, say_unknown_fields

    say_unknown_fields(model)
    result = api.estimate(
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
        engine=engine,
        bound=bound,
        memory_share=memory_share,
        price=price,
    )
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_result(result)
        if result.plans:
            print_phases(result.plans[0])
    if not result.plans:
        print_refusals(result)
        raise typer.Exit(1)
