"""What a recipe and its data determine about a built-in network: its options, and the number format of its weights."""

import math
from typing import Any

import torch

from landscape.errors import UsageError
from landscape.network.forward_checks import channels_first
from landscape.tasks import networks
from landscape.tasks.data.dataset import DataSet
from landscape.tasks.training.recipe import Recipe

WEIGHT_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


def options_for(recipe: Recipe, data: DataSet) -> dict[str, Any]:
    """All options of the recipe's network: those that follow from the data, and the recipe's."""
    options: dict[str, Any] = network_options(recipe.network, tuple(data.train_x.shape[1:]), len(data.classes))
    options |= dict(recipe.network_options)
    return options if recipe.dropout is None else options | {"dropout": recipe.dropout}


def network_options(name: str, shape: tuple[int, ...], classes: int) -> dict[str, int]:
    """The options of a built-in network that follow from the data: inputs, channels, size, classes."""
    if name not in networks.NETWORKS:
        raise UsageError(f"expected a built-in network ({', '.join(networks.NETWORKS)}), found {name!r}")
    takes = networks.accepted(name)
    known = {"inputs": math.prod(shape), "classes": classes}
    if "channels" in takes:
        if len(shape) != 3 or shape[1] != shape[2]:
            raise UsageError(
                f"expected square images (channels, size, size) for {name}, found samples of shape {shape}",
                fix=channels_first((1, *shape)) or "use mlp",
            )
        known |= {"channels": shape[0], "size": shape[2]}
    return {key: value for key, value in known.items() if key in takes}
