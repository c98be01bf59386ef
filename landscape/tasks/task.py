"""Task: a model, its loss and its data, the input of every command."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from landscape.errors import UsageError
from landscape.network.batches import Data
from landscape.network.given.data_forms import as_data, columns
from landscape.network.given.single_batch import one_batch
from landscape.network.losses.model_loss import as_model_loss
from landscape.objective.objective import Metric, Objective

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass(frozen=True)
class Source:
    """The checkpoint of a task's weights.

    Attributes:
        path: path as given.
        sha256: digest of the file's bytes.
        weights: name of the set of weights in the file.
    """

    path: str
    sha256: str
    weights: str | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """A model, its loss and its data.

    Args:
        model: any `nn.Module`; a checkpoint's weights are loaded into it.
        loss: (output, target) -> scalar mean over samples, e.g. `torch.nn.CrossEntropyLoss()`; or a `ModelLoss`, which a
            function of arguments that are called model and batch becomes by itself.
        train: (x, y) tensors or arrays, a DataLoader in fixed order, a data set that can be indexed, or a list of batches. For
            a `ModelLoss` also a tensor, or a tuple or dictionary of tensors.
        test: the same for testing, or None.
        metric: (output, target) -> (B,) value per sample; None gives accuracy if the targets are class indices.
        name: name in tables and figures.
        recipe: record of the training (recipe, history and final scores), or None.
        checkpoint: source of the weights; None for initial ones.
        notices: remarks for the user on how the task was built, one line each.
        extras: other tensors of the checkpoint, e.g. "wrong_labels", the mask of corrupted training labels.
        params: the weights that vary, by name, as for `Objective`; `--params` replaces them.
        base: SHA-256 of the weights that the checkpoint is an adapter of; None where it holds a whole network.

    Raises:
        UsageError: the model is not an `nn.Module`, the loss is not callable, or the data have another form.

    Example:
        >>> task = Task(nn.Linear(2, 2), nn.CrossEntropyLoss(), train=(torch.eye(2), torch.tensor([0, 1])))
        >>> task.size("train"), task.objective(samples=1).samples
        (2, 1)
    """

    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    train: Data
    test: Data | None = None
    metric: Metric | None = None
    name: str | None = None
    recipe: Mapping[str, Any] | None = None
    checkpoint: Source | None = None
    notices: tuple[str, ...] = ()
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    params: str | Sequence[str] | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise UsageError(f"expected the task's model to be a torch.nn.Module, found {_name(self.model)}")
        if not callable(self.loss):
            raise UsageError(
                f"expected the task's loss to be callable, found {_name(self.loss)}", fix="pass torch.nn.CrossEntropyLoss()"
            )
        if self.metric is not None and not callable(self.metric):
            raise UsageError(f"expected the task's metric to be callable, found {_name(self.metric)}")
        for split in ("train", "test"):
            data = as_data(getattr(self, split))
            object.__setattr__(self, split, data)
            if (data is None and split == "test") or self._columns(data):
                continue
            if one_batch(data) and not (isinstance(data, tuple) and len(data) == 2):
                object.__setattr__(self, split, [data])
            elif not isinstance(data, (DataLoader, Sequence)) or isinstance(data, str):
                raise UsageError(
                    f"expected {split} data as (x, y) tensors, a DataLoader or a list of batches, found {_name(data)}",
                    fix="a generator can be read only once: pass list(batches)",
                )

    def _columns(self, data: Any) -> bool:
        """Whether the data of a `ModelLoss` are tensors with a row for each sample, and no batches yet."""
        return as_model_loss(self.loss) is not None and columns(data) is not None

    @property
    def sha256(self) -> str | None:
        """Digest of the checkpoint's bytes; None for initial weights."""
        return self.checkpoint.sha256 if self.checkpoint is not None else None

    def data(self, split: str = "train", samples: int | None = None) -> Data:
        """A split, or its first `samples` samples in order.

        Raises:
            UsageError: no such split; `samples` out of range; a DataLoader that shuffles.
        """
        if split not in ("train", "test"):
            raise UsageError(f"expected split train or test, found {split!r}")
        data = self.train if split == "train" else self.test
        if data is None:
            raise UsageError(
                "expected a test split, found a task without one", fix="give the task test data, or use --split train"
            )
        if isinstance(data, DataLoader) and isinstance(data.sampler, _SHUFFLING):
            raise UsageError(
                f"expected {split} data in a fixed order, found a DataLoader that shuffles",
                fix="pass shuffle=False and transforms without randomness",
            )
        return data if samples is None else _first(data, samples, split, self._columns(data))

    def size(self, split: str = "train") -> int:
        """Number of samples of a split; iterates over a DataLoader."""
        data = self.data(split)
        return _count(data, self._columns(data))

    def objective(
        self,
        split: str = "train",
        *,
        samples: int | None = None,
        batch_size: int | None = None,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        memory: int | None = None,
        shard_basis: bool = False,
        params: str | Sequence[str] | None = None,
    ) -> Objective:
        """The task's loss on a split as a function of its weights.

        Args:
            split: "train" or "test".
            samples: use the first `samples` samples of the split, in order; None uses all.
            batch_size: samples per forward pass; it affects memory, not results.
            dtype: "float32" or "float64".
            device: device of the computation.
            memory, shard_basis: as for `Objective`.
            params: the weights that vary, as for `Objective`; None for those of the task.

        Raises:
            UsageError: as for `data` and `Objective`.
        """
        return Objective(
            self.model,
            self.loss,
            self.data(split, samples),
            dtype=dtype,
            device=device,
            metric=self.metric,
            batch_size=batch_size,
            memory=memory,
            shard_basis=shard_basis,
            params=self.params if params is None else params,
        )


def _first(data: Data, samples: int, split: str, whole: bool = False) -> Data:
    """The first `samples` samples; `whole` as in `_count`."""
    if samples < 1:
        raise UsageError(
            f"expected --samples of at least 1, found {samples}", fix=f"the {split} split has {_count(data, whole)}"
        )
    if whole or _is_pair(data):
        count = _count(data, whole)
        if samples > count:
            raise UsageError(f"expected at most {count} samples, all that the {split} split has, found --samples {samples}")
        cut: Data = _cut(data, samples)
        return cut
    if isinstance(data, DataLoader):
        _check_repeats(data, split)
    batches: list[Any] = []
    left = samples
    for batch in data:
        batches.append(batch if _length(batch) <= left else _cut(batch, left))
        left -= min(left, _length(batch))
        if not left:
            return batches
    there = samples - left
    raise UsageError(f"expected at most {there} samples, all that the {split} split has, found --samples {samples}")


def _check_repeats(loader: DataLoader[Any], split: str) -> None:
    """Raise UsageError if a second iteration differs; a list of its batches would wrongly look like fixed data."""
    first, again = (pytree.tree_leaves(next(iter(loader), None)) for _ in range(2))
    if len(first) != len(again) or not all(
        torch.equal(a, b) for a, b in zip(first, again, strict=True) if isinstance(a, Tensor)
    ):
        raise UsageError(
            f"expected the same {split} data at every reading, found a DataLoader that shuffles or augments",
            fix="pass shuffle=False and transforms without randomness",
        )


def _is_pair(data: Data) -> TypeGuard[tuple[Tensor, Tensor]]:
    """Whether the data are two tensors (x, y)."""
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data)


def _tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch."""
    return (t for t in pytree.tree_leaves(batch) if isinstance(t, Tensor))


def _length(batch: Any) -> int:
    """Number of samples of a batch: the rows of its first tensor."""
    first = next(_tensors(batch), None)
    if first is None or first.ndim == 0:
        raise UsageError(f"expected batches of tensors with a first dimension for samples, found {_name(batch)}")
    return len(first)


def _cut(batch: Any, rows: int) -> Any:
    """The first rows of every tensor of a batch."""
    return pytree.tree_map_only(Tensor, lambda t: t[:rows], batch)


def _count(data: Data, whole: bool = False) -> int:
    """Number of samples of any kind of data; `whole` for tensors of a `ModelLoss` that are no batches yet."""
    if whole:
        return _length(data)
    return len(data[1]) if _is_pair(data) else sum(_length(batch) for batch in data)


def _name(thing: Any) -> str:
    """The type of an object, as text."""
    return "a class, not an instance" if isinstance(thing, type) else f"an object of type {type(thing).__name__}"
