"""Losses that are computed from the network itself and a batch: residuals of equations, pairs, reconstructions, policies."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from landscape.errors import UsageError

_ARGUMENTS = ["model", "batch"]


class ModelLoss:
    """A loss that is a function of (model, batch) instead of (output, target).

    The function calls the network as it likes: several times, through its parts, with derivatives of its outputs inside. Its
    argument `model` is the network at the weights in question, so it must use that one and no other. `batch` is a batch as the
    data give it: a tensor, a tuple, a dictionary.

    The loss of the data is the mean over the batches, L = sum_b n_b loss_b / sum_b n_b, with n_b the number of samples of batch
    b (the rows of its first tensor), or `weight(batch)`. If the function is a mean over its samples, that is the mean over all
    samples, however they are batched. If it couples them, as a contrastive loss does, the batches are part of the definition:
    another batch size is another loss. Batches are therefore taken as they are given, and never split or joined.

    Nothing is known of single samples, outputs or targets. Accuracy, Gauss-Newton and Fisher matrices, scores of samples and
    activations are refused, and which symmetries the loss keeps is not known.

    A class and not a guess: whether a function of two arguments takes (model, batch) or (output, target) cannot be seen from
    it. The one exception are functions whose arguments are literally called `model` and `batch`, which need no wrapper; one of
    (output, target) that is written so fails at its first call.

    Args:
        function: (model, batch) -> scalar tensor, differentiable twice in the weights; the same value at every call.
        weight: batch -> weight of the batch in the mean, e.g. the number of tokens that count; None for its samples.

    Example:
        An autoencoder: (w x - x)^2 has the second derivative 2 x^2.
        >>> import torch
        >>> from landscape import Objective
        >>> net = nn.Linear(1, 1, bias=False)
        >>> loss = ModelLoss(lambda net, x: (net(x) - x).square().mean())
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> round(float(Objective(net, loss, x, dtype="float64").hvp(torch.ones(1))), 6)
        9.333333
    """

    def __init__(self, function: Callable[[nn.Module, Any], Tensor], *, weight: Callable[[Any], float] | None = None) -> None:
        if not callable(function):
            raise UsageError(f"expected a function of (model, batch), found {type(function).__name__}")
        self.function, self.weight = function, weight

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The batch's loss."""
        return self.function(model, batch)

    def count(self, batch: Any, samples: int) -> float:
        """The weight of a batch in the mean.

        Raises:
            UsageError: it is not a finite number of at least 0.
        """
        if self.weight is None:
            return float(samples)
        value = float(self.weight(batch))
        if not 0 <= value < float("inf"):
            raise UsageError(f"expected the weight of a batch to be a finite number of at least 0, found {value}")
        return value


def as_model_loss(loss: object) -> ModelLoss | None:
    """The loss as a `ModelLoss`, if it is one or is a function whose arguments are called model and batch; else None."""
    if isinstance(loss, ModelLoss):
        return loss
    if inspect.isfunction(loss) and list(inspect.signature(loss).parameters) == _ARGUMENTS:
        return ModelLoss(loss)
    return None
