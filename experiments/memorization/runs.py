"""The runs of the study, in three parts, and their table."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments.common.networks import DIGITS, corrupted, images
from experiments.common.options import Options
from experiments.common.statistics import mean
from experiments.common.work import Item, Place
from experiments.memorization.claims import CONDITIONS, DEPTH_LEVELS, DEPTHS, FITTED, REGULARIZERS, RESNETS
from landscape import checkpoints
from landscape.tasks import Recipe

# With a regularizer the training loss may never come down to 0.01; then the run ends here, at a learning rate of 0, for the
# accuracy of a network that is trained on with noise depends on the epoch at which one looks.
REGULARIZED_EPOCHS = {"mlp": 1500, "c1": 400}


def regularized(recipe: Recipe, kind: str) -> Recipe | None:
    """The recipe with a regularizer of usual strength; None where the network or its images do not have it."""
    if kind == "none":
        return recipe
    recipe = replace(recipe, epochs=REGULARIZED_EPOCHS[recipe.network], schedule="cosine")
    plain = recipe.network == "mlp"
    if kind == "BatchNorm":
        # In small batches it is too noisy for random labels to be fitted.
        normalized = replace(recipe, network_options={**recipe.network_options, "batchnorm": True}, batch_size=128)
        return normalized if plain else None
    if kind == "augmentation":
        return None if plain else replace(recipe, augment=True)
    changes: dict[str, dict[str, Any]] = {"weight decay": {"weight_decay": 5e-4}, "dropout": {"dropout": 0.2}}
    return replace(recipe, **changes[kind])


def planned(given: Options) -> list[Item]:
    """All runs of the study."""
    # Convolutional networks take most of the time, and have half of the images.
    half = replace(given, samples=max(given.samples // 2, 10))
    bases = {("digits", "mlp"): DIGITS}
    if given.data:
        bases |= {("cifar10", "mlp"): images("mlp", given), ("cifar10", "c1"): images("c1", half)}
    items: list[Item] = []

    def add(part: str, data: str, network: str, recipe: Recipe, **kind: Any) -> None:
        items.extend(
            {"part": part, "data": data, "network": network, **kind, "seed": s, "recipe": replace(recipe, seed=s).to_json()}
            for s in given.seeds
        )

    for (data, network), recipe in bases.items():
        for condition in CONDITIONS:
            add("fit", data, network, corrupted(recipe, condition), condition=condition)
        for kind in REGULARIZERS:
            for condition in ("clean", "random labels"):
                changed = regularized(corrupted(recipe, condition), kind)
                if changed is not None:
                    add("regularizers", data, network, changed, regularizer=kind, condition=condition)
        if network == "mlp":
            width = dict(recipe.network_options).get("widths", [128])[0]
            for depth in DEPTHS:
                deep = replace(recipe, network_options={"widths": [width] * depth})
                for level in DEPTH_LEVELS if data == "digits" else (0.4,):
                    add("depth", data, "mlp", corrupted(deep, f"labels {level:.0%}"), depth=depth, level=level)
    if given.data:
        for layers in RESNETS:
            recipe = corrupted(images(f"resnet{layers}", half), "labels 40%")
            add("depth", "cifar10", "resnet", recipe, depth=layers, level=0.4)
    return items


def one(item: Item, place: Place) -> Item:
    """Train a run; when it fitted its training set, and how it ended."""
    record = checkpoints.read(place.trained(Recipe(**item["recipe"]))).recipe or {}
    history, final = record["history"], record["final"]
    reached = [h["epoch"] for h in history if h["train_accuracy"] >= FITTED]
    return {
        "epochs_to_fit": reached[0] if reached else None,
        "epochs": final["epochs"],
        "train_accuracy": final["train_accuracy"],
        "train_loss": final["train_loss"],
        "best_train_accuracy": max(h["train_accuracy"] for h in history),
        "test_accuracy": final["test_accuracy"],
        "best_test_accuracy": max(h["test_accuracy"] for h in history),
        "wrong_labels_fitted": final["wrong_labels_fitted"],
        "stopped": final["stopped"],
    }


def table(runs: Sequence[Item]) -> list[Item]:
    """One row for every kind of run: means over seeds with intervals."""
    keys = ("part", "data", "network", "condition", "regularizer", "depth", "level")
    kinds: dict[tuple[Any, ...], list[Item]] = {}
    for run in runs:
        kinds.setdefault(tuple(run["item"].get(k) for k in keys), []).append(run)
    rows = []
    for kind, group in kinds.items():
        row = {k: v for k, v in zip(keys, kind, strict=True) if v is not None}
        for name in ("epochs_to_fit", "train_accuracy", "test_accuracy", "best_test_accuracy", "wrong_labels_fitted"):
            values = [run[name] for run in group if run[name] is not None]
            row[name] = mean(values).to_json() if len(values) == len(group) else None
        rows.append(row | {"seeds": len(group), "fitted": sum(run["best_train_accuracy"] >= FITTED for run in group)})
    return rows
