"""``shardwise show``: what the catalogues hold."""

from typing import Annotated

import typer

from .options import Json


def show(
    what: Annotated[str, typer.Argument(help="chips, models, layouts, clusters, engines, workloads or drafts.")],
    name: Annotated[str | None, typer.Argument(help="One entry, in full.")] = None,
    as_json: Json = False,
) -> None:
    """List the chips, models, layouts, clusters, engines, workloads or drafts, or show one of them."""
    import json

    from ...hardware_specs.errors import UnknownNameError
    from .catalogue import LISTS, ONE, print_rows

    if what not in LISTS:
        raise UnknownNameError("catalogue", what, LISTS)
    found = LISTS[what]() if name is None else ONE[what](name)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_rows(found)
