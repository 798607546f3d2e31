"""The terminal: one file a command, imports of a command inside it so that ``--help`` is quick."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from ...hardware_specs.errors import SpecError
from .calibrate import calibrate
from .check import check
from .cost import cost
from .estimate import estimate
from .execute import execute
from .explain import explain
from .export import export
from .figures import figures
from .import_model import import_model
from .plan import plan
from .reproduce import reproduce
from .score import score
from .serve import serve
from .show import show
from .simulate import simulate
from .whatif import whatif

app = typer.Typer(
    name="shardwise",
    help="Plan, price and prove distributed transformer inference.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a user's mistake into one sentence on stderr and exit code 2."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SpecError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return run


_COMMANDS = (
    plan,
    estimate,
    explain,
    whatif,
    figures,
    cost,
    export,
    check,
    execute,
    simulate,
    score,
    reproduce,
    calibrate,
    show,
    import_model,
    serve,
)

for _command in _COMMANDS:
    app.command()(guarded(_command))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Plan, price and prove distributed transformer inference."""
    if version:
        from ..version import __version__

        typer.echo(__version__)
        raise typer.Exit(0)


def main() -> None:
    """Entry point of the ``shardwise`` command."""
    app()
