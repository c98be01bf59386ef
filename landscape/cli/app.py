"""The command line, put together from one file a command."""

import sys
from typing import Annotated

import typer

from landscape.cli import compare, demo, doctor, init, inspect, processes, reparam, report, sharpness, spectrum, surface, train
from landscape.cli.command import command
from landscape.errors import printable
from landscape.version import __version__

_HELP = "How sharp a minimum is, what the loss looks like around it, and which of these numbers rescaling could have faked."

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (inspect, sharpness, spectrum, surface, reparam, compare, train, report, demo, init, doctor):
    app.command(module.NAME)(command(module.run))


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"landscape {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of `landscape` itself."""


def run() -> None:
    """Run a command; every mistake in the arguments is one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        print("error: interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        # Typer carries a click of its own in some versions, the public one in others: errors are told by what they can do.
        if not hasattr(error, "format_message"):
            raise
        text, context = error.format_message(), getattr(error, "ctx", None)
        if text.startswith("Usage:"):  # no arguments at all: the help is the answer
            processes.say(text)
        else:
            where = f"; see {context.command_path} --help" if context is not None else ""
            processes.say(f"error: {printable(text, limit=1000)}{where}", sys.stderr)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
