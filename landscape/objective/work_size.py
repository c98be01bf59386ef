"""How much arithmetic a pass over the data is, by which the number of threads is chosen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.objective.objective import Objective

# Multiply-adds of a forward pass over the data below which a second thread costs as much processor time as it saves. On two
# cores a gradient of the digits MLP on 1,347 samples (23 million) takes 2.4 ms with one thread and 2.2 ms with two.
SMALL = 1 << 25


def is_small(objective: Objective) -> bool:
    """Whether a pass over all data has at most `SMALL` multiply-adds; False on a GPU, or where samples come only together.

    Counted on one sample, in the layers that have a weight matrix: `weight[0].numel()` for every number that a layer returns.

    Cost: a forward pass of one sample, unless the weights alone are too many.
    """
    engine = objective._engine
    if objective.device.type != "cpu" or objective.dim * objective.samples > SMALL or not engine.divisible:
        return False
    batch = engine.batches[0].first(1)
    with torch.inference_mode(), _counting(engine.model) as found:
        engine.forward(engine.tensors(objective.theta), batch, fold=False)
    return sum(found) * objective.samples / len(batch) <= SMALL


@contextmanager
def _counting(model: nn.Module) -> Iterator[list[int]]:
    """The multiply-adds of the layers that are called inside the block."""
    found: list[int] = []

    def count(module: nn.Module, _inputs: Any, output: Any) -> None:
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1 and isinstance(output, Tensor):
            found.append(output.numel() * weight[0].numel())

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
