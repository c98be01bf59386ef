"""A loss as a weighted mean over samples, whatever its own reduction divides by.

`CrossEntropyLoss` divides by the summed class weights of the targets that are not ignored, `MSELoss` by the number of elements,
a user's function by an unknown number. To add up batches exactly, each must be weighted by what its mean was divided by.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import NoOutputs, UsageError
from landscape.network.copying import converted, owned
from landscape.network.identity.closures import with_tensors
from landscape.network.losses.model_loss import as_model_loss
from landscape.network.losses.sample_losses import LossFunction, each
from landscape.network.losses.structure import Structure

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
# What has a class, by the number of axes of a sample's classes.
_PLACES = {1: "token", 2: "pixel", 3: "voxel"}


class MeanLoss:
    """A user's loss, and how it combines its samples.

    Args:
        loss: a PyTorch loss module with reduction="mean", any function (output, target) -> scalar, or a `ModelLoss`.
        structure: how a loss other than PyTorch's combines its samples, see `landscape.network.losses.structure`; None if
            that has not been determined.

    Raises:
        UsageError: the module sums or does not reduce; its value would depend on the batch size.
    """

    def __init__(self, loss: LossFunction, structure: Structure | None = None) -> None:
        kind = next((module for function, module in _FUNCTIONS.items() if function is loss), None)
        self.of_model = as_model_loss(loss)
        self.loss: LossFunction = kind() if kind is not None else self.of_model or loss  # type: ignore[assignment]  # see `run`
        self.structure = structure
        self._split: nn.Module | None = None
        if self._is(*_CLASS_WEIGHTED, *_ELEMENTWISE):
            reduction = getattr(self.loss, "reduction", "mean")
            if reduction not in ("mean", "batchmean"):
                raise UsageError(
                    f"expected a loss that averages over samples, found reduction={reduction!r}", fix="pass reduction='mean'"
                )
            self._split = owned(self.loss)  # type: ignore[arg-type]  # a module
            self._split.reduction = "none"  # type: ignore[assignment]  # a plain attribute of PyTorch's losses

    def _is(self, *kinds: type[nn.Module]) -> bool:
        """Whether the loss is exactly one of these classes and unmodified: a subclass or a hook may compute something else."""
        loss = self.loss
        if not isinstance(loss, nn.Module) or type(loss) not in kinds:
            return False
        return not (loss._forward_hooks or loss._forward_pre_hooks or "forward" in vars(loss))

    def to(self, device: torch.device, dtype: torch.dtype) -> "MeanLoss":
        """The same loss with its tensors moved; the caller's module or function is not changed."""
        if not isinstance(self.loss, nn.Module):
            return MeanLoss(with_tensors(self.loss, device, dtype), self.structure)
        return MeanLoss(converted(owned(self.loss), device, dtype), self.structure)

    def require_outputs(self, what: str) -> None:
        """Refuse a loss of (model, batch) for what is computed from outputs and targets.

        Raises:
            NoOutputs: it is one.
        """
        if self.of_model is not None:
            raise NoOutputs(
                f"expected a loss of (output, target) for {what}, found one of (model, batch), whose outputs and targets are "
                "not known"
            )

    @property
    def ignore_index(self) -> int | None:
        """The class index that cross-entropy excludes from its mean."""
        return self.loss.ignore_index if self.takes_classes else None  # type: ignore[attr-defined]  # it has it then

    @property
    def takes_classes(self) -> bool:
        """Whether integer targets are certainly class indices."""
        return self._is(*_CLASS_WEIGHTED)

    @property
    def compares_elements(self) -> bool:
        """Whether output and target must have the same shape."""
        return self._is(*_ELEMENTWISE)

    @property
    def known(self) -> bool:
        """Whether the loss is one of PyTorch's, whose loss of each sample is known."""
        return self._split is not None

    @property
    def comes_apart(self) -> bool:
        """Whether the loss is a weighted mean of the losses of its samples."""
        return self.known or (self.structure is not None and self.structure.apart)

    def sample_weights(self, target: Tensor) -> Float[Tensor, " B"] | None:
        """Weights of the samples in the mean of a known loss, float64: tokens or class weights; None if all are 1."""
        if not self.takes_classes or target.is_floating_point():
            return None
        counted = target.ne(self.loss.ignore_index).double()  # type: ignore[attr-defined]  # a class-weighted loss has it
        weight = self.loss.weight  # type: ignore[attr-defined]  # and this
        if weight is not None:
            counted = counted * weight.double()[target.clamp(0, len(weight) - 1)]
        return counted.reshape(len(target), -1).sum(1)

    def per(self, target: Tensor) -> str:
        """What the mean is over: a "sample", or with a class for each of its places a "token", "pixel" or "voxel".

        Args:
            target: (B, ...) class indices, or (B, C, ...) probabilities.

        Example:
            >>> loss = MeanLoss(nn.CrossEntropyLoss())
            >>> loss.per(torch.tensor([1, 0])), loss.per(torch.tensor([[1, 0, 2]])), loss.per(torch.rand(4, 3, 8, 8))
            ('sample', 'token', 'pixel')
        """
        places = target.ndim - (2 if target.is_floating_point() else 1)
        return _PLACES.get(places, "sample") if self.takes_classes else "sample"

    def mean(self, output: Tensor, target: Tensor) -> Tensor:
        """The batch's loss, a differentiable scalar; 0 if all targets are ignored. A loss of (model, batch) is the output.

        Raises:
            UsageError: the loss did not return a scalar.
        """
        value = output if self.of_model is not None else self.loss(output, target)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"expected the loss to return a scalar tensor, found {found}", fix="average over the batch in the loss"
            )
        return value.reshape(())

    def per_sample(
        self, output: Tensor, target: Tensor, weights: Float[Tensor, " B"] | None = None
    ) -> Float[Tensor, " B"] | None:
        """The loss of every sample, whose weighted mean is the batch's; None if the loss is not a mean over samples.

        A sample of weight 0 has loss 0, because its own mean may be undefined.
        """
        if self._split is None:
            if not self.comes_apart:
                return None
            if weights is None or bool((weights > 0).all()):
                return each(self.loss, output, target)
            rows = (weights > 0).nonzero()[:, 0]
            return output.new_zeros(len(target)).index_put((rows,), each(self.loss, output[rows], target[rows]))
        elements = self._split(output, target).reshape(len(target), -1)
        weights = self.sample_weights(target)
        if weights is not None:
            return elements.sum(1) / torch.where(weights > 0, weights, 1).to(elements.dtype)
        summed = self.loss.reduction == "batchmean"  # type: ignore[attr-defined]  # a loss module
        return elements.sum(1) if summed else elements.mean(1)


def accuracy(output: Tensor, target: Tensor, ignore_index: int | None) -> Float[Tensor, " B"]:
    """Fraction of each sample's targets with the largest logit along dimension 1; nan if all are ignored."""
    right = (output.argmax(1) == target).double()
    if ignore_index is None:
        return right.reshape(len(target), -1).mean(1)
    counted = (target != ignore_index).double()
    return (right * counted).reshape(len(target), -1).sum(1) / counted.reshape(len(target), -1).sum(1)


def joined(parts: list[Tensor | None]) -> Tensor | None:
    """The batches' values concatenated; None if a batch has none."""
    known = [p for p in parts if p is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def standard_error(values: Float[Tensor, " N"], weights: Float[Tensor, " N"]) -> float | None:
    """Standard error of a weighted mean over samples (for equal weights s/sqrt(n), ddof = 1); None for a single sample."""
    n = len(values)
    if n < 2:
        return None
    share = weights / weights.sum()
    mean = float((weights * values).sum() / weights.sum())
    return float(_variance(values - mean, n, share * share)) ** 0.5


def _variance(deviations: Any, n: Any, squared_shares: Any = 1.0) -> Any:
    """Variance of the weighted mean of n samples, sum_i s_i^2 d_i^2 n / (n - 1), for each row.

    Args:
        deviations: (..., N) d, of the samples from the mean; already times their shares if those are not given.
        n: number of samples that count in each row.
        squared_shares: (N,) s^2, of the samples in the total weight.
    """
    return (squared_shares * deviations * deviations).sum(-1) * n / (n - 1)


def means_and_errors(
    values: Float[np.ndarray, "k N"], weights: Float[np.ndarray, " N"], counted: Bool[np.ndarray, "k N"] | None = None
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Weighted means of k rows, and the standard error of each as in `standard_error`; nan for a single sample.

    Args:
        values, weights: of the samples.
        counted: which samples count in each row; default all.
    """
    n = np.full(len(values), values.shape[1]) if counted is None else counted.sum(1)
    with np.errstate(all="ignore"):  # an infinite value has no error, and an empty row no mean
        if counted is None or counted.all():
            share = weights / weights.sum()
        else:
            share, values = np.where(counted, weights, 0.0), np.where(counted, values, 0.0)
            share = share / share.sum(1, keepdims=True)
        means = (values * share).sum(1)
        return means, np.where(n > 1, np.sqrt(_variance(share * (values - means[:, None]), n)), np.nan)
