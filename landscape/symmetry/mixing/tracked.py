"""An activation whose elements carry the channel and the vector that they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from landscape.symmetry.mixing.channels import Channels, Numbers

OPAQUE = -1  # an element that is no channel of a linear map
ZERO = -2  # an element that is always zero
_BITS = 32
_HASH = np.uint64(0x9E3779B97F4A7C15)
_LOOKED_AT = 5000  # elements that tell the axis of the vectors
Codes = Int[Tensor, "..."]


@dataclass(frozen=True, eq=False)
class Mark:
    """What is known of a value beside its channels, for rules that recognise a construction of several calls.

    Attributes:
        kind: "turned" (channels times fixed numbers), "scores" (products of queries and keys), "weights" (a softmax of them,
            which sums to one), or "negated" (minus a value without channels).
        codes: of the channels, or of what changes along the last axis of the scores, (..., n, h).
        others: of what changes along the axis before it.
        place: the call that gave the scores, if a matrix may pass them.
        number: of the scores.
        by: what channels are multiplied by.
    """

    kind: str
    codes: Codes | None = None
    others: Codes | None = None
    place: str = ""
    number: int = -1
    by: Any = None

    def swapped(self) -> "Mark":
        """Of the scores with their last two axes swapped."""
        return Mark(self.kind, self.others, self.codes, self.place, self.number)


@dataclass(frozen=True, eq=False)
class Tracked:
    """An activation.

    Attributes:
        codes: in its shape: vector * 2^32 + channel, `OPAQUE` or `ZERO`. A matrix may mix elements of one vector.
        learned: whether it depends on a parameter.
        mark: see `Mark`.
        origin: the value without channels of which this one is a rearrangement, if it is one.
        given: whether it is the same for every input: made of parameters and constants alone.
        beside: axes, counted from the back, along which such values stand beside others.
    """

    codes: Codes
    learned: bool = True
    mark: Mark | None = None
    origin: "Tracked | None" = None
    given: bool = False
    beside: frozenset[int] = frozenset()

    @property
    def source(self) -> "Tracked":
        """`origin`, or the value itself."""
        return self if self.origin is None else self.origin

    @property
    def shape(self) -> torch.Size:
        """Shape of the activation."""
        return self.codes.shape

    @property
    def opaque(self) -> bool:
        """Whether no element is a channel."""
        return _one(self.codes) if _single(self.codes) else bool((self.codes < 0).all())


def opaque(shape: torch.Size | tuple[int, ...], learned: bool = True, mark: Mark | None = None) -> Tracked:
    """A value without channels."""
    return Tracked(torch.full((), OPAQUE).expand(shape), learned, mark)


def vectors(shape: Sequence[int], channels: Numbers, axis: int = -1) -> Codes:
    """Codes of a value of this shape: one vector along `axis` for each position on the other axes, with these channels."""
    lead = [n for d, n in enumerate(shape) if d != axis % len(shape)]
    number = torch.arange(int(np.prod(lead, dtype=np.int64))).view(*lead, 1)
    return ((number << _BITS) + torch.from_numpy(channels)).movedim(-1, axis)


def channel(codes: Codes) -> np.ndarray:
    """The channel of each element, negative where there is none."""
    return torch.where(codes >= 0, codes & ((1 << _BITS) - 1), codes).numpy()


def vector(codes: Codes) -> np.ndarray:
    """The vector of each element."""
    return (codes >> _BITS).numpy()


def distinct(codes: Codes) -> Numbers:
    """The distinct channels of a value."""
    axis = vector_axis(codes)
    if axis is not None:
        own = channel(codes.movedim(axis, -1).reshape(-1, codes.shape[axis]))
        if (own == own[0]).all():
            return np.unique(own[0][own[0] >= 0])
    own = channel(codes).reshape(-1)
    return np.asarray(np.unique(own[own >= 0]))


def vector_axis(codes: Codes) -> int | None:
    """The axis along which vectors lie: the channel changes along it and the vector does not."""
    found = []
    for axis, n in enumerate(codes.shape):
        if n < 2:
            continue
        first, second = (codes.select(axis, i).reshape(-1) for i in (0, 1))
        if len(first) > _LOOKED_AT:
            first, second = (x[:: len(x) // _LOOKED_AT] for x in (first, second))
        there = (first >= 0) & (second >= 0)
        if not bool(there.any()):
            continue
        first, second = first[there], second[there]
        if bool((vector(first) == vector(second)).all()) and bool((channel(first) != channel(second)).any()):
            found.append(axis)
    return found[-1] if found else None


@dataclass(frozen=True, eq=False)
class Column:
    """The columns of one vector among those that an operation contracts."""

    at: Numbers
    channels: Numbers


def columns(store: Channels, codes: Codes, where: str) -> list[Column]:
    """What a linear map over the last axis reads: one `Column` for each vector of a row.

    All rows must be alike: channels that stand in the same column are linked, and those that share a column with a value that
    is no channel are broken. A vector that lacks a channel of another is split from it.
    """
    rows = codes.reshape(-1, codes.shape[-1])
    own = channel(rows)
    if (own < 0).all():
        return []
    number = vector(rows)
    if len(rows) > 1 and not (own == own[0]).all() and _crossing(store, own, number):
        store.doubt(own.reshape(-1), f"{where} reads across the channels of its input")
        return []
    first = own[0]
    if not (own == first).all():
        first = own.max(0)
        bad = (own == OPAQUE).any(0) & (first >= 0)
        if bad.any():
            store.break_(own[:, bad].reshape(-1), f"{where} reads it in one place and another value in others", linear=True)
        store.link(np.broadcast_to(first, own.shape).reshape(-1), own.reshape(-1))
        store.ways.lead(own, first)
    for call in np.unique(store.call[np.unique(own[own >= 0])]).tolist():
        store.uses[call] += 1
    if not (own == own[0]).all():
        store.lose(own.reshape(-1), f"{where} reads rows of different kinds")
    own_vector = number[own.min(1).argmax()]
    kept = np.flatnonzero(first >= 0)
    groups = np.unique(own_vector[kept], return_inverse=True)[1].reshape(-1)
    distinct, signature = _signatures(first[kept], groups)
    store.split(distinct, signature)
    store.apart(distinct)
    out = []
    for g in range(int(groups.max()) + 1 if len(groups) else 0):
        at = kept[groups == g]
        if len(np.unique(first[at])) < len(at):
            store.break_(first[at], f"{where} reads it twice", linear=True)
        out.append(Column(at, first[at]))
    return out


def _signatures(channels: Numbers, places: np.ndarray) -> tuple[Numbers, np.ndarray]:
    """The distinct channels, and for each a number that tells the set of places where it occurs."""
    kept = channels.reshape(-1) >= 0
    own, place = channels.reshape(-1)[kept], places.reshape(-1)[kept]
    n = int(place.max(initial=0)) + 1
    pairs = np.unique(own * n + place)  # one number for each pair: much faster than rows
    own, place = pairs // n, pairs % n
    mixed = (place.astype(np.uint64) + np.uint64(1)) * _HASH
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    distinct, inverse = np.unique(own, return_inverse=True)
    total = np.zeros(len(distinct), np.uint64)
    np.add.at(total, inverse.reshape(-1), mixed)
    return distinct, total


def _crossing(store: Channels, own: np.ndarray, number: np.ndarray) -> bool:
    """Whether the first two rows hold different channels of the same vectors."""
    one, two = (store.call[own[i][own[i] >= 0]] << _BITS | number[i][own[i] >= 0] for i in (0, 1))
    return bool(len(np.intersect1d(one, two)))


def labelled(store: Channels, codes: Codes, labels: Tensor) -> None:
    """Split channels whose elements of one vector have different labels."""
    there = codes >= 0
    flat, label = codes[there], labels.expand(codes.shape)[there]
    own, number = channel(flat), vector(flat)
    least = np.full(int(number.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, number, label.numpy())
    # The label relative to the vector's smallest one, so that vectors that differ from each other are no reason to split.
    relative = label.numpy() - least[number]
    distinct, signature = _signatures(own, number * (int(relative.max()) + 1) + relative)
    store.split(distinct, signature)


def _single(codes: Codes) -> bool:
    return all(stride == 0 or n == 1 for stride, n in zip(codes.stride(), codes.shape, strict=True))


def _one(codes: Codes) -> bool:
    return codes.numel() == 0 or bool(codes.reshape(-1)[0] < 0)
