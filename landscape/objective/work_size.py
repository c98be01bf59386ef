"""How much arithmetic a pass over the data is, by which the number of threads is chosen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from landscape.objective.objective import Objective

# Multiply-adds of a forward pass over the data below which a second thread costs as much processor time as it saves. On two
# cores a gradient of the digits MLP on 1,347 samples (23 million) takes 2.4 ms with one thread and 2.2 ms with two.
SMALL = 1 << 25
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PRODUCTS = frozenset(
    "matmul __matmul__ __rmatmul__ mm bmm mv addmm addbmm baddbmm einsum tensordot scaled_dot_product_attention cdist".split()  # noqa: SIM905
)


def is_small(objective: Objective) -> bool:
    """Whether a pass over all data has at most `SMALL` multiply-adds; False on a GPU, or where samples come only together.

    Counted on one sample, in the layers that have a weight matrix: `weight[0].numel()` for every number that a layer returns,
    or takes if it is a transposed convolution. False if there is arithmetic beside these: a matrix that no such layer has, or
    products of activations with one another, as in attention.

    Cost: a forward pass of one sample, unless the weights alone are too many.
    """
    engine = objective._engine
    if objective.device.type != "cpu" or objective.dim * objective.samples > SMALL or not engine.divisible:
        return False
    batch = engine.batches[0].first(1)
    with torch.inference_mode(), _counting(engine.model) as found, _Products() as others:
        engine.forward(engine.tensors(objective.theta), batch, fold=False)
    matrices = {name for name, p in engine.model.named_parameters() if p.ndim > 1}
    if others.seen or matrices - set(found):
        return False
    return sum(found.values()) * objective.samples / len(batch) <= SMALL


class _Products(TorchFunctionMode):
    """Notes whether activations are multiplied with one another."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or getattr(func, "__name__", "") in _PRODUCTS
        return func(*args, **(kwargs or {}))


@contextmanager
def _counting(model: nn.Module) -> Iterator[dict[str, int]]:
    """The multiply-adds of the layers that are called inside the block, by the names of their weights."""
    found: dict[str, int] = {}

    def counted(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            weight = getattr(module, "weight", None)
            many = inputs[0] if isinstance(module, _TRANSPOSED) and inputs else output
            if isinstance(weight, Tensor) and weight.ndim > 1 and isinstance(many, Tensor):
                found[name] = found.get(name, 0) + many.numel() * weight[0].numel()

        return count

    hooks = [module.register_forward_hook(counted(f"{name}.weight".lstrip("."))) for name, module in model.named_modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
