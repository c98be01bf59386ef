"""The networks of the studies and how they are trained, at the sizes of the command line."""

from dataclasses import replace
from typing import Any

from experiments.common.options import Options
from landscape.tasks import Recipe

# All runs of a study stop at one training loss, so that their minima are compared at a matched loss.
STOP = 0.01
DIGITS = Recipe(network="mlp", data="digits", batch_size=32, lr=0.02, momentum=0.9, epochs=1000, stop_loss=STOP)


def images(network: str, options: Options, **changes: Any) -> Recipe:
    """The recipe of a network on the CIFAR-10 images.

    Args:
        network: "mlp" (two hidden layers of 16 x width units), "c1" (Keskar's C1 without dropout), or "resnet8", "resnet14",
            "resnet20".
        options: of the command line: samples and width.
        changes: fields of the recipe.
    """
    common = Recipe(
        data="cifar10", samples=options.samples, batch_size=32, optimizer="adam", lr=1e-3, epochs=400, stop_loss=STOP
    )
    if network == "mlp":
        recipe = replace(common, network="mlp", network_options={"widths": [16 * options.width] * 2})
    elif network == "c1":
        recipe = replace(common, network="c1", network_options={"width": options.width}, dropout=0.0)
    else:
        blocks = (int(network.removeprefix("resnet")) - 2) // 6
        recipe = replace(common, network="resnet20", network_options={"width": options.width, "blocks": blocks}, lr=2e-3)
    return replace(recipe, **changes)


def corrupted(recipe: Recipe, condition: str) -> Recipe:
    """The recipe with the data of a condition: "clean", "labels 40%", "random labels", "shuffled pixels"..."""
    if condition.startswith("labels"):
        return replace(recipe, corruption="labels", corruption_level=int(condition[7:-1]) / 100)
    return replace(recipe, corruption=condition.replace(" ", "-"))
