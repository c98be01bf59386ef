"""What turns a plain function into a command: shared options spelled out, errors turned into one line and an exit code."""

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import typer

from landscape.cli import processes
from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, NumericalError


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a typer command of `function(terminal, common, ..., own options)`.

    A parameter whose type is a dataclass (Common, Naming) is replaced by its fields as options; the body gets the dataclass
    back. The body prints through the Terminal, and raises; this wrapper is the one place that knows about exit codes.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    groups = {p.name: hints[p.name] for p in parameters if is_dataclass(hints[p.name])}
    flat: list[inspect.Parameter] = []
    for p in parameters:
        if p.name in groups:
            flat += [
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
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
        common: Common = arguments["common"]
        terminal = Terminal(json=common.json, silent=processes.RANK > 0)
        code = 0
        with processes.Crew(terminal) as crew:
            try:
                crew.join(sys.modules[function.__module__].NAME)
                crew.compare(arguments)
                with terminal.progress():
                    function(terminal, **arguments)
                    crew.wait()
                if terminal.unconverged and not common.allow_unconverged:
                    listed = ", ".join(terminal.unconverged)
                    raise NumericalError(
                        f"expected every number to hold, found that these do not: {listed}",
                        fix="see the reasons above, or pass --allow-unconverged",
                    )
            except LandscapeError as error:
                if common.debug:
                    raise
                crew.tell(error, str(error), getattr(error, "table", None))
                code = error.exit_code
            except KeyboardInterrupt as error:
                code = crew.interrupted(error)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(141) from None
            except Exception as error:
                if common.debug:
                    raise
                text, code = explained(error)
                crew.tell(error, text)
        # What was found before a failure is still worth having: the document is printed once the progress bars are gone.
        terminal.finish()
        if code:
            raise typer.Exit(code)

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run


def explained(error: Exception) -> tuple[str, int]:
    """One line and an exit code for an error that nobody raised on purpose: memory, system, the user's code, or ours."""
    first = str(error).partition("\n")[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "expected the work to fit into memory, found that it does not; pass a smaller --batch-size or --samples", 6
    if isinstance(error, OSError):
        return f"expected the system to do its part, found {first}; check the disk and the path", 2
    own = Path(__file__).resolve().parent.parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(("<", str(own), sys.prefix))]
    frames = [
        f
        for f in frames
        if "site-packages" not in f.filename and Path(f.filename).suffix == ".py" and "lib/python" not in f.filename
    ]
    if frames:
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        return (
            f"expected the task's own code to run, found {type(error).__name__}: {first} ({where}); mend it, or see --debug",
            2,
        )
    return f"expected no error inside landscape, found {type(error).__name__}: {first}; run again with --debug and report it", 1
