"""``shardwise import-model``: a Hugging Face config.json becomes a model of ours."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json


def import_model(
    path: Annotated[str, typer.Argument(help="A config.json, a directory that holds one, or - for standard input.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call the model.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--override", help="field=value in place of what the file says; may be repeated."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the model as YAML.")] = None,
    as_json: Json = False,
) -> None:
    """Read a model as Hugging Face writes it: parameters, cache, state, context, and the fields nobody knows."""
    import json

    from ...models.hf import reader
    from ...models.params import n_params
    from .text import check_writable

    if output is not None:
        check_writable(output)
    found = reader.import_model(path, name=name, overrides=override or ())
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if found.unknown_fields:
        typer.echo(f"unknown fields, which changed nothing: {', '.join(found.unknown_fields)}", err=True)
    if output is not None:
        from ...models.written import write_model

        write_model(found.model, output)
        typer.echo(f"written to {output}", err=True)
    model = found.model
    summary = {
        "name": model.name,
        "n_params": n_params(model),
        "n_params_active": found.n_params_active,
        "weight_bytes": round(found.weight_bytes),
        "kv_bytes_per_token": round(found.kv_bytes_per_token),
        "state_bytes_per_seq": round(found.state_bytes_per_seq),
        "max_context": model.max_context,
        "unknown_fields": list(found.unknown_fields),
    }
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        _print(found)


def _print(found: object) -> None:
    """The same as a table, with what the layers are."""
    from ...hardware_specs.units import format_bytes
    from ...models.hf.reader import Imported
    from ...models.params import n_params
    from .text import console, table

    assert isinstance(found, Imported)
    model = found.model
    made = table("", "", title=model.name)
    layers = ", ".join(f"{n} x {kind}" for kind, n in model.n_layers_of.items())
    formats = {
        "mixers": model.mixer_dtype,
        "experts": model.expert_dtype,
        "embedding": model.embedding_dtype,
    }
    others = ", ".join(f"{part} {dtype}" for part, dtype in formats.items() if dtype)
    rows = (
        ("parameters", f"{n_params(model):,}"),
        ("active", f"{found.n_params_active:,}"),
        ("weights", f"{format_bytes(found.weight_bytes)} ({model.weights_dtype}{'; ' + others if others else ''})"),
        ("cache a token", f"{found.kv_bytes_per_token:,.0f} B ({found.kv_dtype})"),
        ("state a sequence", f"{found.state_bytes_per_seq:,.0f} B" if found.state_bytes_per_seq else "none"),
        ("context", "no limit" if model.max_context is None else f"{model.max_context:,} tokens"),
        ("layers", layers),
    )
    for row in rows:
        made.add_row(*row)
    console().print(made)
