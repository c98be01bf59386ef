"""`landscape sharpness`: the main job."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, UsageError

if TYPE_CHECKING:
    from landscape.results import Sharpness

NAME = "sharpness"
SCHEMA = 1


def run(
    terminal: Terminal,
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="One or more checkpoints.")],
    common: Common,
    naming: Naming,
    measures: Annotated[
        str | None, typer.Option("--measures", help="all, or names separated by commas; default the usual ones.")
    ] = None,
) -> None:
    """How sharp is this minimum? Every number with its doubt, and whether rescaling the weights could have faked it.

    Example: landscape sharpness runs/model.safetensors --samples 1024
    """
    from landscape.measures import chosen
    from landscape.results.sharpness import LEGEND

    names = listed(measures)
    chosen(names)  # an unknown name is told before any work
    results: list[Sharpness] = []
    failures: list[LandscapeError] = []
    for path in checkpoints:
        try:
            results.append(measured(terminal, path, common, naming, names))
        except LandscapeError as error:
            # The others are still worth having: nothing that was asked for and can be had is lost.
            failures.append(error)
            if len(checkpoints) > 1:
                terminal.warn(f"{path}: {error}")
    if results:
        terminal.line(LEGEND)
    document = {"schema": SCHEMA, "results": [r.to_json() for r in results]}
    if results:
        terminal.document(document)
        if common.out is not None:
            from landscape.cli.files import OutputDirectory

            inputs = {"command": NAME, "results": [[r.sha256, r.provenance] for r in results], "measures": names}
            folder = OutputDirectory(common.out, inputs)
            folder.json("sharpness.json", document)
            terminal.written(folder.written)
    if failures:
        raise failures[0]


def listed(measures: str | None) -> str | list[str] | None:
    """The names that `--measures` gives: None, "all", or a list."""
    if measures is None or measures == "all":
        return measures
    names = [name.strip() for name in measures.split(",") if name.strip()]
    if not names:
        raise UsageError(f"expected names of measures, found {measures!r}", fix="leave --measures out for the usual ones")
    return names


def measured(terminal: Terminal, path: Path, common: Common, naming: Naming, names: str | list[str] | None) -> "Sharpness":
    """The measures of one checkpoint, printed as a table."""
    from landscape.cli.network import centre_line, objective_of, open_task
    from landscape.measures import sharpness
    from landscape.results.sharpness import HEAD

    task = open_task(path, naming, terminal)
    objective = objective_of(task, common, naming.split)
    centre_line(objective, task, path.name, naming.split, terminal)
    result = sharpness(objective, names, seed=common.seed)
    result = replace(
        result,
        checkpoint=str(path),
        sha256=task.sha256,
        task=task.name,
        provenance=result.provenance | {"split": naming.split},
    )
    terminal.table(HEAD, result.rows())
    terminal.line()
    terminal.unconverged += [f"{name} of {path.name}" for name in result.unconverged]
    return result
