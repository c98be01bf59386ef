"""BatchNorm statistics at any weights, without changing the model: from all data, or from each batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.machine.arithmetic import values
from landscape.network.batches import Batch, merged
from landscape.network.copying import owned
from landscape.network.forward import ForwardPass, Pass

# Input values in one batch: 2,730 images of CIFAR. The activations of such a batch take some 2 GB in a wide network.
AT_ONCE = 2**23


def recalibrated(network: ForwardPass, theta: Float[Tensor, " P"]) -> tuple[dict[str, Tensor], int]:
    """Mean and variance of every BatchNorm layer's input over all data, at the weights theta.

    mean_c is the mean over samples and positions of the layer's input in channel c; var_c is the variance, with n - 1 as in
    PyTorch's running variance. They are exact and consistent: each layer's statistics are those of its input in the network
    that uses all the returned statistics, in eval mode. Layers are processed in the order of the forward pass, since a
    layer's input depends only on those before it.

    The statistics do not depend on the batch size beyond rounding. (The common average of the batches' own statistics from one
    pass depends on it in every layer but the first, because training normalizes each batch by itself.) If all samples have at
    most 2^23 input values, they pass through in one batch, whatever the micro-batch, and each layer is set on the way.
    Otherwise each layer takes a pass over all batches that ends at the layer. Layers without running statistics already
    normalize by their batch and are left alone. A layer that is used several times pools its inputs; each use is normalized by
    the statistics pooled up to it.

    Args:
        network: the model, in eval mode, and its data; neither is changed.
        theta: (P,) weights.

    Returns:
        Name of the buffer -> statistics, for `Objective.evaluate`; empty without BatchNorm. Also the number of passes spent.

    Cost: one forward pass up to 2^23 input values; above, about half a pass for every BatchNorm layer.

    Accuracy: sums in float64, merged over batches by Chan's formula, so that a variance is never negative.

    Reference: Izmailov et al. 2018, arXiv:1803.05407, section 3.2, who average over batches; Chan, Golub, LeVeque 1979 for the
        merge.
    """
    layers = with_statistics(network.model)
    if not layers:
        return {}, 0
    network = replace(network, folded=None)  # hooks need every layer
    params = network.tensors(theta)
    with values():
        numbers = sum(t.numel() for b in network.batches for t in b.tensors)
        whole = merged(network.batches) if numbers <= AT_ONCE else None
        if whole is not None:
            return _on_the_way(network, params, layers, whole), 1
        return _one_by_one(network, params, layers), 1 + len(layers) // 2


def batch_normalized(network: Pass) -> Pass:
    """A copy whose BatchNorm layers normalize by the mean and variance of the current batch, as in training.

    Derivatives include these statistics. Holding them constant would give another gradient: with batch statistics the loss does
    not depend on the length of the weights before a BatchNorm, and its gradient has no component along them. The copy has no
    running statistics to update. Everything else, dropout included, stays in eval mode.

    Returns:
        A forward pass whose loss depends on how the data are split into batches; unchanged if no layer has statistics.

    Accuracy: training divides a batch's squared deviations by n, the running variance by n - 1.
    """
    if not with_statistics(network.model):
        return network
    model = owned(network.model)
    for layer in with_statistics(model).values():
        layer.running_mean = layer.running_var = None
    return replace(network, model=model, folded=None)


def with_statistics(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that have running statistics, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}


class _Pool:
    """Count, mean and sum of squared deviations, by channel, of all values so far."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Merge a batch (B, C, ...)."""
        dims = [d for d in range(x.ndim) if d != 1]
        n = x.numel() // x.shape[1]
        variance, mean = torch.var_mean(x.detach().double(), dims, correction=0)
        if not self.count:
            self.mean, self.squares = torch.zeros_like(mean), torch.zeros_like(mean)
        total = self.count + n
        shift = mean - self.mean
        self.squares = self.squares + n * variance + shift.square() * (self.count * n / total)
        self.mean = self.mean + shift * (n / total)
        self.count = total

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance."""
        return self.mean.to(like), (self.squares / max(self.count - 1, 1)).to(like)


def _on_the_way(
    network: ForwardPass, params: dict[str, Tensor], layers: Mapping[str, nn.Module], whole: Batch
) -> dict[str, Tensor]:
    """All samples in one batch: every layer normalizes by the statistics just computed from its input."""
    pools = {name: _Pool() for name in layers}

    def normalize(name: str, module: Any, x: Tensor) -> Tensor:
        pools[name].add(x)
        mean, variance = pools[name].statistics(module.running_mean)
        return F.batch_norm(x, mean, variance, module.weight, module.bias, False, 0.0, module.eps)

    with _watching(layers, normalize):
        network.forward(params, whole)
    return _named(pools, layers)


def _one_by_one(network: ForwardPass, params: dict[str, Tensor], layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Batch by batch, layer by layer: one pass for each layer, which ends at that layer."""
    order: dict[str, None] = {}
    with _watching(layers, lambda name, _module, _x: order.setdefault(name)):
        network.forward(params, network.batches[0].first(2))
    pools = {name: _Pool() for name in order}
    settled: dict[str, Tensor] = {}

    def collect(name: str, _module: Any, x: Tensor) -> None:
        pools[name].add(x)
        raise _Reached

    for name in order:
        with _watching({name: layers[name]}, collect):
            for batch in network.batches:
                try:
                    network.forward(params | settled, batch)
                except _Reached:
                    continue
        settled |= _named({name: pools[name]}, layers)
    return settled


class _Reached(Exception):  # not an error: the rest of the network need not run
    """The layer of this pass has received its batch."""


def _named(pools: Mapping[str, _Pool], layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Statistics by buffer name; a layer that the network never reached keeps its own."""
    out = {}
    for name, pool in pools.items():
        if pool.count:
            like: Any = layers[name].running_mean
            out[f"{name}.running_mean"], out[f"{name}.running_var"] = pool.statistics(like)
    return out


@contextmanager
def _watching(layers: Mapping[str, nn.Module], see: Callable[[str, Any, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `see` with every layer's input inside the block; its result replaces the output. The hooks are removed after."""

    def watch(name: str) -> Any:
        return lambda module, args, kwargs, _: see(name, module, args[0] if args else kwargs["input"])

    handles = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
