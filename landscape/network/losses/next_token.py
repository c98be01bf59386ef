"""The loss of a causal language model: cross-entropy of every next token, a mean over the tokens that count."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import UsageError
from landscape.network.batches import Batch


class NextTokenLoss(nn.Module):
    """Mean over tokens of -log p(token | the tokens before it), for logits (B, T, V) and labels (B, T).

    L = -sum_b sum_t c_bt log p(y_bt | y_b1 ... y_b,t-1) / sum_b sum_t c_bt, t = 2 ... T, with c_bt = 0 where the label is
    `ignore_index` and else 1: the logits of position t - 1 are held against the label of position t, as the models of
    transformers do with their `labels`. On pooled data that is the loss that such a model computes. A sample of an `Objective`
    is a sequence, its weight the number of its tokens that count, so that neither padding nor the batch size changes L, and
    errors are those over sequences: tokens within one are not independent.

    The model's output is logits (B, T, V) or an object with `.logits`; labels are usually the input tokens, with -100 for
    those that do not count. `Objective` takes it apart: it is cross-entropy of logits[:, :-1], with the classes second, and
    labels[:, 1:]. A metric gets these two.

    Args:
        ignore_index: the label of what does not count.

    Raises:
        UsageError: labels are not (B, T), T at least 2.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(2, 3, 5), torch.tensor([[0, 1, 2], [3, 4, -100]])
        >>> round(float(NextTokenLoss()(logits, labels)), 6)  # log 5
        1.609438
        >>> NextTokenLoss().counted([{"input_ids": labels, "labels": labels}]), NextTokenLoss().counted((labels, labels))
        (3, 3)
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        """The mean over the tokens of a batch."""
        logits = output if isinstance(output, Tensor) else output.logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), following(labels).flatten().long(), ignore_index=self.ignore_index)

    @property
    def inner(self) -> nn.CrossEntropyLoss:
        """The same loss of the logits and labels that belong together."""
        return nn.CrossEntropyLoss(ignore_index=self.ignore_index)

    def counted(self, data: Iterable[Any]) -> int:
        """Number of tokens that are predicted in (input, labels), or in batches of these or with "labels"."""
        batches = [data] if isinstance(data, tuple) and all(isinstance(part, Tensor) for part in data) else data
        rows = (batch["labels"] if isinstance(batch, Mapping) else batch[-1] for batch in batches)
        return sum(int((following(labels) != self.ignore_index).sum()) for labels in rows)


def following(labels: Tensor) -> Tensor:
    """The labels that are predicted: all but the first of every sequence.

    Raises:
        UsageError: they are not (B, T), T at least 2.
    """
    if labels.ndim != 2 or labels.shape[1] < 2:
        raise UsageError(
            f"expected labels (N, T) with T of at least 2 tokens, found shape (N{''.join(f', {n}' for n in labels.shape[1:])})",
            fix="NextTokenLoss is for causal language models; a classifier takes torch.nn.CrossEntropyLoss()",
        )
    return labels[:, 1:]


def shifted(batch: Batch) -> Batch:
    """A batch whose targets are the labels that are predicted."""
    return replace(batch, target=following(batch.target))


def as_given(loss: Any, batches: Sequence[Batch], *, next_token: bool) -> tuple[Any, list[Any]]:
    """A loss and its data as a caller gives them, of a loss and batches that an `Objective` has.

    For the loss of the next token every sequence gets a first label again; it is never predicted, so that any would do.
    """
    if not next_token:
        return loss, [batch.raw for batch in batches]
    own = NextTokenLoss(loss.ignore_index)
    first = [batch.target.new_full((len(batch.target), 1), own.ignore_index) for batch in batches]
    return own, [replace(b, target=torch.cat([one, b.target], 1)).raw for one, b in zip(first, batches, strict=True)]
