"""The watched runs of the study: traces of layers through training, and when wrong labels were fitted."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import landscape as ls
from experiments.common.networks import corrupted
from experiments.common.options import Options
from experiments.common.work import Item, Place
from landscape.tasks import Recipe, train
from landscape.tasks.seeds import stream

LEVELS = ("labels 20%", "labels 40%", "labels 80%")
# Runs for each seed of the command line: clean ones that set the threshold, clean ones on which it is judged, noisy ones.
CHOSEN, JUDGED, NOISY, OUTSIDE = 8, 24, 4, {"clean": 1, "labels 40%": 1}
PROBE = 512  # first training samples, on which the traces are measured

DIGITS = Recipe(network="mlp", data="digits", epochs=600, stop_loss=0.01)
WIDTHS = ((64, 32), (128, 64), (256, 128))
# Learning rates are drawn between these, evenly on a log scale.
OPTIMIZERS: dict[str, tuple[dict[str, Any], float, float]] = {
    "sgd": ({"optimizer": "sgd"}, 0.05, 0.2),
    "momentum": ({"optimizer": "sgd", "momentum": 0.9}, 0.01, 0.04),
    "adam": ({"optimizer": "adam"}, 5e-4, 2e-3),
}
BATCHES = (16, 32, 64, 128)
EVERY = (1, 2, 4)  # epochs between checks

# Settings that are not among those of the calibration, changes of DIGITS; each clean and with 40 % of labels redrawn.
_SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "batch_size": 64}
ELSEWHERE: dict[str, dict[str, Any]] = {
    "one hidden layer": _SGD | {"network_options": {"widths": [256]}},
    "four hidden layers": _SGD | {"network_options": {"widths": [96, 96, 96, 96]}},
    "convolutions, BatchNorm": _SGD | {"network": "digits-cnn", "epochs": 40},
    "300 samples": _SGD | {"samples": 300},
    "weight decay 1e-3": _SGD | {"weight_decay": 1e-3, "epochs": 200},
    "large learning rate": _SGD | {"lr": 0.4},
    "full-batch descent": {"optimizer": "sgd", "lr": 0.2, "batch_size": "full", "epochs": 3000, "stop_loss": 0.05},
}


def planned(given: Options) -> list[Item]:
    """All runs of the study."""
    items: list[Item] = []
    first, count = given.seeds[0], len(given.seeds)

    def add(part: str, condition: str, number: int, recipe: Recipe, every: int) -> None:
        own = replace(corrupted(recipe, condition), seed=number, evaluate_every=every)
        if condition != "clean":
            own = replace(own, stop_loss=0.2)  # after half of the wrong labels are fitted
        items.append({"part": part, "condition": condition, "number": number, "every": every, "recipe": own.to_json()})

    for part, condition, runs, offset in (
        ("chosen", "clean", CHOSEN, 0),
        ("judged", "clean", JUDGED, 10_000),
        *(("noisy", level, NOISY, 20_000 + 1000 * i) for i, level in enumerate(LEVELS)),
    ):
        for number in range(first * runs, (first + count) * runs):
            add(part, condition, offset + number, *drawn(offset + number))
    for i, (part, changes) in enumerate(ELSEWHERE.items()):
        every = 20 if part == "full-batch descent" else 2
        for condition, each in OUTSIDE.items():
            for number in range(first * each, (first + count) * each):
                add(part, condition, 30_000 + 1000 * i + number, replace(DIGITS, **changes), every)
    return items


def drawn(number: int) -> tuple[Recipe, int]:
    """A recipe and the epochs between checks, drawn by the number of the run."""
    random = stream(number, "alarm")

    def pick(choices: Sequence[Any]) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=random))]

    changes, low, high = OPTIMIZERS[pick(list(OPTIMIZERS))]
    lr = round(low * (high / low) ** float(torch.rand((), generator=random)), 5)
    options = {"widths": list(pick(WIDTHS))}
    return replace(DIGITS, **changes, lr=lr, network_options=options, batch_size=pick(BATCHES)), pick(EVERY)


def one(item: Item, place: Place) -> Item:
    """Train one network and watch it; the weights are not kept."""
    recipe = Recipe(**item["recipe"])
    watches: list[ls.Watch] = []

    def watched(trainer: Any, done: int) -> None:
        if not watches:
            steps = -(-len(trainer.y) // recipe.batch(len(trainer.y)))
            probe = trainer.x[:PROBE], trainer.y[:PROBE]
            every = item["every"] * steps
            watches.append(ls.Watch(trainer.model, nn.CrossEntropyLoss(), probe, every=every, measures=["layer_traces"]))
        watches[0](done)

    with tempfile.TemporaryDirectory() as folder:
        record = train(recipe, out=Path(folder) / "run.safetensors", device=place.device, each_step=watched).record
    history, evaluated = watches[0].history, {e["epoch"]: e for e in record["history"]}
    epochs = [item["every"] * i for i in range(len(history))]
    series = {"epochs": told(epochs), "loss": told(history.losses)}
    for name, key in (("wrong", "wrong_labels_fitted"), ("test", "test_accuracy")):
        series[name] = told([evaluated[e][key] if e in evaluated else None for e in epochs])
    for name in history.names:  # the alarm needs to know of a trace only whether its interval is above zero
        values = history.values(name)
        series[name] = told(np.where(values > np.nan_to_num(history.errors(name)), values, np.nan))
    final = record["final"]
    return {
        "series": series,
        "final": {k: final[k] for k in ("epochs", "train_loss", "test_accuracy", "wrong_labels_fitted")},
    }


def told(values: Iterable[float | None]) -> str:
    """Numbers of four digits as one text, nan for what is not known; a list of them would take a line each."""
    return " ".join("nan" if v is None else f"{v:.4g}" for v in values)


def untold(text: str) -> np.ndarray:
    """Inverse of `told`."""
    return np.array([float(part) for part in text.split()])
