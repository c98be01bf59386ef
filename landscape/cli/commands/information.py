"""`landscape information`: mutual information of a network's layers with its inputs and its labels."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import CLEAN, Common, Naming, listed_names
from landscape.cli.terminal import Terminal

NAME = "information"


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Naming,
    estimators: Annotated[
        str, typer.Option("--estimator", help="Names separated by commas: binned, kde (two bounds), knn.")
    ] = "binned,kde,knn",
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Names or shell patterns separated by commas, e.g. 'relu*,output'. Default: nonlinearities, output.",
        ),
    ] = None,
    bins: Annotated[int, typer.Option("--bins", min=2, help="binned: bins over each layer's range of activations.")] = 30,
    noise: Annotated[
        float, typer.Option("--noise", help="kde, knn: variance of the Gaussian noise added to every unit.")
    ] = 1e-3,
    neighbours: Annotated[int, typer.Option("--neighbours", min=1, help="knn: k, the neighbour whose distance counts.")] = 1,
    copies: Annotated[int, typer.Option("--copies", min=2, help="knn: noisy copies of every sample, more than k.")] = 8,
    clean: CLEAN = False,
) -> None:
    """How much a layer's activations tell about the input and the label, in bits, by three kinds of estimators.

    With --out it also writes the numbers and a picture.

    Example: landscape information runs/model.safetensors --split test --layers 'relu*' --out information
    """
    from dataclasses import replace

    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import centre_line, objective_of, open_task, seeded, task_file
    from landscape.information_plane import information
    from landscape.measures import provenance
    from landscape.report import figure_information, save

    task = open_task(checkpoint, naming, terminal)
    objective = objective_of(task, common, naming.split)
    names, asked = listed_names("--estimator", estimators), None if layers is None else listed_names("--layers", layers)
    inputs = provenance(objective, common.seed) | task_file(naming) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples, "estimators": names,
        "layers": asked, "bins": bins, "noise": noise, "neighbours": neighbours, "copies": copies,
    }  # fmt: skip
    folder = None if common.out is None else OutputDirectory(common.out, inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)
    found = information(
        objective, layers=asked, estimators=names, bins=bins, noise=noise, neighbours=neighbours, copies=copies,
        generator=seeded(common.seed),
    )  # fmt: skip
    found = replace(found, provenance=inputs)
    terminal.table(found.HEAD, [row.row() for row in found.rows])
    for line in found.notes():
        terminal.line(line)
    document = {"schema": 1, "checkpoint": str(checkpoint), "sha256": task.sha256, "task": task.name} | found.to_json()
    if folder is not None:
        title = f"Mutual information of layers, {checkpoint.name}"
        made_from = inputs | {"checkpoint": checkpoint.name, "task": task.name}
        figure = figure_information(found, title=title, provenance=made_from, caption=not clean)
        folder.written += save(figure, folder.path / "information")
        folder.json("information.json", document)
    terminal.document(document)
    if folder is not None:
        terminal.written(folder.written)
