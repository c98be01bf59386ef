"""The runs of the study, and what is read off their weights along training."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import landscape as ls
from experiments.common.networks import DIGITS, corrupted, images
from experiments.common.options import Options
from experiments.common.work import Item, Place
from landscape.checkpoints import CheckpointFiles
from landscape.tasks import Recipe, Task

LEVELS = (0.2, 0.4, 0.6, 0.8)
CONDITIONS = ("clean", *(f"labels {p:.0%}" for p in LEVELS), "random labels", "gaussian")
DESCENTS = ("clean", "labels 40%")
# Critical samples are searched among the first training samples. Curvature of the digits is that of the whole training loss; of
# the images, whose network is 25 times larger, it is that of these samples.
SIZES = {"digits": {"samples": 500, "points": 10, "probes": 8}, "cifar10": {"samples": 250, "points": 7, "probes": 8}}
DESCENT = {"points": 30}
# Epochs, evenly spaced on a log scale, at which accuracies and the loss sensitivity are read.
READ = 60
# Half-width of the box around a sample, on the scale of 0 to 255; the steps of the search keep their ratio to it.
RADIUS = 3.0


def planned(given: Options) -> list[Item]:
    """All runs of the study."""
    # Plain steps without momentum, so that 2 / lr is the edge of stability.
    digits = replace(DIGITS, batch_size=128, lr=0.2, momentum=None, epochs=3000)
    bases = {"digits": digits}
    if given.data:
        bases["cifar10"] = images("mlp", given)
    items: list[Item] = []

    def add(kind: str, data: str, condition: str, recipe: Recipe, keep_every: int) -> None:
        for seed in given.seeds:
            own = replace(corrupted(recipe, condition), seed=seed).to_json()
            items.append(
                {"kind": kind, "data": data, "condition": condition, "seed": seed, "keep_every": keep_every, "recipe": own}
                | (DESCENT if kind == "descent" else {**SIZES[data], "radius": RADIUS})
            )

    for data, recipe in bases.items():
        for condition in CONDITIONS:
            add("stochastic", data, condition, recipe, 1)
    for condition in DESCENTS:
        add("descent", "digits", condition, replace(digits, batch_size="full"), 10)
    return items


def one(item: Item, place: Place) -> Item:
    """Train a run with all weights along the way, and read them; the weights are not kept."""
    with tempfile.TemporaryDirectory() as folder:
        own = replace(place, runs=Path(folder))
        path = own.trained(Recipe(**item["recipe"]), keep_every=item["keep_every"])
        task = own.task(Recipe(**item["recipe"]), keep_every=item["keep_every"])
        kept = CheckpointFiles(path.with_name(f"{path.stem}-trajectory"), task.model)
        epochs = [int(name.removeprefix("epoch-")) for name in kept.names]
        found = descent(item, task, kept, epochs) if item["kind"] == "descent" else along(item, task, kept, epochs)
    final = (task.recipe or {})["final"]
    return found | {"final": {k: final[k] for k in ("epochs", "train_loss", "train_accuracy", "test_accuracy", "stopped")}}


def descent(item: Item, task: Task, kept: Sequence[torch.Tensor], epochs: Sequence[int]) -> Item:
    """lambda_max of the whole training loss at evenly spaced epochs of gradient descent."""
    objective = task.objective()
    objective.preflight()
    chosen = sorted({round(i) for i in np.linspace(0, len(epochs) - 1, item["points"])})
    there = [objective.at(kept[i]) for i in chosen]
    return {
        "epochs": [epochs[i] for i in chosen],
        "loss": [o.value().value for o in there],
        "lambda_max": [float(ls.eigenpairs(o, 1).values[0]) for o in there],
        "edge": 2 / item["recipe"]["lr"],
    }


def along(item: Item, task: Task, kept: Sequence[torch.Tensor], epochs: Sequence[int]) -> Item:
    """Accuracies and loss sensitivity at log-spaced epochs, critical samples and curvature at fewer of them."""
    objective, test = task.objective(), task.objective("test")
    wrong, targets = task.extras["wrong_labels"], torch.cat([y for _, _, y in test.by_input()])
    half = torch.arange(len(targets)) % 2 == 0
    total, curves, before = torch.zeros(objective.samples, dtype=torch.float64), [], 0
    read = [0, *spaced(epochs[-1], READ)]
    for epoch in read:
        theta = kept[epochs.index(epoch)]
        fitted, sensitivity = samples_of(objective.at(theta))
        right = (test.at(theta).outputs().argmax(1) == targets).double()
        # The mean over all epochs: each one read stands for those since the one before.
        total += sensitivity * (epoch - before)
        before = epoch
        curves.append(
            {
                "epoch": epoch,
                "right": float(fitted[~wrong].double().mean()),
                "wrong": float(fitted[wrong].double().mean()) if wrong.any() else None,
                "test": [float(right[part].mean()) for part in (half, ~half)],
                "sensitivity": float(sensitivity.mean()),
                "gini": gini(total.numpy()) if epoch else None,
            }
        )
    marked = spaced(epochs[-1], item["points"])
    measured = [curvature(item, objective, test, kept[epochs.index(e)]) | {"epoch": e} for e in marked]
    return {
        **{f"half_{part}": crossing(read, [c[part] for c in curves], 0.5) for part in ("right", "wrong")},
        **peak(read, [c["test"] for c in curves]),
        "gini": curves[-1]["gini"],
        "curves": [c | {"test": float(np.mean(c["test"]))} for c in curves[:1] + curves[1::2]],
        "measured": measured,
    }


def samples_of(objective: ls.Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each sample's label is predicted, and the sensitivity of its loss to its input, ||d loss / d x||_1."""
    fitted, slopes = [], []
    for network, x, y in objective.by_input():
        here = x.detach().requires_grad_()
        output = network(here)
        (slope,) = torch.autograd.grad(F.cross_entropy(output, y, reduction="sum"), here)
        fitted.append(output.detach().argmax(1) == y)
        slopes.append(slope.flatten(1).double().abs().sum(1))
    return torch.cat(fitted), torch.cat(slopes)


def curvature(item: Item, objective: ls.Objective, test: ls.Objective, theta: torch.Tensor) -> Item:
    """Critical sample ratio of the first samples, lambda_max, and the trace of every layer's block of the Hessian."""
    here = objective.at(theta)
    few = here.subset(min(item["samples"], here.samples))
    # The range of the test images, which no condition changes, is what corresponds to 255.
    inputs = torch.cat([x for _, x, _ in test.by_input()])
    critical = ls.MEASURES["critical_sample_ratio"].function(
        few,
        radius=item["radius"],
        alpha=item["radius"] * 0.25 / 0.3,
        beta=item["radius"] * 0.2 / 0.3,
        span=float(inputs.max() - inputs.min()),
    )
    some = few if item["data"] == "cifar10" else here
    return {
        "loss": here.value().value,
        "csr": critical.value,
        "lambda_max": float(ls.eigenpairs(some, 1).values[0]),
        "traces": {
            layer: ls.trace(some.only(*(e.name for e in entries)), probes=item["probes"]).value
            for layer, entries in some.layout.layers.items()
        },
    }


def gini(values: Sequence[float] | np.ndarray) -> float:
    """Gini coefficient of non-negative numbers: sum_ij |x_i - x_j| / (2 n^2 mean); 0 if equal, 1 - 1/n if one has all."""
    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    return float(np.sum((2 * np.arange(1, n + 1) - n - 1) * x) / (n * x.sum()))


def spaced(last: int, count: int) -> list[int]:
    """At most `count` epochs from 1 to `last`, evenly spaced on a log scale."""
    return sorted({int(e) for e in np.geomspace(1, last, count).round()})


def crossing(epochs: Sequence[float], values: Sequence[float | None], level: float) -> float | None:
    """When `values` first reach `level`, linearly between epochs; None if they do not, or there are none."""
    for i, value in enumerate(values):
        if value is not None and value >= level:
            if i == 0:
                return float(epochs[0])
            before = values[i - 1] or 0.0
            return float(epochs[i - 1] + (level - before) / (value - before) * (epochs[i] - epochs[i - 1]))
    return None


def peak(epochs: Sequence[int], halves: Sequence[Sequence[float]]) -> dict[str, Any]:
    """When the test accuracy is highest, and by how much it is above the last one.

    The epoch is chosen on one half of the test set and the accuracy there read off the other half, both ways, since the
    highest of many noisy numbers is above the last one even if nothing falls.
    """
    tests = np.array(halves)
    best = tests.argmax(0)
    above = [tests[best[0], 1] - tests[-1, 1], tests[best[1], 0] - tests[-1, 0]]
    return {
        "peak_epoch": float(epochs[int(tests.mean(1).argmax())]),
        "peak_above_final": float(np.mean(above)),
    }
