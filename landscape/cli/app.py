"""The command line, put together from one file a command; a command that is named is put together alone."""

import importlib
import sys
from typing import Annotated

import typer

from landscape.errors import LandscapeError, printable
from landscape.version import __version__

_HELP = "How sharp a minimum is, what the loss looks like around it, and which of these numbers rescaling could have faked."

COMMANDS = (
    "inspect", "sharpness", "spectrum", "surface", "reparam", "compare", "train", "report", "demo", "init", "doctor",
)  # fmt: skip
_CONTEXT = {"help_option_names": ["-h", "--help"]}


def one_command(name: str) -> typer.Typer:
    """A single command: the others are not imported, and their options not looked at."""
    from landscape.cli.command import command

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, context_settings=_CONTEXT)(command(importlib.import_module(f"landscape.cli.commands.{name}").run))
    return app


def all_commands() -> typer.Typer:
    """`landscape` with all its commands, for its help and for mistakes."""
    app = typer.Typer(
        help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings=_CONTEXT
    )
    for name in COMMANDS:
        app.registered_commands += one_command(name).registered_commands
    app.callback()(root)
    return app


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"landscape {__version__}")
        raise typer.Exit


def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of `landscape` itself."""


def run() -> None:
    """Run a command; every mistake in the arguments is one line and exit code 2."""
    named = sys.argv[1] if sys.argv[1:] and sys.argv[1] in COMMANDS else None
    try:
        if named is None:
            code = all_commands()(prog_name="landscape", standalone_mode=False)
        else:
            code = one_command(named)(args=sys.argv[2:], prog_name=f"landscape {named}", standalone_mode=False)
    except typer.Abort:
        print("error: interrupted", file=sys.stderr)
        code = 130
    except LandscapeError as error:  # before the command itself could say so
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except Exception as error:
        # Typer carries a click of its own in some versions, the public one in others: errors are told by what they can do.
        if not hasattr(error, "format_message"):
            raise
        from landscape.cli import processes

        text, context = error.format_message(), getattr(error, "ctx", None)
        if text.startswith("Usage:"):  # no arguments at all: the help is the answer
            processes.say(text)
        else:
            where = f"; see {context.command_path} --help" if context is not None else ""
            processes.say(f"error: {printable(text, limit=1000)}{where}", sys.stderr)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
