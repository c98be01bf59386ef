"""The flat weight vector and the named tensors: which slice belongs to which parameter, and which weights form a filter."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from landscape.errors import MismatchError
from landscape.network.given.chosen_parameters import matching, varying
from landscape.network.neurons import Filters, by_axes, of_transposed, read_from, watched

Kind = Literal["weight", "bias", "norm"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_NORM_NAMES = re.compile(r"Norm(\d[dD])?(Act(\d[dD])?)?$")  # classes of other libraries, as LlamaRMSNorm and T5LayerNorm
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Entry:
    """One parameter tensor and its slice of the flat vector.

    Attributes:
        name: as in `model.named_parameters()`.
        shape: of the tensor.
        start, stop: its slice of the flat vector.
        kind: "weight" (a tensor of two or more dimensions), "norm" (scale or shift of a normalisation layer of PyTorch, or a
            vector of a class whose name ends like theirs), or "bias" (any other tensor of one dimension or none).
        filters: for a weight, which elements produce one output (see `Layout.of`); None for biases and norm layers, and for
            a weight whose uses contradict one another, so that its filters are unknown.
    """

    name: str
    shape: torch.Size
    start: int
    stop: int
    kind: Kind
    filters: Filters | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    @property
    def layer(self) -> str:
        """Name of the module that owns the tensor; "" for the model itself."""
        return self.name.rpartition(".")[0]


class Layout:
    """Arrangement of named parameters in one flat vector theta of length P.

    Args:
        entries: the parameters in the order of the vector, without gaps.

    Example:
        >>> layout = Layout.of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        >>> layout.size, [e.name for e in layout], layout.only("2.*").size
        (13, ['0.weight', '0.bias', '2.weight', '2.bias'], 4)
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.size = self.entries[-1].stop if self.entries else 0

    @classmethod
    def of(
        cls,
        model: nn.Module,
        example: tuple[Any, ...] | Mapping[str, Any] | None = None,
        params: Sequence[str] | None = None,
    ) -> "Layout":
        """The parameters of a model that vary, shared ones once: see `landscape.network.given.chosen_parameters.varying`.

        A filter, or neuron, is the set of weights that produce one output: a row of a linear layer's weight, a column of
        GPT-2's Conv1D, an output channel of a convolution (with groups, of one group). The filters of a lookup table are its
        rows, also if the output layer is tied to it (Li et al. 2018). Filters are determined from how a pass uses each weight.
        A weight that enters no product with an activation, or any weight without an example, follows the class of its module:
        the first index, and the output channels of a transposed convolution. If two uses of a weight contradict each other,
        its filters are unknown.

        Args:
            model: the network, in the mode in which it will be used; it is left as it is.
            example: its arguments for a few samples, a tuple or a dictionary of named ones.
            params: patterns of the names that vary; None for those with `requires_grad`, or all if none has it.

        Raises:
            UsageError: the model has no parameters, or a pattern matches none.

        Cost: with an example, a forward pass and a copy of the weights.

        Example:
            >>> class Conv1D(nn.Linear):
            ...     def forward(self, x):
            ...         return x @ self.weight
            >>> layout = Layout.of(Conv1D(5, 3, bias=False), (torch.ones(2, 3),))  # a weight (3, 5): 3 inputs, 5 outputs
            >>> layout.filters.tolist()
            [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
        """
        args, kwargs = ((), example) if isinstance(example, Mapping) else (example or (), {})
        uses = {} if example is None else watched(model, args, kwargs)
        entries, start = [], 0
        for name, p in varying(model, params).items():
            module = model.get_submodule(name.rpartition(".")[0])
            kind: Kind = "norm" if _normalizes(module, p) else "bias" if p.ndim <= 1 else "weight"
            filters = read_from(p.shape, uses.get(name, []), _usual(module, p)) if kind == "weight" else None
            entries.append(Entry(name, p.shape, start, start + p.numel(), kind, filters))
            start += p.numel()
        return cls(entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in order."""
        return tuple(e.name for e in self.entries)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
        """Concatenate the named tensors; a copy.

        Raises:
            MismatchError: a name is missing or a shape differs.
        """
        parts = []
        for e in self.entries:
            if e.name not in tensors or tensors[e.name].shape != e.shape:
                found = "nothing" if e.name not in tensors else str(tuple(tensors[e.name].shape))
                raise MismatchError(f"expected {e.name} of shape {tuple(e.shape)}, found {found}")
            parts.append(tensors[e.name].detach().reshape(-1))
        return torch.cat(parts)

    def unflatten(self, flat: Float[Tensor, "*batch P"]) -> dict[str, Tensor]:
        """Views of a flat vector, or of a stack of them, by name; leading dimensions are kept.

        A tensor of (real, imaginary) pairs is copied if its offset is odd, since PyTorch cannot view it as complex then.
        """
        if flat.shape[-1] != self.size:
            raise MismatchError(f"expected a vector of {self.size} weights, found {flat.shape[-1]}")
        return {e.name: _paired(flat[..., e.start : e.stop].view(flat.shape[:-1] + e.shape)) for e in self.entries}

    def only(self, *patterns: str) -> "Layout":
        """The parameters whose name matches a shell pattern, packed into a shorter vector.

        Raises:
            UsageError: a pattern matches nothing; the message has the nearest names.
        """
        chosen = {name for pattern in patterns for name in matching(self.names, pattern)}
        entries, start = [], 0
        for e in self.entries:
            if e.name in chosen:
                entries.append(replace(e, start=start, stop=start + e.size))
                start += e.size
        return Layout(entries)

    @property
    def layers(self) -> dict[str, tuple[Entry, ...]]:
        """Entries grouped by the module that owns them, in order."""
        groups: dict[str, list[Entry]] = {}
        for e in self.entries:
            groups.setdefault(e.layer, []).append(e)
        return {name: tuple(es) for name, es in groups.items()}

    @cached_property
    def filters(self) -> Int[Tensor, " P"]:
        """Index of the filter or neuron of each weight, counted through all layers; -1 where there is none.

        Biases, norm layers, and weights whose filters are unknown have none.
        """
        ids = torch.full((self.size,), -1, dtype=torch.long)
        count = 0
        for e in self.entries:
            if e.filters is not None:
                ids[e.start : e.stop] = e.filters.ids.reshape(-1) + count
                count += e.filters.count
        return ids

    @property
    def not_known(self) -> tuple[str, ...]:
        """Names of the weights whose filters are unknown because their uses contradict one another."""
        return tuple(e.name for e in self.entries if e.kind == "weight" and e.filters is None)

    def mask(self, *kinds: Kind) -> Tensor:
        """(P,) booleans: whether each weight is of one of these kinds."""
        out = torch.zeros(self.size, dtype=torch.bool)
        for e in self.entries:
            out[e.start : e.stop] = e.kind in kinds
        return out


def filter_norms(flat: Float[Tensor, " P"], filters: Int[Tensor, " P"]) -> Float[Tensor, " F"]:
    """Euclidean norm of every filter's slice of a flat vector, in float64; F is the number of filters."""
    inside = filters >= 0
    count = int(filters.max()) + 1 if bool(inside.any()) else 0
    sums = torch.zeros(count, dtype=torch.float64, device=flat.device)
    return sums.index_add_(0, filters[inside], flat[inside].double().square()).sqrt()


def _paired(t: Tensor) -> Tensor:
    """The tensor, or a copy that `torch.view_as_complex` accepts if its last axis holds real and imaginary parts."""
    misaligned = t.ndim > 0 and t.shape[-1] == 2 and bool(t.storage_offset() % 2 or any(s % 2 for s in t.stride()[:-1]))
    return t.clone(memory_format=torch.contiguous_format) if misaligned else t


def _normalizes(module: nn.Module, p: Tensor) -> bool:
    """Whether a parameter belongs to a normalisation layer, by the class of its module or by that class's name."""
    return isinstance(module, _NORMS) or (p.ndim <= 1 and _NORM_NAMES.search(type(module).__name__) is not None)


def _usual(module: nn.Module, p: Tensor) -> Filters:
    """Filters of a weight by the class of its module."""
    groups = module.groups if isinstance(module, nn.modules.conv._ConvNd) and p is module.weight else 1
    return of_transposed(p.shape, groups) if isinstance(module, _TRANSPOSED) else by_axes(p.shape, (0,), groups)
