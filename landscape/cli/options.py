"""Options of every command, and options that name a network and its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from landscape.errors import UsageError

_OUTPUT = "Output"
_NAMING = "Which model, which data"


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.", rich_help_panel=_OUTPUT),
    ] = False
    out: Annotated[Path | None, typer.Option("--out", help="File or folder to write to.", rich_help_panel=_OUTPUT)] = None
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the random numbers.")] = 0
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto: a GPU if there is one.")] = "auto"
    dtype: Annotated[str, typer.Option("--dtype", help="Precision: float32 or float64.")] = "float32"
    samples: Annotated[int | None, typer.Option("--samples", help="Use the first N samples of the split. Default: all.")] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Samples per forward pass. Only a loss of (model, batch) depends on it.")
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory limit for derivatives in each process, e.g. 8GiB. Default: 0.8 of the free memory.",
        ),
    ] = None
    allow_unconverged: Annotated[
        bool, typer.Option("--allow-unconverged", help="Exit 0 even if a number did not converge.", rich_help_panel=_OUTPUT)
    ] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_OUTPUT)] = False


CLEAN = Annotated[
    bool,
    typer.Option(
        "--clean", help="Figures for a paper, without title and caption. Numbers and exports do not change.",
        rich_help_panel=_OUTPUT,
    ),
]  # fmt: skip
SHARD_BASIS = Annotated[
    bool, typer.Option("--shard-basis", help="Under torchrun: divide the Krylov basis among the processes.")
]


@dataclass(frozen=True)
class Naming:
    """The options that name a checkpoint's model and data; not needed for a checkpoint that `landscape train` wrote."""

    task: Annotated[
        str | None,
        typer.Option("--task", help="task.py or task.py:name: a function that returns a Task.", rich_help_panel=_NAMING),
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
        typer.Option(
            "--data", help="digits, cifar10:PATH, imagefolder:PATH, safetensors:PATH or text:PATH.", rich_help_panel=_NAMING
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="Name of the weights, if the file holds several sets.", rich_help_panel=_NAMING),
    ] = None
    split: Annotated[str, typer.Option("--split", help="Data to use: train or test.", rich_help_panel=_NAMING)] = "train"


@dataclass(frozen=True)
class Varying(Naming):
    """`Naming`, and the weights that vary; for every command that computes curvature or moves weights."""

    params: Annotated[
        list[str] | None,
        typer.Option(
            "--params",
            metavar="PATTERN",
            help="Weights that vary, by name: 'layer4.*', '!*.bias' leaves out, lora for adapters. Repeat for several. "
            "Default: those with requires_grad.",
            rich_help_panel=_NAMING,
        ),
    ] = None


def listed_names(option: str, text: str) -> list[str]:
    """The names of an option that are separated by commas.

    Raises:
        UsageError: there is no name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"expected names with {option}, found {text!r}", fix=f"leave {option} out for the usual ones")
    return names


def require(given: Mapping[str, object], other: str, there: bool) -> None:
    """Check that options which belong to another one come with it.

    Raises:
        UsageError: one of `given`, option -> value, has a value although `other` is not there.
    """
    for option, value in given.items():
        if value and not there:
            raise UsageError(f"expected {option} together with {other}, found it alone", fix=f"add {other}, or leave it out")
