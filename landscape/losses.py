"""A loss as a weighted mean over samples, whatever PyTorch's reductions call a mean.

`CrossEntropyLoss` divides by the summed class weights of the targets it did not ignore, `MSELoss` by the number of elements,
a user's function by something we cannot see. To add batches up exactly, each must be weighted by what its mean was divided by.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import UsageError

LossFunction = Callable[[Tensor, Tensor], Tensor]

_FUNCTIONS = {F.cross_entropy: nn.CrossEntropyLoss, F.nll_loss: nn.NLLLoss, F.mse_loss: nn.MSELoss}
_CLASS_WEIGHTED = (nn.CrossEntropyLoss, nn.NLLLoss)
_ELEMENTWISE = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.SoftMarginLoss,
    nn.KLDivLoss,
)


class MeanLoss:
    """A user's loss, with the weight that each sample has in its mean.

    Args:
        loss: a PyTorch loss module with reduction="mean", or any function (output, target) -> scalar that is a mean over the
            first dimension with equal weights.

    Raises:
        UsageError: the module sums or does not reduce; its value would depend on how the data are cut into batches.
    """

    def __init__(self, loss: LossFunction) -> None:
        kind = _FUNCTIONS.get(loss)
        self.loss: LossFunction = kind() if kind is not None else loss
        reduction = getattr(self.loss, "reduction", "mean")
        if reduction not in ("mean", "batchmean"):
            raise UsageError(
                f"expected a loss that averages over samples, found reduction={reduction!r}", fix="pass reduction='mean'"
            )
        self._split: nn.Module | None = None
        if isinstance(self.loss, (*_CLASS_WEIGHTED, *_ELEMENTWISE)):
            self._split = copy.deepcopy(self.loss)
            self._split.reduction = "none"

    def to(self, device: torch.device, dtype: torch.dtype) -> "MeanLoss":
        """The same loss with its class weights, if it has any, moved; the caller's module is not touched."""
        if not isinstance(self.loss, nn.Module):
            return self
        return MeanLoss(copy.deepcopy(self.loss).to(device=device, dtype=dtype))

    @property
    def ignore_index(self) -> int | None:
        """The class index that cross-entropy leaves out of its mean."""
        return self.loss.ignore_index if isinstance(self.loss, _CLASS_WEIGHTED) else None

    @property
    def takes_classes(self) -> bool:
        """Whether integer targets are class indices for certain."""
        return isinstance(self.loss, _CLASS_WEIGHTED)

    @property
    def compares_elements(self) -> bool:
        """Whether output and target must have one shape."""
        return isinstance(self.loss, _ELEMENTWISE)

    @property
    def comes_apart(self) -> bool:
        """Whether the loss is one of PyTorch's, whose value for each sample is known."""
        return self._split is not None

    def sample_weights(self, target: Tensor) -> Float[Tensor, " B"]:
        """Weight of every sample in the mean, float64: one, or its number of tokens, or its class weight."""
        if self.takes_classes and not target.is_floating_point():
            counted = (target != self.loss.ignore_index).double()  # type: ignore[attr-defined]  # a class-weighted loss has it
            weight = self.loss.weight  # type: ignore[attr-defined]  # and this
            if weight is not None:
                counted = counted * weight.double()[target.clamp(0, len(weight) - 1)]
            return counted.reshape(len(target), -1).sum(1)
        return torch.ones(len(target), dtype=torch.float64, device=target.device)

    def mean(self, output: Tensor, target: Tensor) -> Tensor:
        """The batch's loss, a differentiable scalar; 0 where every target is ignored.

        Raises:
            UsageError: the loss did not return a scalar.
        """
        value = self.loss(output, target)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"expected the loss to return a scalar tensor, found {found}", fix="average over the batch in the loss"
            )
        return value.reshape(())

    def per_sample(self, output: Tensor, target: Tensor) -> Float[Tensor, " B"] | None:
        """Every sample's own loss, whose weighted mean is the batch's; None where the loss does not come apart."""
        if self._split is None:
            parts = torch.stack([self.mean(output[i : i + 1], target[i : i + 1]) for i in range(len(target))])
            whole = self.mean(output, target)
            return parts if torch.allclose(parts.mean(), whole, rtol=1e-3, atol=1e-6) else None
        elements = self._split(output, target).reshape(len(target), -1)
        if self.takes_classes and not target.is_floating_point():
            weights = self.sample_weights(target)
            return elements.sum(1) / torch.where(weights > 0, weights, 1).to(elements.dtype)
        return elements.sum(1) if self.loss.reduction == "batchmean" else elements.mean(1)  # type: ignore[attr-defined]  # a loss module


def accuracy(output: Tensor, target: Tensor, ignore_index: int | None) -> Float[Tensor, " B"]:
    """Share of each sample's targets that have the largest logit along dimension 1; nan where all are ignored."""
    right = (output.argmax(1) == target).double()
    if ignore_index is None:
        return right.reshape(len(target), -1).mean(1)
    counted = (target != ignore_index).double()
    return (right * counted).reshape(len(target), -1).sum(1) / counted.reshape(len(target), -1).sum(1)


def joined(parts: list[Tensor | None]) -> Tensor | None:
    """The batches' values one after another; None if a batch has none."""
    known = [p for p in parts if p is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def standard_error(values: Any, weights: Any, mean: float) -> float | None:
    """Standard error of a weighted mean of samples (for equal weights s/sqrt(n), ddof = 1); None for a single one.

    Args:
        values, weights: (N,), tensors or arrays.
        mean: of the values.
    """
    n = len(values)
    if n < 2:
        return None
    share, apart = weights / weights.sum(), values - mean
    return float((share * share * apart * apart).sum() * n / (n - 1)) ** 0.5


def means_and_errors(
    values: Float[np.ndarray, "k N"], weights: Float[np.ndarray, " N"], counted: Bool[np.ndarray, "k N"] | None = None
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Weighted means of k rows, and the standard error of each as `standard_error`, nan for that of a single sample.

    Args:
        values, weights: of the samples.
        counted: which of them count in each row; default all.
    """
    n = np.full(len(values), values.shape[1]) if counted is None else counted.sum(1)
    with np.errstate(all="ignore"):  # an infinite value has no error, and of no values there is no mean
        if counted is None or counted.all():
            share = weights / weights.sum()
        else:
            share, values = np.where(counted, weights, 0.0), np.where(counted, values, 0.0)
            share = share / share.sum(1, keepdims=True)
        means = (values * share).sum(1)
        apart = share * (values - means[:, None])
        return means, np.where(n > 1, np.sqrt((apart * apart).sum(1) * n / (n - 1)), np.nan)
