"""One batch that is given by itself, and what to do with data that are no batches."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

TARGET_KEYS = ("labels", "label", "targets", "target", "y")


def one_batch(data: Any) -> bool:
    """Whether this is one batch given by itself: a dictionary with a target, or a tuple that ends with a tensor."""
    if isinstance(data, Mapping):
        return any(key in data for key in TARGET_KEYS)
    return isinstance(data, tuple) and len(data) > 1 and isinstance(data[-1], Tensor)


def without_targets(data: Any) -> str:
    """What to do with data that are no batches with targets."""
    if isinstance(data, Tensor):
        return "pass (x, y), for an autoencoder (x, x); a loss of the model and the batch is landscape.ModelLoss(loss)"
    if isinstance(data, Mapping):
        keys = ", ".join(map(str, list(data)[:6]))
        return (
            f"name its target 'labels' and the others as the model's arguments (it has {keys}); "
            "a loss of the model and the batch is landscape.ModelLoss(loss)"
        )
    return "a generator can be read only once: pass list(batches)"
