"""Gradients of each sample's loss in its own input."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.reverse_mode import vjp
from landscape.errors import UsageError


def input_gradients(
    engine: Engine, theta: Float[Tensor, " P"]
) -> Iterator[tuple[Callable[[Tensor], Float[Tensor, "B ..."]], Float[Tensor, "B ..."]]]:
    """For every batch: a function that gives the gradient of every sample's loss at given inputs, and the batch's inputs.

    Raises:
        UsageError: the network takes something else than one tensor of real numbers, the loss is not a mean over samples, or
            the samples of a batch influence one another.

    Cost: three forward passes for each call of the function.
    """
    if not engine.divisible:
        raise UsageError(
            "expected samples that can be processed separately, found a loss or a network that mixes those of a batch",
            fix="this needs a loss for every sample, and BatchNorm with running statistics",
        )
    passes = engine.by_input(engine.tensors(theta))
    for batch, (network, x, target) in zip(engine.batches, passes, strict=True):
        yield partial(_gradient, engine, theta, network, target, batch.weights), x


def _gradient(
    engine: Engine, theta: Tensor, network: Callable[[Tensor], Tensor], target: Tensor, weights: Tensor | None, x: Tensor
) -> Tensor:
    """d loss_n / d x_n for every sample of a batch; zero where the loss does not depend on the input."""
    with engine.derivatives(theta):
        point = x.detach().requires_grad_()
        losses = engine.loss.per_sample(network(point), target, weights)
        assert losses is not None  # a divisible engine's loss comes apart
        return vjp({"losses": losses}, {"x": point}, {"losses": torch.ones_like(losses)})["x"]
