"""The data of an Objective: a fixed, ordered list of batches, resident on the device."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, RandomSampler

from landscape.errors import NumericalError, UsageError
from landscape.network.given.single_batch import TARGET_KEYS, one_batch, without_targets

Data = DataLoader[Any] | Sequence[Any] | tuple[Tensor, Tensor]

# Bytes of data above which batches are not merged, since merging copies them.
_COPIED = 1 << 28


@dataclass(frozen=True)
class Batch:
    """Arguments of the model and the target of the loss, for some consecutive samples.

    Attributes:
        args, kwargs: arguments of the model; in a divisible batch, the first dimension of every tensor is the samples.
        target: (B, ...).
        weights: (B,) float64, weights of the samples in the mean; None if all are 1.
        divisible: whether the batch can be split by samples. A batch of graphs cannot: its edges belong to no sample.
        whole: whether its one argument is the caller's batch, for a loss of (model, batch); see `losses.model_loss`.
        aligned: whether every tensor of such a batch has a row for each sample, so that it can be cut if that is asked for.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor
    weights: Tensor | None = None
    divisible: bool = True
    whole: bool = False
    aligned: bool = False

    def __len__(self) -> int:
        return len(self.target)

    def map(self, f: Any) -> "Batch":
        """Apply `f` to every tensor of inputs and target."""
        args, kwargs, target = pytree.tree_map_only(Tensor, f, (self.args, self.kwargs, self.target))
        return replace(self, args=args, kwargs=kwargs, target=target)

    @property
    def sample_weights(self) -> Float[Tensor, " B"]:
        """Weights of the samples in the mean, float64."""
        if self.weights is None:
            return torch.ones(len(self), dtype=torch.float64, device=self.target.device)
        return self.weights

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors of inputs and target."""
        return [t for t in pytree.tree_leaves((self.args, self.kwargs, self.target)) if isinstance(t, Tensor)]

    def first(self, n: int) -> "Batch":
        """The first n samples, or the whole batch if it cannot be split."""
        return self[:n] if self.divisible else self

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for t in self.tensors)

    @property
    def inputs(self) -> tuple[Any, ...] | dict[str, Any]:
        """Arguments of the model: a tuple of positional ones, or a dictionary of named ones."""
        return self.kwargs or self.args

    @property
    def raw(self) -> Any:
        """The batch as a caller passes it: (inputs..., target), a dictionary with "labels", or anything if it is `whole`."""
        if self.whole:
            return self.args[0]
        return {**self.kwargs, "labels": self.target} if self.kwargs else (*self.args, self.target)

    def __getitem__(self, rows: Any) -> "Batch":
        if not (self.divisible or self.aligned):
            raise UsageError(
                "expected a batch that can be split by samples, found one that cannot",
                fix="leave out the option that splits it",
            )
        part = self.map(lambda t: t[rows])
        return part if self.weights is None else replace(part, weights=self.weights[rows])


def read(data: Data, batch_size: int | None) -> list[Batch]:
    """Read the data once, in order.

    Args:
        data: a DataLoader, a list of batches ((inputs..., target) tuples or dictionaries with "labels"), or one such batch.
        batch_size: size of the batches that one batch is split into (default 256).

    Raises:
        UsageError: there are no data, a batch is not (inputs, target), or a loader shuffles or augments.
        NumericalError: an input or target is not finite; the message names its batch.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"expected a batch size of at least 1, found {batch_size}", fix="pass --batch-size 128")
    batches = [_batch(b, i) for i, b in enumerate(_iterate(data, batch_size))]
    if not sum(len(b) for b in batches):
        raise UsageError("expected data, found no samples", fix="check the split, the path and the filter of the data set")
    if isinstance(data, DataLoader):
        check_order(data, batches[0], lambda raw: _batch(raw, 0))
    for i, batch in enumerate(batches):
        for t in batch.tensors:
            check_stored(t, i)
            if (t.is_floating_point() or t.is_complex()) and not bool(torch.isfinite(t).all()):
                raise NumericalError(f"expected finite data, found NaN or infinity in batch {i}", fix="clean the data set")
    return [b for b in batches if len(b)]


def placed(batches: list[Batch], device: torch.device, dtype: torch.dtype) -> list[Batch]:
    """The same batches on a device; floating-point tensors in `dtype`, integers as they are."""

    def convert(t: Tensor) -> Tensor:
        detached = t.clone() if t.is_inference() else t.detach()  # autograd refuses inference tensors
        return detached.to(device=device, dtype=dtype if t.is_floating_point() else None)

    return [b.map(convert) for b in batches]


def split(batches: list[Batch], size: int) -> list[Batch]:
    """The same samples in batches of at most `size`; a batch that cannot be split is kept."""
    return [p for b in batches for p in ([b[i : i + size] for i in range(0, len(b), size)] if b.divisible else [b])]


def merged(batches: list[Batch]) -> Batch | None:
    """All samples as one batch; None if their shapes or their other arguments differ."""
    if len(batches) == 1:
        return batches[0]
    if not all(b.divisible or b.aligned for b in batches):
        return None
    leaves, kinds = zip(*(pytree.tree_flatten((b.args, b.kwargs, b.target)) for b in batches), strict=True)
    columns = list(zip(*leaves, strict=True)) if all(k == kinds[0] for k in kinds) else []
    alike = columns and all(
        all(isinstance(t, Tensor) and t.shape[1:] == c[0].shape[1:] for t in c)
        if isinstance(c[0], Tensor)
        else all(v == c[0] for v in c)
        for c in columns
    )
    if not alike:
        return None
    joined = [torch.cat(c) if isinstance(c[0], Tensor) else c[0] for c in columns]
    plain = all(b.weights is None for b in batches)
    weights = None if plain else torch.cat([b.sample_weights for b in batches])
    args, kwargs, target = pytree.tree_unflatten(joined, kinds[0])
    return replace(batches[0], args=args, kwargs=kwargs, target=target, weights=weights)


def regrouped(batches: list[Batch], size: int) -> list[Batch]:
    """The same samples in batches of `size`, the last one smaller; batches that cannot be merged are only split."""
    if all(len(b) % size == 0 for b in batches[:-1]):
        return split(batches, size)
    whole = merged(batches) if sum(b.nbytes for b in batches) <= _COPIED else None
    return split(batches if whole is None else [whole], size)


def one_input(batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """All samples as two tensors (x, y).

    Raises:
        UsageError: the model takes more than one input.
    """
    if any(b.kwargs or len(b.args) != 1 for b in batches):
        raise UsageError("expected a model that takes one tensor, found one with several arguments")
    return torch.cat([b.args[0] for b in batches]), torch.cat([b.target for b in batches])


def select(batches: list[Batch], rows: Tensor) -> list[Batch]:
    """The samples with these (ascending) indices, batch by batch."""
    out, start = [], 0
    for b in batches:
        inside = rows[(rows >= start) & (rows < start + len(b))] - start
        if len(inside):
            out.append(b if len(inside) == len(b) else b[inside.to(b.target.device)])
        start += len(b)
    return out


def between(batches: list[Batch], first: int, last: int) -> list[Batch]:
    """The samples with indices from `first` up to `last`, batch by batch: whole batches unchanged, parts as views."""
    out, start = [], 0
    for b in batches:
        low, high = max(first - start, 0), min(last - start, len(b))
        if low < high:
            out.append(b if high - low == len(b) else b[low:high])
        start += len(b)
    return out


def shares(batches: list[Batch], whole: list[Batch]) -> list[tuple[Batch, float]]:
    """Batches with their shares of the weighted mean over all samples of `whole`; batches of weight 0 are left out."""

    def weight(b: Batch) -> float:
        return len(b) if b.weights is None else float(b.weights.sum())

    total = sum(map(weight, whole))
    if total <= 0:
        raise UsageError("expected targets that count, found that the loss ignores all of them")
    return [(b, w / total) for b in batches if (w := weight(b)) > 0]


def counted(batches: list[Batch], n: int) -> Batch:
    """At most n samples of positive weight, spread over all batches that can be merged; a batch that cannot be split is kept.

    The first samples of a data set are often unlike the rest: unlabelled, or all of one class.

    Raises:
        UsageError: no sample has a positive weight.
    """
    alive = [(b, (b.sample_weights > 0).nonzero()[:, 0]) for b in batches]
    alive = [(b, rows) for b, rows in alive if len(rows)]
    if not alive:
        raise UsageError("expected targets that count, found that the loss ignores all of them")
    first = alive[0][0]
    if not first.divisible:
        return first
    parts = []
    step = max(1, len(alive) // n)
    spread = alive[::step][:n]
    for i, (b, rows) in enumerate(spread):
        quota = n // len(spread) + (i < n % len(spread))
        picked = rows[torch.linspace(0, len(rows) - 1, min(quota, len(rows))).round().long().to(rows.device)]
        if b.divisible and merged([first[:1], b[picked]]) is not None:
            parts.append(b[picked])
    whole = merged(parts)
    return alive[0][0][alive[0][1][:n]] if whole is None else whole


def _iterate(data: Data, batch_size: int | None) -> Iterable[Any]:
    """Batches as the caller passed them; (x, y) tensors are split."""
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
        x, y = data
        check_stored(x, 0)
        check_stored(y, 0)
        if len(x) != len(y):
            raise UsageError(f"expected as many targets as inputs, found {len(x)} inputs and {len(y)} targets")
        size = batch_size or 256
        return ((x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))
    if one_batch(data):
        return (part.raw for part in split([_batch(data, 0)], batch_size or 256))
    if not isinstance(data, (DataLoader, Sequence)):
        raise UsageError(
            f"expected a DataLoader, a list of batches or two tensors (x, y), found {type(data).__name__}",
            fix=without_targets(data),
        )
    return data


def _batch(raw: Any, number: int) -> Batch:
    """Convert one batch of the caller's to model arguments and target."""
    if isinstance(raw, Mapping):
        key = next((k for k in TARGET_KEYS if k in raw), None)
        if key is not None:
            return _aligned(Batch((), {k: v for k, v in raw.items() if k != key}, torch.as_tensor(raw[key])), number)
    elif isinstance(raw, Sequence) and len(raw) >= 2 and isinstance(raw[-1], Tensor):
        return _aligned(Batch(tuple(raw[:-1]), {}, raw[-1]), number)
    raise UsageError(
        f"expected batch {number} to be (inputs, target) or a dictionary with 'labels', found {type(raw).__name__}",
        fix="wrap the data so that each batch ends with its targets",
    )


def _aligned(batch: Batch, number: int) -> Batch:
    """The batch, marked as not divisible if only some of its tensors have one row for each sample, as in a graph."""
    if batch.target.ndim == 0:
        raise UsageError(f"expected the targets of batch {number} to have a first dimension for samples, found a scalar")
    inputs = [t for t in pytree.tree_leaves((batch.args, batch.kwargs)) if isinstance(t, Tensor)]
    misaligned = [t for t in inputs if t.ndim == 0 or len(t) != len(batch)]
    if len(misaligned) == len(inputs) and misaligned:
        rows = "a scalar" if misaligned[0].ndim == 0 else f"{len(misaligned[0])} rows"
        raise UsageError(f"expected {len(batch)} rows in the inputs of batch {number}, found {rows}")
    return replace(batch, divisible=bool(inputs) and not misaligned and not _opaque(batch))


def _opaque(batch: Batch) -> bool:
    """Whether any argument cannot be split by samples: a list of strings, a graph, an object of another class."""
    options = (bool, int, float, str, type(None))
    return any(
        not isinstance(leaf, Tensor)
        for value in (*batch.args, *batch.kwargs.values())
        if not isinstance(value, options)
        for leaf in pytree.tree_leaves(value)
    )


def check_stored(t: Tensor, number: int) -> None:
    """Refuse tensors that cannot be split into batches."""
    if t.is_meta:
        raise UsageError(f"expected data, found a tensor without data (device meta) in batch {number}")
    if t.layout != torch.strided or t.is_nested:
        raise UsageError(f"expected dense tensors, found a sparse or nested one in batch {number}", fix="pass x.to_dense()")


def check_order(loader: DataLoader[Any], first: Batch, made: Callable[[Any], Batch]) -> None:
    """Refuse a loader that gives different data at its second reading; `made` converts one of its batches."""
    fix = "pass shuffle=False and transforms without randomness"
    if isinstance(loader.sampler, RandomSampler):
        raise UsageError("expected data in a fixed order, found a DataLoader that shuffles", fix=fix)
    again = made(next(iter(loader)))
    if not all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True)):
        raise UsageError("expected the same data at every reading, found a DataLoader that shuffles or augments", fix=fix)
