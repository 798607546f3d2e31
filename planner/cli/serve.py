"""``shardwise serve``: the explorer, answered live on this machine."""

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..explorer.server import App


def serve(
    model: Annotated[str, typer.Argument(help="Model the page opens with.")] = "llama-3.1-70b",
    chip: Annotated[str, typer.Option("--chip", help="Chip the page opens with.")] = "h100-sxm",
    input_tokens: opt.Input = 2048,
    output_tokens: opt.Output = 256,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; this machine's own alone.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8321,
    max_chips: Annotated[int, typer.Option("--max-chips", help="Largest pool the page offers.", min=1, max=256)] = 8,
    as_json: opt.Json = False,
) -> None:
    """Serve the explorer: one page, every model and chip, answered as the controls move."""
    from ...hardware_specs.errors import SpecError
    from ..explorer.server import is_loopback

    if not is_loopback(host):
        raise SpecError(
            f"host {host!r} is not this machine's own: the server has no passwords and answers to loopback alone; "
            f"use 127.0.0.1, and ssh -L {port}:127.0.0.1:{port} from another machine"
        )
    try:
        import uvicorn
    except ImportError:
        raise SpecError("the server needs uvicorn; install it with `pip install 'shardwise[serve]'`") from None
    app = make_app(model, chip, input_tokens, output_tokens, max_chips)
    listener = listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
    _announce(address, as_json=as_json)
    config = uvicorn.Config(app, log_level="warning", server_header=False, lifespan="on")
    with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
        uvicorn.Server(config).run(sockets=[listener])


def make_app(model: str, chip: str, input_tokens: int, output_tokens: int, max_chips: int) -> "App":
    """The application, with the answer that the page opens with."""
    from ...hardware_specs.catalogue import get_chip
    from ...models.catalogue import get_model
    from ..explorer.page import live_page
    from ..explorer.question import Question, Start, whole_catalogue
    from ..explorer.server import App
    from .text import refuse_path

    refuse_path(model)
    offer = whole_catalogue(max_chips)
    start = Start(
        model=get_model(model).name, chip=get_chip(chip).name, input_tokens=input_tokens, output_tokens=output_tokens
    )
    counts = {offered.name: offered.counts for offered in offer.chips}
    app = App(offer, live_page(offer, start))
    app.warm(
        Question(
            model=start.model,
            chip=start.chip,
            counts=counts[start.chip],
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
    )
    return app


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or the reason why there is none."""
    from ...hardware_specs.errors import SpecError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SpecError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port, or 0 for a free one"
        ) from None


def _announce(address: str, *, as_json: bool) -> None:
    """Where the page is, on stdout; how to stop, on stderr."""
    typer.echo(json.dumps({"url": address}) if as_json else address)
    typer.echo("open it in a browser; Ctrl-C stops the server", err=True)
