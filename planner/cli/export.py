"""``shardwise export``: a plan as what runs it, or as the load that checks it."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt


def export(
    file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Output of `plan --json` or `estimate --json`.")],
    to: Annotated[
        str | None, typer.Option("--to", help="What starts it: vllm, sglang, trtllm, dynamo, llm-d or kserve.")
    ] = None,
    load: Annotated[
        str | None, typer.Option("--load", help="What checks it: vllm-bench, guidellm or inference-perf.")
    ] = None,
    engine_version: Annotated[
        str | None, typer.Option("--engine-version", help="Version whose flags are used, e.g. 0.33.")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file to export.")] = 1,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Weights to load: a Hugging Face name or a folder.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option("--max-model-len", help="Tokens of the longest request; the plan's unless said.")
    ] = None,
    max_sequences: Annotated[
        int | None, typer.Option("--max-sequences", help="Requests of a replica at a time.")
    ] = None,
    token_budget: Annotated[int | None, typer.Option("--token-budget", help="Tokens of a pass.")] = None,
    url: Annotated[str, typer.Option("--url", help="With --load: where the server listens.")] = "http://localhost:8000",
    rate: Annotated[float | None, typer.Option("--rate", help="With --load: requests a second.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="With --load: users in a closed loop.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="With --load: requests to send.")] = None,
    results: Annotated[str, typer.Option("--results", help="With --load: file it writes.")] = "results.json",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here, not to stdout.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Write a plan as launch commands, cluster manifests or a load generator's command."""
    import json
    from dataclasses import asdict

    from ...hardware_specs.documents import write_atomically
    from ...hardware_specs.errors import SpecError
    from ..explain import read_result
    from ..export import LaunchOptions, export_load, export_plan
    from .text import check_writable

    if output is not None:
        check_writable(output)
    if (to is None) == (load is None):
        raise SpecError("say what is written by one of --to (what starts the plan) and --load (what checks it)")
    result = read_result(file)
    limits = LaunchOptions(
        checkpoint=checkpoint, max_model_len=max_model_len, max_sequences=max_sequences, token_budget=token_budget
    )
    if to is not None:
        made = export_plan(result, to, rank=rank, engine_version=engine_version, options=limits)
    else:
        made = export_load(
            result,
            load or "",
            rank=rank,
            version=engine_version,
            options=limits,
            url=url,
            rate_per_s=rate,
            concurrency=concurrency,
            n_requests=requests,
            file=results,
        )
    text = json.dumps(asdict(made), indent=1) + "\n" if as_json else made.text
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text)
        typer.echo(f"wrote {output}", err=True)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
