"""Options that every command takes, and those that name a network and its data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

_OUTPUT = "Output"
_NAMING = "Which model, which data"


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.", rich_help_panel=_OUTPUT)
    ] = False
    out: Annotated[Path | None, typer.Option("--out", help="Where to write files.", rich_help_panel=_OUTPUT)] = None
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of every random number.")] = 0
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto: cuda where there is one.")] = "auto"
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or float64.")] = "float32"
    samples: Annotated[int | None, typer.Option("--samples", help="Use the first N samples of the split; default all.")] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Samples a pass takes at once; results do not depend on it.")
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Most that derivatives may take in a process, beside Python itself: 8GiB; default 0.8 of what is free.",
        ),
    ] = None
    allow_unconverged: Annotated[
        bool, typer.Option("--allow-unconverged", help="Exit 0 even if a number did not converge.", rich_help_panel=_OUTPUT)
    ] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_OUTPUT)] = False


CLEAN = Annotated[
    bool,
    typer.Option(
        "--clean", help="Figures for a paper: without title and caption. Numbers and exports stay as they are.",
        rich_help_panel=_OUTPUT,
    ),
]  # fmt: skip
SHARD_BASIS = Annotated[
    bool, typer.Option("--shard-basis", help="Under torchrun: each process holds its share of the Krylov basis.")
]


@dataclass(frozen=True)
class Naming:
    """The options that say which model and data a checkpoint belongs to; not needed for one that `landscape train` wrote."""

    task: Annotated[
        str | None,
        typer.Option("--task", help="task.py or task.py:name, a function that returns a Task.", rich_help_panel=_NAMING),
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", help="A network by name: torchvision:resnet18, resnet20, mlp, ...", rich_help_panel=_NAMING),
    ] = None
    model_args: Annotated[
        list[str] | None,
        typer.Option(
            "-M", metavar="KEY=VALUE", help="An argument of the model, e.g. -M num_classes=10.", rich_help_panel=_NAMING
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option("--data", help="digits, cifar10:PATH, imagefolder:PATH or safetensors:PATH.", rich_help_panel=_NAMING),
    ] = None
    weights: Annotated[
        str | None, typer.Option("--weights", help="Which weights, where the file holds several.", rich_help_panel=_NAMING)
    ] = None
    split: Annotated[str, typer.Option("--split", help="train or test.", rich_help_panel=_NAMING)] = "train"
