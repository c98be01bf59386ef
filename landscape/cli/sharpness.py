"""`landscape sharpness`: the main job."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import SHARD_BASIS, Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, UsageError

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.results import Sharpness
    from landscape.tasks import Task

NAME = "sharpness"
SCHEMA = 1
# Seconds from which a forecast is worth a line.
_WORTH_SAYING = 5.0
MEASURES_HELP = "all, or names separated by commas, with settings where asked: keskar:eps=1e-4; default the usual ones."


def run(
    terminal: Terminal,
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="One or more checkpoints.")],
    common: Common,
    naming: Naming,
    measures: Annotated[str | None, typer.Option("--measures", help=MEASURES_HELP)] = None,
    shard_basis: SHARD_BASIS = False,
) -> None:
    """How sharp is this minimum? Every number with its doubt, and whether rescaling the weights could have faked it.

    Example: landscape sharpness runs/model.safetensors --samples 1024
    """
    from landscape.cli.network import task_file
    from landscape.distributed import group
    from landscape.measures import chosen
    from landscape.results.sharpness import LEGEND

    names = listed(measures)
    chosen(names)  # an unknown name is told before any work
    early = {"command": NAME, "measures": names, "files": [str(path) for path in checkpoints]}
    early |= task_file(naming)
    if common.out is not None:
        from landscape.cli.files import OutputDirectory

        OutputDirectory.allow(common.out, early)
    results: list[Sharpness] = []
    failures: list[LandscapeError] = []
    for path in checkpoints:
        try:
            start = results[-1] if results else None
            results.append(measured(terminal, path, common, naming, names, shard_basis, start))
            if start is not None:
                results[-2] = replace(start, directions=None)  # only a neighbour's vectors are worth their memory
        except LandscapeError as error:
            group().fail_together(error)
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
            inputs = early | {"results": [[r.sha256, r.provenance] for r in results]}
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


def measured(
    terminal: Terminal,
    path: Path,
    common: Common,
    naming: Naming,
    names: str | list[str] | None,
    shard_basis: bool = False,
    start: "Sharpness | None" = None,
) -> "Sharpness":
    """The measures of one checkpoint, printed as a table; the eigenvectors of `start`, the one before it, are a first guess."""
    from landscape.cli.network import objective_of, open_task

    task = open_task(path, naming, terminal)
    objective = objective_of(task, common, naming.split, shard_basis)
    return measured_at(terminal, path, task, objective, common, naming, names, start)


def measured_at(
    terminal: Terminal,
    path: Path,
    task: "Task",
    objective: "Objective",
    common: Common,
    naming: Naming,
    names: str | list[str] | None,
    start: "Sharpness | None" = None,
) -> "Sharpness":
    """The same for a checkpoint that is open already, on the data of `--split`."""
    from landscape.cli.network import centre_line, work_lines
    from landscape.measures import forecast, room, sharpness
    from landscape.results.sharpness import HEAD

    centre_line(objective, task, path.name, naming.split, terminal)
    bases, vectors = room(objective, names)
    work = work_lines(objective, terminal, *bases, vectors=vectors)
    plan = forecast(objective, names)
    if plan.total > _WORTH_SAYING:
        terminal.note(f"forecast: {plan}")
    result = sharpness(objective, names, seed=common.seed, seconds=plan.seconds, start=start)
    result = replace(
        result,
        checkpoint=str(path),
        sha256=task.sha256,
        task=task.name,
        provenance=result.provenance | {"split": naming.split} | work,
    )
    terminal.table(HEAD, result.rows())
    for reason in result.reasons():
        terminal.line(reason)
    settings = {name: m.settings for name, m in result.measures.items() if m.settings}
    if settings:
        told = (f"{name} {', '.join(f'{k}={v}' for k, v in own.items())}" for name, own in settings.items())
        terminal.line(f"settings: {'; '.join(told)}")
    terminal.line()
    terminal.unconverged += [f"{name} of {path.name}" for name in result.unconverged]
    return result
