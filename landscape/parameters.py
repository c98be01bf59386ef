"""The flat vector and the named tensors: which slice of it is which weight, filter, neuron, bias or norm layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from landscape.errors import MismatchError, UsageError

Kind = Literal["weight", "bias", "norm"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Entry:
    """One parameter tensor and its place in the flat vector.

    Attributes:
        name: as in `model.named_parameters()`.
        shape: of the tensor.
        start, stop: its slice of the flat vector.
        kind: "weight" (a tensor of two or more dimensions), "norm" (scale or shift of a normalisation layer), or "bias" (any
            other tensor of one dimension or none).
        filter_axis: for a weight, the axis whose index is the filter or neuron: the first, as in Li et al. (2018), except in a
            transposed convolution, which keeps its output channels on the second. None for biases and norm layers.
    """

    name: str
    shape: torch.Size
    start: int
    stop: int
    kind: Kind
    filter_axis: int | None

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    @property
    def layer(self) -> str:
        """Name of the module that owns the tensor; "" for the model itself."""
        return self.name.rpartition(".")[0]


class Layout:
    """How named parameters lie in one flat vector theta of length P.

    Args:
        entries: the parameters in the order in which they lie in the vector, without gaps.

    Example:
        >>> layout = Layout.of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        >>> layout.size, [e.name for e in layout], layout.only("2.*").size
        (13, ['0.weight', '0.bias', '2.weight', '2.bias'], 4)
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.size = self.entries[-1].stop if self.entries else 0

    @classmethod
    def of(cls, model: nn.Module) -> "Layout":
        """The trainable parameters of a model, shared ones once; all of them where none is marked trainable.

        Raises:
            UsageError: the model has no parameters.
        """
        named = dict(model.named_parameters())
        if not named:
            raise UsageError(
                "expected a model with parameters, found none", fix="pass the network itself, after its layers are made"
            )
        trainable = {name: p for name, p in named.items() if p.requires_grad} or named
        entries, start = [], 0
        for name, p in trainable.items():
            kind, axis = _role(model.get_submodule(name.rpartition(".")[0]), p)
            entries.append(Entry(name, p.shape, start, start + p.numel(), kind, axis))
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
        """Views of a flat vector, or of a stack of them, under their names; leading dimensions are kept."""
        if flat.shape[-1] != self.size:
            raise MismatchError(f"expected a vector of {self.size} weights, found {flat.shape[-1]}")
        lead = flat.shape[:-1]
        return {e.name: flat[..., e.start : e.stop].view(*lead, *e.shape) for e in self.entries}

    def only(self, *patterns: str) -> "Layout":
        """The parameters whose name matches a shell pattern, packed into a shorter vector.

        Raises:
            UsageError: a pattern matches nothing; the message lists the names there are.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            hits = {n for n in self.names if fnmatchcase(n, pattern) or n.startswith(pattern + ".")}
            if not hits:
                listed = ", ".join(self.names[:12]) + (", ..." if len(self) > 12 else "")
                raise UsageError(
                    f"expected a pattern that matches a parameter, found {pattern!r}", fix=f"the names are {listed}"
                )
            chosen |= hits
        entries, start = [], 0
        for e in self.entries:
            if e.name in chosen:
                entries.append(Entry(e.name, e.shape, start, start + e.size, e.kind, e.filter_axis))
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
        """The filter or neuron that each weight belongs to, numbered through all layers; -1 for biases and norms."""
        ids = torch.full((self.size,), -1, dtype=torch.long)
        count = 0
        for e in self.entries:
            if e.filter_axis is not None:
                n = e.shape[e.filter_axis]
                along = [n if axis == e.filter_axis else 1 for axis in range(len(e.shape))]
                ids[e.start : e.stop] = torch.arange(count, count + n).view(along).expand(e.shape).reshape(-1)
                count += n
        return ids

    def mask(self, *kinds: Kind) -> Tensor:
        """(P,) booleans: whether a weight is of one of these kinds."""
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


def _role(module: nn.Module, p: Tensor) -> tuple[Kind, int | None]:
    """Kind and filter axis of a parameter that belongs to `module`."""
    if isinstance(module, _NORMS):
        return "norm", None
    if p.ndim <= 1:
        return "bias", None
    return "weight", 1 if isinstance(module, _TRANSPOSED) else 0
