"""The named training runs of `landscape train`, and the four of the demo."""

from dataclasses import dataclass, fields, replace
from typing import Any

from landscape.errors import UsageError
from landscape.tasks.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingTask:
    """A named default recipe.

    Attributes:
        name: the name in `landscape train NAME`.
        description: one line.
        recipe: the default settings, which `customise` can change.
    """

    name: str
    description: str
    recipe: Recipe


def _table(*rows: TrainingTask) -> dict[str, TrainingTask]:
    return {row.name: row for row in rows}


TRAINING_TASKS = _table(
    TrainingTask(
        "digits-mlp",
        "64-128-64-10 perceptron on scikit-learn's digits; seconds on a CPU",
        Recipe(network="mlp", data="digits", batch_size=16, lr=0.05, epochs=1000, stop_loss=0.01),
    ),
    TrainingTask(
        "digits-cnn",
        "small convolutional network with BatchNorm on the digits; seconds on a CPU",
        Recipe(network="digits-cnn", data="digits", batch_size=32, lr=0.05, epochs=500, stop_loss=0.01),
    ),
    TrainingTask(
        "cifar-resnet20",
        "ResNet-20 on CIFAR-10 (He et al. 2015), SGD with momentum, augmentation, cosine schedule; for a GPU",
        Recipe(
            network="resnet20",
            data="cifar10",
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            weight_decay=1e-4,
            augment=True,
            epochs=160,
            schedule="cosine",
        ),
    ),
    TrainingTask(
        "cifar-vgg9",
        "VGG-9 on CIFAR-10 (Li et al. 2018), SGD with momentum, no augmentation, cosine schedule; for a GPU",
        Recipe(
            network="vgg9",
            data="cifar10",
            batch_size=128,
            lr=0.05,
            momentum=0.9,
            weight_decay=5e-4,
            epochs=100,
            schedule="cosine",
        ),
    ),
    TrainingTask(
        "cifar-c1",
        "network like Keskar's C1 on CIFAR-10, Adam, batch 256, until the training loss is 0.01; for a GPU",
        Recipe(network="c1", data="cifar10", batch_size=256, optimizer="adam", lr=1e-3, epochs=200, stop_loss=0.01),
    ),
)

# The demo: one network, trained in four ways to the same loss (0.01, as is common when minima are compared).
DEMO_RECIPES: dict[str, Recipe] = {
    "small-batch": Recipe(batch_size=16, lr=0.1, epochs=1000, stop_loss=0.01),
    "large-batch": Recipe(batch_size="full", lr=0.2, epochs=20_000, stop_loss=0.01, evaluate_every=10),
    "corrupted-40": Recipe(corruption="labels", corruption_level=0.4, batch_size=32, lr=0.05, epochs=2000, stop_loss=0.01),
    "random-labels": Recipe(corruption="random-labels", batch_size=32, lr=0.05, epochs=2000, stop_loss=0.01),
}


def customise(name: str, **changes: Any) -> Recipe:
    """The recipe of a named task with some fields changed.

    As in Zhang et al., corrupted data are not augmented unless `augment` is given.

    Args:
        name: one of `TRAINING_TASKS`.
        changes: fields of `Recipe`; None keeps the task's value. `network_options` are added to the task's.

    Raises:
        UsageError: an unknown task or field, or a value out of range.

    Example:
        >>> customise("cifar-resnet20", corruption="random-labels").augment
        False
    """
    task = TRAINING_TASKS.get(name)
    if task is None:
        raise UsageError(f"expected a training task ({', '.join(TRAINING_TASKS)}), found {name!r}")
    known = {f.name for f in fields(Recipe)}
    odd = sorted(set(changes) - known)
    if odd:
        raise UsageError(f"expected fields of a recipe ({', '.join(sorted(known))}), found {odd[0]!r}")
    given = {key: value for key, value in changes.items() if value is not None}
    if given.get("corruption", "clean") != "clean" and "augment" not in given:
        given["augment"] = False
    if "network_options" in given:
        given["network_options"] = {**task.recipe.network_options, **given["network_options"]}
    return replace(task.recipe, **given)
