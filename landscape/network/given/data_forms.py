"""The forms in which data may be given, brought to those that `landscape.network.batches` reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from landscape.errors import NumericalError, UsageError
from landscape.network.batches import Batch, check_order, check_stored
from landscape.network.given.single_batch import one_batch
from landscape.network.losses.model_loss import ModelLoss

_BATCH = 256  # samples of a data set that are read at a time


def as_data(data: Any, batch_size: int | None = None) -> Any:
    """NumPy arrays as tensors, and a data set that can be indexed, such as a TensorDataset, as a DataLoader in its order.

    Other data are returned as they are.
    """
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        return DataLoader(data, batch_size=batch_size or _BATCH)
    if isinstance(data, np.ndarray):
        return _tensor(data)
    if isinstance(data, tuple | list | dict) and any(isinstance(part, np.ndarray) for part in _parts(data)):
        made = {key: _tensor(part) for key, part in data.items()} if isinstance(data, dict) else [_tensor(p) for p in data]
        return type(data)(made)
    return data


def columns(data: Any) -> list[Tensor] | None:
    """The tensors of data that are no batches yet: a tensor, a tuple or a dictionary of tensors with a row for each sample."""
    if isinstance(data, Tensor):
        return [data]
    parts = _parts(data) if isinstance(data, tuple | dict) else []
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim]
    return tensors if tensors and len(tensors) == len(parts) and len({len(t) for t in tensors}) == 1 else None


def read_whole(data: Any, loss: ModelLoss, batch_size: int | None) -> list[Batch]:
    """Read the data of a `ModelLoss` once, in order; every batch is one that the loss takes as a whole.

    Args:
        data: a DataLoader, a list of batches of any form, or one batch: a tensor, tuple or dictionary. One whose tensors have
            a row for each sample is cut into batches of `batch_size`, if that is given.
        loss: it weights the batches.
        batch_size: for tensors.

    Raises:
        UsageError: there are no data, a batch has no tensor, or a loader shuffles or augments.
        NumericalError: an input is not finite.
    """
    whole = columns(data)
    if whole is None and (isinstance(data, Mapping) or one_batch(data)):
        if batch_size is not None:
            raise UsageError(
                "expected tensors with a row for each sample to cut into batches, found other numbers of rows",
                fix="leave the batch size out, or pass a list of batches",
            )
        raw: Iterable[Any] = [data]
    elif whole is not None:
        size = batch_size or max(1, len(whole[0]))
        if size < 1:
            raise UsageError(f"expected a batch size of at least 1, found {batch_size}", fix="pass --batch-size 128")
        raw = (rows(data, slice(i, i + size)) for i in range(0, len(whole[0]), size))
    elif isinstance(data, DataLoader | Sequence) and not isinstance(data, str):
        raw = data
    else:
        raise UsageError(
            f"expected a DataLoader, a list of batches or one batch of tensors, found {type(data).__name__}",
            fix="a generator can be read only once: pass list(batches)",
        )
    batches = [_batch(part, i) for i, part in enumerate(raw)]
    if not sum(map(len, batches)):
        raise UsageError("expected data, found no samples", fix="check the split, the path and the filter of the data set")
    if isinstance(data, DataLoader):
        check_order(data, batches[0], lambda again: _batch(again, 0))
    return [counted_by(loss, batch) for batch in batches if len(batch)]


def rows(batch: Any, which: Any) -> Any:
    """These rows of every tensor of a batch."""
    return pytree.tree_map_only(Tensor, lambda t: t[which], batch)


def counted_by(loss: ModelLoss, batch: Batch) -> Batch:
    """The batch with its weight in the mean, shared equally by its samples."""
    weight = loss.count(batch.args[0], len(batch))
    return replace(batch, weights=torch.full((len(batch),), weight / len(batch), dtype=torch.float64))


def _batch(raw: Any, number: int) -> Batch:
    """A batch that the loss takes as a whole; it can be cut on request if all its tensors have a row for each sample."""
    raw = dict(raw) if isinstance(raw, Mapping) else raw
    tensors = [t for t in pytree.tree_leaves(raw) if isinstance(t, Tensor)]
    if not tensors or tensors[0].ndim == 0:
        raise UsageError(
            f"expected batch {number} to hold a tensor with a row for each sample, found {type(raw).__name__} without one"
        )
    for t in tensors:
        check_stored(t, number)
        if (t.is_floating_point() or t.is_complex()) and not bool(t.isfinite().all()):
            raise NumericalError(f"expected finite data, found NaN or infinity in batch {number}", fix="clean the data set")
    aligned = all(t.ndim and len(t) == len(tensors[0]) for t in tensors)
    return Batch((raw,), {}, torch.zeros(len(tensors[0])), divisible=False, whole=True, aligned=aligned)


def _parts(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else list(data)


def _tensor(part: Any) -> Any:
    """An array as a tensor."""
    return torch.as_tensor(part) if isinstance(part, np.ndarray) and part.dtype != object else part
