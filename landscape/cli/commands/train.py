"""`landscape train`: train a built-in network on clean or corrupted data, and write a self-describing checkpoint."""

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
        str | None, typer.Option("--data", help="cifar10:PATH, imagefolder:PATH or safetensors:PATH. Not needed for digits.")
    ] = None,
    corruption: Annotated[
        str | None,
        typer.Option("--corruption", help="labels (with --level), random-labels, shuffled-pixels, random-pixels or gaussian."),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option("--level", help="For --corruption labels: probability that a label is replaced by a random one."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", help="Samples per step: a number, a fraction such as 0.1, or full. --batch-size does the same."
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="sgd, adam or sam.")] = None,
    rho: Annotated[
        float | None, typer.Option("--rho", help="With --optimizer sam: radius of the ascent step in weight space [0.05].")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option("--momentum", help="Momentum of SGD and SAM, or beta_1 of Adam.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="L2 coefficient: this times each weight is added to the gradient.")
    ] = None,
    dropout: Annotated[float | None, typer.Option("--dropout", help="Dropout probability, if the network has dropout.")] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option("--label-smoothing", help="Weight of the uniform distribution in the targets, from 0 to less than 1."),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(
            "--mixup", metavar="ALPHA", help="Train on mixtures of two samples, with shares drawn from Beta(ALPHA, ALPHA)."
        ),
    ] = None,
    augment: Annotated[bool | None, typer.Option("--augment/--no-augment", help="Use random crops and flips.")] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", help="Learning rate schedule: none or cosine.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Largest number of epochs.")] = None,
    stop_loss: Annotated[
        float | None,
        typer.Option(
            "--stop-loss",
            help="Stop once the loss on the whole training set, in eval mode and without smoothing and mixing, is this low.",
        ),
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
            help="Also save the weights at the start, every EPOCHS epochs and at the end, in the folder OUT-trajectory, for"
            " `landscape surface OUT --directions pca:FOLDER`.",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Measure sharpness through training: STEM-watch.csv, .json and .png beside the checkpoint."
        ),
    ] = False,
    watch_every: Annotated[
        int | None,
        typer.Option("--watch-every", min=1, metavar="STEPS", help="Steps between two measurements [100]; implies --watch."),
    ] = None,
    watch_measures: Annotated[
        str | None,
        typer.Option(
            "--watch-measures",
            help="Measures separated by commas [lambda_max,trace,layer_traces,critical_sharpness, with Adam also "
            "preconditioned_lambda_max]; implies --watch.",
        ),
    ] = None,
    watch_budget: Annotated[
        float | None,
        typer.Option(
            "--watch-budget",
            metavar="SHARE",
            help="Largest share of the time for measurements, e.g. 0.05: they wait until they fit; implies --watch.",
        ),
    ] = None,
    watch_params: Annotated[
        list[str] | None,
        typer.Option(
            "--watch-params",
            metavar="PATTERN",
            help="Weights whose curvature is measured, as --params of other commands; all are trained. Implies --watch.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--restart", help="Continue an interrupted run, or start again.")] = True,
) -> None:
    """Train a built-in network on clean or corrupted data. After an interruption the same command continues.

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
        rho=rho,
        momentum=momentum,
        weight_decay=weight_decay,
        dropout=dropout,
        label_smoothing=label_smoothing,
        mixup=mixup,
        augment=augment,
        schedule=schedule,
        epochs=epochs,
        stop_loss=stop_loss,
        network_options=model_arguments(option) or None,
        seed=common.seed,
        dtype=common.dtype,
    )
    out = common.out or Path("runs") / f"{task}-{recipe.corruption}-{common.seed}.safetensors"
    watching = None
    if watch or any(asked is not None for asked in (watch_every, watch_measures, watch_budget, watch_params)):
        from landscape.cli.over_training.watched_training import WatchedTraining

        watching = WatchedTraining(watch_every or 100, watch_measures, common.seed, budget=watch_budget, params=watch_params)
    result = train(
        recipe,
        out=out,
        resume=resume,
        data_path=data if path else None,
        device=device_of(common.device),
        samples=common.samples,
        keep_every=keep_every,
        each_step=watching,
    )
    summary = result.summary()
    terminal.table(("", task), [(name, _shown(value)) for name, value in summary.items()])
    kept = None if result.trajectory is None else str(result.trajectory)
    written = [result.path] if result.trajectory is None else [result.path, result.trajectory]
    document = {"schema": 1, "checkpoint": str(result.path), "trajectory": kept, **summary}
    if watching is not None:
        document["watch"] = watching.told(terminal, out, written)
    terminal.document(document)
    terminal.written(written)


def _batch(text: str | None, size: int | None) -> int | float | str | None:
    """The batch size that `--batch` or `--batch-size` gives."""
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
