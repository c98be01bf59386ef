"""Loss and accuracy of every sample in a batch, without derivatives."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from landscape.network.batches import Batch
from landscape.network.losses.mean_loss import MeanLoss, accuracy


def losses_and_hits(loss: MeanLoss, output: Tensor, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """Loss and accuracy of every sample; None for one that the loss or the targets do not define.

    Cross-entropy of class indices computes both from one reading of the logits: -log softmax_y = log sum_c exp(o_c - o_max) -
    (o_y - o_max), and a sample is right if the first of the largest logits is that of its class. PyTorch's softmax over a few
    classes processes them one by one and takes some six times as long, which for a small network is most of the time.

    Args:
        loss: of the batch.
        output: of the network, (B, ...).
        batch: with its targets, (B, ...).
    """
    target = batch.target
    plain = loss.takes_classes and isinstance(loss.loss, nn.CrossEntropyLoss) and not loss.loss.label_smoothing
    if plain and output.ndim == 2 and target.ndim == 1 and not target.is_floating_point():
        return _cross_entropy(output, target, batch.sample_weights > 0, loss.ignore_index)
    return loss.per_sample(output, target, batch.weights), _accuracy(loss, output, target)


def _cross_entropy(
    output: Float[Tensor, "B C"], target: Int[Tensor, " B"], counted: Tensor, ignore_index: int | None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """By sample; the loss is 0 where the target does not count, and the accuracy nan where it is ignored."""
    top = output.max(1)
    picked = output.gather(1, target.clamp(0, output.shape[1] - 1)[:, None])[:, 0]
    nll = (output - top.values[:, None]).exp_().sum(1).log_() - (picked - top.values)
    hits = (top.indices == target).double()
    return nll.where(counted, 0.0), hits if ignore_index is None else hits.where(target != ignore_index, torch.nan)


def _accuracy(loss: MeanLoss, output: Tensor, target: Tensor) -> Tensor | None:
    """Accuracy by sample, float64; None if targets are not class indices, or their alignment with outputs is unknown."""
    if loss.takes_classes and not target.is_floating_point() and output.ndim == target.ndim + 1:
        return accuracy(output, target, loss.ignore_index)
    pairing = None if loss.structure is None else loss.structure.pairing
    if pairing is None or target.is_floating_point() or output.ndim != target.ndim + 1:
        return None
    return accuracy(*pairing.aligned(output, target), -1)
