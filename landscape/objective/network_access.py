"""The network of an Objective itself, without the loss: outputs, activations of layers, and a plain copy for other tools."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.attention_heads import Head, attention_heads
from landscape.network.batches import one_input
from landscape.network.copying import owned
from landscape.network.losses.mean_loss import LossFunction
from landscape.objective.preparation import Prepared
from landscape.values.activations import activations, layers


class NetworkAccess(Prepared):
    """Base class of `Objective` with what it gives of its network and data."""

    @property
    def targets(self) -> Tensor:
        """The targets of all samples, (N, ...), on the CPU."""
        self._engine.loss.require_outputs("targets")
        return torch.cat([b.target.cpu() for b in self._engine.batches])

    def layers(self) -> dict[str, bool]:
        """Names for `activations`, and whether each is a nonlinearity or the output; see `landscape.values.activations`."""
        self._engine.loss.require_outputs("activations of layers")
        self._check_values()
        return layers(self._engine, self._engine.tensors(self._theta))

    def activations(self, layer: str) -> Float[Tensor, "N d"]:
        """What a layer, by a name in `layers`, returns for every sample at the trained weights, flattened, on the CPU."""
        self._engine.loss.require_outputs("activations of layers")
        self._check_values()
        self._spent.forwards += 1
        return activations(self._engine, self._engine.tensors(self._theta), layer)

    def attention_heads(self) -> tuple[list[Head], list[str]]:
        """The weights of every attention head, and the layers whose heads cannot be read: see `curvature.attention_heads`."""
        self.preflight()
        self._spent.gradients += 1
        return attention_heads(self._engine, self._theta)

    def outputs(self, *, dtype: str | None = None) -> Tensor:
        """The network's outputs at the trained weights for all samples, (N, ...), on the CPU; in another dtype on request."""
        if dtype is not None:
            return self.to(dtype).outputs()
        self._check_values()
        self._spent.forwards += 1
        return self._engine.outputs(self._theta)

    @property
    def example(self) -> tuple[Any, ...] | dict[str, Any]:
        """The model's arguments for the first two samples: a tuple, or a dictionary of named ones."""
        self._engine.loss.require_outputs("the network's arguments")
        return self._engine.batches[0].first(2).inputs

    def plain(self) -> tuple[nn.Module, LossFunction, tuple[Tensor, Tensor]]:
        """A copy of the model in eval mode, the loss, and the data as one batch (x, y), for other tools; needs one input."""
        self._engine.loss.require_outputs("the network with its outputs and targets")
        return owned(self._engine.model).requires_grad_(True), self.loss, one_input(self._engine.batches)

    def by_input(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
        """For every batch: the trained network as a function of its one real input, the inputs (B, ...), the targets."""
        for network, x, target in self._engine.by_input(self._engine.tensors(self._theta)):
            yield self._spent.counting(network, self.samples), x, target
