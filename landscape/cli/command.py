"""Turn a plain function into a command: expand the shared options, turn errors into one line and an exit code."""

import copy
import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TextIO, get_args, get_type_hints

import typer

from landscape.cli import processes, streams
from landscape.cli.explain import check_no_measures, explained, whose, with_the_command
from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, NumericalError

_BROKEN_PIPE = 141  # 128 + SIGPIPE, the shell's exit code for a program that SIGPIPE ended


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a typer command of `function(terminal, common, ..., own options)`.

    A parameter whose type is a dataclass (Common, Naming) is replaced by one option per field; the body receives the dataclass.
    The body prints through the Terminal and raises exceptions. Only this wrapper knows about exit codes.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    groups = {p.name: hints[p.name] for p in parameters if is_dataclass(hints[p.name])}
    flat: list[inspect.Parameter] = []
    idle = idle_options(sys.modules[function.__module__])
    for p in parameters:
        if p.name in groups:
            flat += [
                inspect.Parameter(
                    f.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=f.default,
                    annotation=_hidden(f.type) if f.name in idle else f.type,
                )
                for f in fields(groups[p.name])
            ]
        else:
            flat.append(p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]))

    @functools.wraps(function)
    def run(**given: Any) -> None:
        arguments: dict[str, Any] = {}
        for p in parameters:
            if p.name in groups:
                arguments[p.name] = groups[p.name](**{f.name: given[f.name] for f in fields(groups[p.name])})
            else:
                arguments[p.name] = given[p.name]
        with streams.apart() as results:
            code = _carried_out(function, arguments, results)
        if code:
            raise typer.Exit(code)

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run


def _look_at_checkpoints(arguments: dict[str, Any]) -> None:
    """Refuse arguments none of which is a checkpoint, within a fraction of the time that importing torch takes.

    Of several the command tells which are none, and does the others.
    """
    from landscape.checkpoints.reading.formats import check_look

    given = arguments.get("checkpoint") or arguments.get("checkpoints") or ()
    refused = []
    for path in [given] if isinstance(given, Path) else given:
        try:
            check_look(path)
        except LandscapeError as error:
            refused.append(error)
        else:
            return
    if refused:
        raise refused[0]


def _tell_idle(terminal: Terminal, common: Common, module: ModuleType) -> None:
    """Say of a shared option that it has no effect on this command, if it was given."""
    for f in fields(common):
        if f.name in idle_options(module) and getattr(common, f.name) != f.default:
            terminal.note(f"--{f.name.replace('_', '-')} has no effect on {module.NAME}")


def idle_options(module: ModuleType) -> frozenset[str]:
    """The shared options that do nothing in a command: accepted like everywhere, and not in its help."""
    return getattr(module, "IDLE", frozenset())


def _hidden(annotation: Any) -> Any:
    """The annotation of an option, left out of the help."""
    kind, option = get_args(annotation)
    option = copy.copy(option)
    option.hidden = True
    return Annotated[kind, option]


def _carried_out(function: Callable[..., None], arguments: dict[str, Any], results: TextIO) -> int:
    """Run the body of a command, report its errors, and return the exit code."""
    common: Common = arguments["common"]
    terminal = Terminal(json=common.json, silent=processes.RANK > 0, results=results)
    code = 0
    try:
        with processes.Crew(terminal) as crew:
            try:
                crew.join(sys.modules[function.__module__].NAME)
                crew.compare(arguments)
                if "measures" in arguments:
                    files = next((arguments[name] for name in ("checkpoints", "paths", "patterns") if arguments.get(name)), ())
                    check_no_measures(files, arguments["measures"])
                _look_at_checkpoints(arguments)
                _tell_idle(terminal, common, sys.modules[function.__module__])
                with terminal.progress():
                    function(terminal, **arguments)
                    crew.wait()
                if terminal.unconverged and not common.allow_unconverged:
                    listed = ", ".join(terminal.unconverged)
                    finer = ", try --dtype float64" if common.dtype == "float32" else ""
                    raise NumericalError(
                        f"expected every number to converge, found that these did not: {listed}",
                        fix=f"see the reasons above{finer}, or pass --allow-unconverged",
                    )
            except processes.REQUESTS as error:
                code = crew.interrupted(error)
            except BaseException as error:  # SystemExit, or KeyboardInterrupt without a signal, is an error of the user's code
                if isinstance(error, BrokenPipeError) and whose(error) is None:
                    raise
                if common.debug:
                    traceback.print_exception(error)
                if isinstance(error, LandscapeError):
                    text, code = with_the_command(error, sys.argv[1:]), error.exit_code
                else:
                    text, code = explained(error)
                crew.tell(error, text, getattr(error, "table", None) if isinstance(error, LandscapeError) else None)
        # Results found before a failure are still useful. The document is printed after the progress bars are removed.
        terminal.finish()
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        return _BROKEN_PIPE
    return code
