"""Whether the first samples of a split stand for all of it: data that are sorted by class do not."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

# Probability under a random order below which absent classes are put down to the order.
_UNLIKELY = 1e-4


def sorted_by_class(data: Any, samples: int) -> tuple[int, int] | None:
    """Classes among the first samples and among all, if the data must be sorted by class for so many to be absent.

    In a random order the first n samples are all of s given classes that hold a share p of the data with probability p^n at
    most, and of some s of the k classes with at most C(k, s) times that of the s largest.

    Args:
        data: (x, y) tensors, or a list of batches (x, y) or with "labels"; others are not looked at.
        samples: number of samples that are used.

    Returns:
        None if the order may be random, if all samples are used, or if the targets are not one integer a sample.

    Example:
        >>> x, y = torch.zeros(100, 2), torch.arange(100) // 50
        >>> sorted_by_class((x, y), 30), sorted_by_class((x, y), 60), sorted_by_class((x, torch.arange(100) % 2), 30)
        ((1, 2), None, None)
    """
    labels = _labels(data)
    if labels is None or not 0 < samples < len(labels):
        return None
    counts = torch.unique(labels, return_counts=True)
    seen = torch.isin(counts[0], labels[:samples])
    there, classes = int(seen.sum()), len(seen)
    share = float(counts[1].sort(descending=True)[0][:there].sum()) / len(labels)
    if there == classes or math.log(math.comb(classes, there)) + samples * math.log(share) > math.log(_UNLIKELY):
        return None
    return there, classes


def _labels(data: Any) -> Tensor | None:
    """One integer for every sample; None if there is none. Nothing is iterated that reads files."""
    if isinstance(data, DataLoader | Mapping):
        return None
    pair = isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data)
    found: list[Tensor] = []
    for batch in [data] if pair else data if isinstance(data, list) else []:
        y = batch.get("labels") if isinstance(batch, Mapping) else batch[-1] if isinstance(batch, tuple | list) else None
        if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point():
            return None
        found.append(y)
    return torch.cat(found) if found else None
