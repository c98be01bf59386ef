"""What the layers of a network return for every sample."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.machine.arithmetic import values
from landscape.network.batches import Batch
from landscape.network.forward import ForwardPass

OUTPUT = "output"
# Nonlinearities of PyTorch's by the module that defines them. A user's own are not known by type.
_NONLINEARITIES = nn.ReLU.__module__


def layers(network: ForwardPass, params: dict[str, Tensor]) -> dict[str, bool]:
    """The layers whose activations `activations` can give, in the order in which they run.

    A layer is a call of a module that returns a tensor with the samples on its first dimension. It has the name of the module;
    the second call of a module is "name:2". The last one, "output", is what the loss takes.

    Returns:
        Name -> whether the layer is usually asked for: nonlinearities and "output"; in a network without modules of
        nonlinearities (`F.relu` is none) those that have weights.

    Cost: one pass of two samples.
    """
    batch = network.batches[0].first(2)
    found: dict[str, nn.Module] = {}

    def see(name: str, module: nn.Module, output: Any) -> None:
        if _has_samples(output, len(batch)):
            found[name] = module

    with values(), _listening(network, see):
        _run(network, params, batch)
    found.pop(OUTPUT, None)  # a module of that name: the loss's own input has it
    usual = {n: type(m).__module__ == _NONLINEARITIES and not isinstance(m, nn.MultiheadAttention) for n, m in found.items()}
    if not any(usual.values()):
        usual = {n: any(True for _ in m.parameters(recurse=False)) for n, m in found.items()}
    return usual | {OUTPUT: True}


def activations(network: ForwardPass, params: dict[str, Tensor], layer: str) -> Float[Tensor, "N d"]:
    """The activations of one layer, named as in `layers`, for every sample, flattened, in the network's dtype on the CPU.

    Raises:
        UsageError: the layer does not run for some batch, or returns something else there.

    Cost: one forward pass.
    """
    rows: list[Tensor] = []
    for batch in network.batches:
        caught: list[Tensor] = []

        def see(name: str, _: nn.Module, output: Any, batch: Batch = batch, caught: list[Tensor] = caught) -> None:
            if name == layer and _has_samples(output, len(batch)):
                # A copy: a layer that works in place may overwrite the tensor.
                caught.append(output.detach().reshape(len(batch), -1).cpu().clone())

        with values(), _listening(network, see):
            output = _run(network, params, batch)
        if layer == OUTPUT:
            caught = [output.detach().reshape(len(batch), -1).cpu()]
        if not caught or (rows and caught[0].shape[1] != rows[0].shape[1]):
            raise UsageError(
                f"expected layer {layer} to return as many values for every sample, found another shape in a later batch",
                fix="choose other layers",
            )
        rows.append(caught[0])
    return torch.cat(rows)


def _has_samples(output: Any, samples: int) -> bool:
    """Whether a module returned a tensor of real numbers with a row for each sample."""
    return isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 0 and len(output) == samples


def _run(network: ForwardPass, params: dict[str, Tensor], batch: Batch) -> Tensor:
    """The input of the loss for a batch, of the network as it was given: BatchNorm that is folded returns something else."""
    return network.forward(params, batch, fold=False)


@contextmanager
def _listening(network: ForwardPass, see: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Calls `see(name, module, output)` for every module that runs inside the block, except for the network itself."""
    calls: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def told(module: nn.Module, _: Any, output: Any) -> None:
            calls[name] += 1
            see(name if calls[name] == 1 else f"{name}:{calls[name]}", module, output)

        return told

    handles = [m.register_forward_hook(hook(name)) for name, m in network.model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
