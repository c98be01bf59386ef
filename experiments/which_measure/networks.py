"""The networks of the study: trained, moved along their symmetries, and measured before and after."""

import math
from dataclasses import replace

import torch

import landscape as ls
from experiments.common.networks import DIGITS, images
from experiments.common.options import Options
from experiments.common.work import Item, Place
from landscape.measures import MEASURES, measure_all
from landscape.reparam import move
from landscape.results import Evaluation
from landscape.tasks import Recipe

# The usual measures, and at least one of every other family. On perceptrons, which have no pairs, the row-wise trace and
# lambda_max are the adaptive ones.
NAMES = [m.name for m in MEASURES.values() if m.default and not m.name.startswith("row_")]
NAMES += [
    "keskar_relative", "sam", "asam", "adaptive_average_l2", "first_order_adaptive_linf", "layer_relative_trace",
    "relative_flatness", "pac_bayes", "pac_bayes_magnitude", "gauss_newton_trace", "fisher_rao", "path_norm",
    "frobenius_product", "spectral_product", "input_margin", "critical_sample_ratio", "output_curvature",
]  # fmt: skip
# Training samples on which a network is measured. Keskar's measures take a minute on the 400,000 weights for images.
MEASURED = {"digits": 500, "cifar10": 200}
LEFT_OUT = {"digits": (), "cifar10": ("keskar", "keskar_relative", "keskar_subspace")}
ALPHA, FAMILIES = 10.0, ("layer", "node")
LABELS = ("clean", "labels 20%", "labels 40%", "labels 60%", "labels 80%", "random labels")
FEWER = ("clean", "labels 40%", "random labels")


def planned(given: Options) -> list[Item]:
    """All networks: every condition, batch size, learning rate and seed."""
    grids = [("digits", DIGITS, LABELS, (32, 256), (0.02, 0.05))]
    if given.data:
        grids.append(("cifar10", images("mlp", given), FEWER, (32, 256), (1e-3,)))
    return [
        {
            "data": data, "labels": labels, "batch_size": batch, "lr": lr, "seed": seed,
            "measures": [name for name in NAMES if name not in LEFT_OUT[data]], "samples": MEASURED[data],
            "alpha": ALPHA, "families": list(FAMILIES),
            # A large batch takes more epochs of fewer steps: as many evaluations.
            "recipe": replace(_labelled(base, labels), batch_size=batch, lr=lr, seed=seed, epochs=5000,
                              evaluate_every=1 if batch == 32 else 5).to_json(),
        }
        for data, base, conditions, batches, rates in grids
        for labels in conditions for batch in batches for lr in rates for seed in given.seeds
    ]  # fmt: skip


def _labelled(recipe: Recipe, labels: str) -> Recipe:
    """The recipe with the labels of a condition."""
    if labels.startswith("labels"):
        return replace(recipe, corruption="labels", corruption_level=int(labels[7:-1]) / 100)
    return replace(recipe, corruption=labels.replace(" ", "-"))


def one(item: Item, place: Place) -> Item:
    """Train a network and measure it as trained and moved."""
    recipe = Recipe(**item["recipe"])
    task = place.task(recipe)
    found = {name: task.objective(name).evaluate() for name in ("train", "test")}
    x, y = task.data("train", item["samples"])
    random = torch.Generator().manual_seed(item["seed"])
    symmetries = ls.find_symmetries(task.model, x[:2])
    other = move(task.model, symmetries, tuple(item["families"]), alpha=item["alpha"], example=x, generator=random)
    with torch.no_grad():
        before, after = task.model.eval()(x), other.eval()(x)
    result: Item = {
        "train_loss": found["train"].loss.value,
        "train_accuracy": _accuracy(found["train"]),
        "test_accuracy": _accuracy(found["test"]),
        "outputs_change": float((after - before).abs().max() / before.abs().max()),
    }
    for kind, network in (("trained", task.model), ("moved", other)):
        measured = measure_all(ls.Objective(network, task.loss, (x, y)), item["measures"], seed=item["seed"])
        estimates = {name: m.estimate for name, m in measured.items()}
        result[kind] = {name: e.value if math.isfinite(e.value) else None for name, e in estimates.items()}
        result[f"{kind}_unconverged"] = [name for name, e in estimates.items() if not e.converged]
    return result


def _accuracy(found: Evaluation) -> float:
    """The accuracy, which classifiers have."""
    assert found.accuracy is not None
    return found.accuracy.value
