"""What turns a plain function into a command: shared options spelled out, errors turned into one line and an exit code."""

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

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
        terminal = Terminal(json=common.json)
        # A run that is told to stop unwinds like one that is interrupted, so that temporary files are removed.
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        try:
            with terminal.progress():
                function(terminal, **arguments)
            terminal.finish()
            if terminal.unconverged and not common.allow_unconverged:
                listed = ", ".join(terminal.unconverged)
                raise NumericalError(
                    f"expected convergence, found {listed} not converged",
                    fix="see the reasons above, or pass --allow-unconverged",
                )
        except LandscapeError as error:
            if common.debug:
                raise
            terminal.error(str(error), getattr(error, "table", None))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            terminal.error("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except MemoryError:
            terminal.error(
                "expected the work to fit into memory, found that it does not; pass a smaller --batch-size or --samples"
            )
            raise typer.Exit(6) from None

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run


__all__ = ["Annotated", "command"]
