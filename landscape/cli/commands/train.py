"""`landscape train`: the built-in training runs, clean or memorizing, into a self-describing checkpoint."""

from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError

NAME = "train"


def run(
    terminal: Terminal,
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="digits-mlp, digits-cnn, cifar-resnet20, cifar-vgg9 or cifar-c1.")
    ],
    common: Common,
    data: Annotated[
        str | None, typer.Option("--data", help="cifar10:PATH, imagefolder:PATH or safetensors:PATH; digits need none.")
    ] = None,
    corruption: Annotated[
        str | None,
        typer.Option("--corruption", help="labels (with --level), random-labels, shuffled-pixels, random-pixels, gaussian."),
    ] = None,
    level: Annotated[
        float | None, typer.Option("--level", help="With --corruption labels: probability that a label is drawn anew.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="Samples a step: a number, a fraction such as 0.1, or full. --batch-size does the same."),
    ] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="sgd or adam.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option("--momentum", help="Of SGD; beta_1 of Adam.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="Added to the gradient as a multiple of each weight.")
    ] = None,
    dropout: Annotated[float | None, typer.Option("--dropout", help="Probability, where the network has dropout.")] = None,
    augment: Annotated[bool | None, typer.Option("--augment/--no-augment", help="Random crops and flips.")] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", help="none or cosine.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="At most this many passes over the data.")] = None,
    stop_loss: Annotated[
        float | None, typer.Option("--stop-loss", help="Stop at this loss over the whole training set.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("-M", metavar="KEY=VALUE", help="An option of the network, e.g. -M width=8.")
    ] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(
            "--keep-every",
            min=1,
            metavar="EPOCHS",
            help="Also keep the weights at the start, every so many epochs and at the end, in a folder OUT-trajectory, for"
            " `landscape surface OUT --directions pca:FOLDER`.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--restart", help="Go on where a run that was stopped left off.")] = True,
) -> None:
    """Train a built-in network: clean or memorizing, at any batch size. A run that is killed goes on with the same command.

    Example: landscape train digits-mlp --corruption random-labels --seed 1 --out runs/random-1.safetensors
    """
    from landscape.cli.setup import device_of, model_arguments
    from landscape.tasks import customise, train

    kind, _, path = (data or "").partition(":")
    recipe = customise(
        task,
        data=kind or None,
        corruption=corruption,
        corruption_level=level,
        batch_size=_batch(batch, common.batch_size),
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        dropout=dropout,
        augment=augment,
        schedule=schedule,
        epochs=epochs,
        stop_loss=stop_loss,
        network_options=model_arguments(option) or None,
        seed=common.seed,
        dtype=common.dtype,
    )
    out = common.out or Path("runs") / f"{task}-{recipe.corruption}-{common.seed}.safetensors"
    result = train(
        recipe,
        out=out,
        resume=resume,
        data_path=data if path else None,
        device=device_of(common.device),
        samples=common.samples,
        keep_every=keep_every,
    )
    summary = result.summary()
    terminal.table(("", task), [(name, _shown(value)) for name, value in summary.items()])
    kept = None if result.trajectory is None else str(result.trajectory)
    terminal.document({"schema": 1, "checkpoint": str(result.path), "trajectory": kept, **summary})
    terminal.written([result.path] if result.trajectory is None else [result.path, result.trajectory])


def _batch(text: str | None, size: int | None) -> int | float | str | None:
    """The batch size that `--batch` or `--batch-size` asks for."""
    if text is not None and size is not None:
        raise UsageError("expected --batch or --batch-size, found both", fix="leave one of them out")
    if text is None or text == "full":
        return text or size
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise UsageError(f"expected --batch as a number, a fraction or full, found {text!r}") from None


def _shown(value: Any) -> str:
    """A value as the table shows it."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
