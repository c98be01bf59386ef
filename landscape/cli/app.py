"""The command line, built from one file per command. A command that is named is built alone, so that its help is fast."""

import importlib
import itertools
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from landscape.errors import LandscapeError, printable
from landscape.version import __version__

_HELP = (
    "Measure how sharp a minimum is, draw the loss around it, and test which of these numbers change when the weights are "
    "rescaled without changing the function."
)

COMMANDS = (
    "inspect", "sharpness", "spectrum", "information", "surface", "samples", "reparam", "compare", "sweep", "train", "watch",
    "report", "demo", "init", "doctor",
)  # fmt: skip
# Options whose values are separated by commas.
_LISTS = ("--symmetry", "--directions", "--measures", "--fixed", "--estimator", "--layers", "--scores")
_CONTEXT = {"help_option_names": ["-h", "--help"]}


def one_command(name: str) -> typer.Typer:
    """A single command, without importing the others or parsing their options."""
    from landscape.cli.command import command

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, context_settings=_CONTEXT)(command(importlib.import_module(f"landscape.cli.commands.{name}").run))
    return app


def all_commands() -> typer.Typer:
    """`landscape` with all its commands, for `landscape --help`, unknown commands, and a shell that completes a line."""
    app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=_CONTEXT)
    for name in COMMANDS:
        app.registered_commands += one_command(name).registered_commands
    app.callback()(root)
    return app


def _version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        typer.echo(f"landscape {__version__}")
        raise typer.Exit


def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of `landscape` itself."""


def one_list(text: str, words: Sequence[str]) -> str | None:
    """The option and its values in one word, if click's error is about values that were separated by spaces.

    Example:
        >>> one_list("Got unexpected extra argument(s) (to:b)", ["m.pt", "--directions", "to:a", "to:b", "--dim", "2"])
        '--directions to:a,to:b'
    """
    option = next((word for word in words if word in _LISTS), None)
    if not text.startswith("Got unexpected extra argument") or option is None:
        return None
    after = words[words.index(option) + 1 :]
    values = list(itertools.takewhile(lambda word: not word.startswith("-"), after))
    shown = text.partition("(s) (")[2].removesuffix(")").split()
    if len(values) < 2 or not set(values[1:]) & set(shown):
        return None
    return f"{option} {','.join(value.strip(',') for value in values)}"


def _nearest(text: str, error: Exception) -> str:
    """A message about an unknown option, with the one that is meant instead of all that resemble it."""
    name, like = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if not name or not like:
        return text
    from difflib import get_close_matches

    words = {option.lstrip("-"): option for option in like}
    near = get_close_matches(name.lstrip("-"), words, n=1)
    return f"No such option: {name}" + (f" (did you mean {words[near[0]]}?)" if near else "")


def run() -> None:
    """Run a command. A mistake in the arguments is reported in one line, with exit code 2."""
    named = sys.argv[1] if sys.argv[1:] and sys.argv[1] in COMMANDS else None
    try:
        if named is None:
            code = all_commands()(prog_name="landscape", standalone_mode=False)
        else:
            code = one_command(named)(args=sys.argv[2:], prog_name=f"landscape {named}", standalone_mode=False)
    except typer.Abort:
        print("error: interrupted", file=sys.stderr)
        code = 130
    except LandscapeError as error:  # raised before the command could report it
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except Exception as error:
        # Some versions of typer bundle click, others import it: click's errors are recognized by their method, not their class.
        if not hasattr(error, "format_message"):
            raise
        from landscape.cli import processes

        text, context = error.format_message(), getattr(error, "ctx", None)
        if text.startswith("Usage:"):  # called without arguments: print the help
            processes.say(text)
        else:
            text = _nearest(text, error)
            where = f"; see {context.command_path} --help" if context is not None else ""
            if (list_ := one_list(text, sys.argv[2:])) is not None:
                where = f"; separate by commas: {printable(list_, limit=500)}"
            processes.say(f"error: {printable(text, limit=1000)}{where}", sys.stderr)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
