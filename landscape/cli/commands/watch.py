"""`landscape watch`: sharpness through a training run, from the checkpoints that it left."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import CLEAN, Common, Varying, listed_names
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.tasks import Task

NAME = "watch"


def run(
    terminal: Terminal,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Checkpoints of one training run, in the order of their names.")
    ],
    common: Common,
    naming: Varying,
    measures: Annotated[
        str,
        typer.Option(
            "--measures",
            help="Separated by commas: lambda_max, trace, layer_traces, critical_sharpness, gradient_norm, and those of "
            "landscape sharpness.",
        ),
    ] = "lambda_max,trace,layer_traces,critical_sharpness",
    every: Annotated[int, typer.Option("--every", min=1, metavar="N", help="Take every N-th checkpoint.")] = 1,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="Learning rate of SGD, for the edge of stability 2 / lr. Default: the constant one of a recipe of SGD.",
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            "--momentum",
            help="Momentum of SGD, which raises the edge to (2 + 2 momentum) / lr. Default: the recipe's, with --lr none.",
        ),
    ] = None,
    probes: Annotated[int, typer.Option("--probes", min=2, help="Random probes of the traces.")] = 8,
    clean: CLEAN = False,
) -> None:
    """Sharpness through training, from a folder of checkpoints: a table, a CSV file and a figure with the edge of stability.

    With layer_traces also an alarm for label memorization: whether the traces of hidden layers rose as labels were fitted.

    Example: landscape watch runs/model-trajectory --measures lambda_max,layer_traces --out watched
    """
    from landscape.checkpoints import CheckpointFiles
    from landscape.checkpoints.series import checkpoint_paths
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.over_training.watched_training import printed, write_history
    from landscape.cli.setup import objective_of, open_task, task_file
    from landscape.cli.surfaces.requested_axes import path_sha256
    from landscape.measures import provenance
    from landscape.watching import MemorizationAlarm
    from landscape.watching.moment import measures_of
    from landscape.watching.saved_series import check_sgd, steps_in, watched_series

    names = listed_names("--measures", measures)
    measures_of(names)
    check_sgd({"lr": lr, "momentum": momentum})
    there = checkpoint_paths(folder)
    if not there:
        raise UsageError(f"expected a folder of checkpoints, found none in {folder}", fix="landscape train TASK --keep-every 1")
    task = open_task(there[-1], naming, terminal)
    objective = objective_of(task, common, naming.split)
    files = CheckpointFiles(folder, task.model, objective.layout, weights=naming.weights, least=2)[::every]
    sgd = _sgd(task, lr, momentum)
    inputs = provenance(objective, common.seed) | task_file(naming) | {
        "command": NAME, "split": naming.split, "samples": objective.samples, "measures": names, "sgd": sgd,
        "probes": probes, "checkpoints": {p.name: path_sha256(p) for p in files.paths},
    }  # fmt: skip
    output = OutputDirectory(common.out or Path(f"{folder.name}-watch"), inputs)
    numbers, counted = steps_in(files.names)
    history = watched_series(
        objective, files.points(), numbers, names, counted=counted, sgd=sgd, probes=probes, seed=common.seed,
        alarm=MemorizationAlarm() if "layer_traces" in names else None,
    )  # fmt: skip
    printed(terminal, history)
    lost = {name for c in history.checks for name, e in c.measures.items() if not e.converged}
    terminal.unconverged += sorted(lost)
    output.written += write_history(history, output.path / "watch", folder.name, not clean)
    terminal.document({"schema": 1, "folder": str(folder), "task": task.name, **history.to_json(), "provenance": inputs})
    terminal.written(output.written)


def _sgd(task: "Task", lr: float | None, momentum: float | None) -> dict[str, Any] | None:
    """The settings of SGD that give the edge: as asked, else of the recipe of `landscape train` if it is SGD of one rate.

    Raises:
        UsageError: a momentum without any learning rate.
    """
    if lr is not None:
        return {"lr": lr, "momentum": momentum or 0.0}
    recipe = (task.recipe or {}).get("training") or {}
    known = recipe.get("optimizer") == "sgd" and recipe.get("schedule", "none") == "none"
    if momentum is not None and not known:
        raise UsageError(
            "expected --lr with --momentum, found none in the file: it names no SGD with a constant rate", fix="add --lr"
        )
    if not known:
        return None
    used = recipe.get("momentum") if momentum is None else momentum
    return {"lr": recipe["lr"], "momentum": used or 0.0, "weight_decay": recipe.get("weight_decay") or 0.0}
