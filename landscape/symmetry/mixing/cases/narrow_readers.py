"""Weights whose channels are read by fewer linear maps than there are channels: some of their changes nothing sees.

Let W write h channels that the rest of the network reads as R z alone, with R of a rank r < h. Then W + N D is the same
function for every N with R N = 0 and every D, also where another summand, which no matrix can be written into, keeps the
channels from being mixed. Such changes are not worked out here; the place is said.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from landscape.symmetry.mixing.channels import Channels, Entry

Numbers = Int[np.ndarray, " n"]
Token = tuple[str, int, int]  # "map" and the number of an entry, or "left" or "right" of a product and its matrix


@dataclass
class Ways:
    """Where channels go.

    Attributes:
        bent: channels that something other than a linear map, a sum or a product of two activations reads.
        steps: channels, and those that they go on in, one by one, in the order of the network.
        products: channels of the two sides of each product, (matrices, n).
    """

    bent: set[int] = field(default_factory=set)
    steps: list[tuple[Numbers, Numbers]] = field(default_factory=list)
    products: list[tuple[Numbers, Numbers]] = field(default_factory=list)

    def lead(self, own: np.ndarray, to: np.ndarray) -> None:
        """Channels `own` go on in those of `to`."""
        own, to = (side.reshape(-1) for side in np.broadcast_arrays(own, to))
        kept = (own >= 0) & (to >= 0) & (own != to)
        if kept.any():
            one, two = np.unique(np.stack([own[kept], to[kept]], 1), axis=0).T
            self.steps.append((one, two))

    def meet(self, left: Numbers, right: Numbers) -> None:
        """A product of two activations, (matrices, n) each; samples of a batch count once."""
        both = np.unique(np.concatenate([left, right], 1), axis=0)
        self.products.append((both[:, : left.shape[1]], both[:, left.shape[1] :]))


class Readers:
    """What reads each channel of a network, and how many numbers of them at most."""

    def __init__(self, store: "Channels") -> None:
        self.store = store
        self.bent = np.array([n > 0 for n in store.normed], bool)
        self.bent[list(store.ways.bent)] = True
        for own, to in reversed(store.ways.steps):
            np.logical_or.at(self.bent, own, self.bent[to])
        self.sides = {
            (side, i, m): row
            for i, (left, right) in enumerate(store.ways.products)
            for side, rows in (("left", left), ("right", right))
            for m, row in enumerate(rows)
        }
        self.of = self._tokens()
        self._rows: dict[Token, float] = {}

    def _tokens(self) -> dict[int, frozenset[Token]]:
        """The readers of each channel that is read by nothing else."""
        of: dict[int, frozenset[Token]] = defaultdict(frozenset)
        direct: dict[int, set[Token]] = defaultdict(set)
        for k, entry in enumerate(self.store.entries):
            for c in entry.channels[~self.bent[entry.channels]].tolist() if entry.reads else ():
                direct[c].add(("map", k, 0))
        for token, row in self.sides.items():
            for c in row[~self.bent[row]].tolist():
                direct[c].add(token)
        of.update((c, frozenset(own)) for c, own in direct.items())
        for own, to in reversed(self.store.ways.steps):
            straight = ~self.bent[own]
            for c, t in zip(own[straight].tolist(), to[straight].tolist(), strict=True):
                of[c] |= of[t]
        return of

    def groups(self, channels: Numbers) -> list[tuple[Numbers, float]]:
        """Channels that the same linear maps read, and how many numbers these read of them at most."""
        by_readers: dict[frozenset[Token], list[int]] = {}
        for c in channels[~self.bent[channels]].tolist():
            by_readers.setdefault(self.of[c], []).append(c)
        return [(np.array(own), sum(self.rows(t) for t in tokens)) for tokens, own in by_readers.items()]

    def rows(self, token: Token) -> float:
        """How many numbers one reader makes of its channels at most."""
        if token not in self._rows:
            kind, k, m = token
            other = {"left": "right", "right": "left"}.get(kind)
            self._rows[token] = self.dimension(self.sides[other, k, m]) if other else self._kept(self.store.entries[k])
        return self._rows[token]

    def _kept(self, entry: "Entry") -> float:
        """Rows of a linear map, less what nothing reads of its results."""
        out = np.flatnonzero(self.store.call == entry.call)
        places, rest = divmod(len(entry.index), len(out))
        if rest:
            return len(entry.index)
        straight = self.groups(out)
        return places * (int(self.bent[out].sum()) + sum(min(len(own), rows) for own, rows in straight))

    def dimension(self, channels: Numbers) -> float:
        """Of the values of these channels at most: how many vectors write them."""
        behind = set(channels.tolist())
        for own, to in reversed(self.store.ways.steps):
            behind.update(own[np.isin(to, list(behind))].tolist())
        writers = [e for e in self.store.entries if not e.reads and not behind.isdisjoint(e.channels.tolist())]
        known = {c for e in writers for c in e.channels.tolist()}.union(*(to.tolist() for _, to in self.store.ways.steps))
        added = any(self.store.broken[c] or c in self.store.partner for c in behind)  # a value that is no channel
        return inf if behind - known or added else sum(map(self.vectors, writers))

    def vectors(self, entry: "Entry") -> float:
        """How many vectors one parameter writes: as many as the dimension of what it reads."""
        read = [e for e in self.store.entries if e.reads and e.call == entry.call and e.name == entry.name]
        places, rest = divmod(len(entry.index), sum(len(e.channels) for e in read) or 1)
        if rest or entry.constant:
            return len(entry.index)
        return places * sum(min(len(e.channels), self.dimension(e.channels)) for e in read) if read else len(entry.index)


def narrow_readers(store: "Channels", of: Numbers, side: Numbers) -> tuple[str, ...]:
    """The parameters that can change in ways that nothing reads, and that no mixing which was found contains.

    `of` and `side` are those of `landscape.symmetry.mixing.mixed_channels.Coordinates`. A matrix between linear maps makes all
    of these changes where the channels are no fewer than the numbers that they are written from.
    """
    readers = Readers(store)
    writing: dict[tuple[int, int], float] = defaultdict(float)
    writers = [e for e in store.entries if not e.reads and (len(e.index) > 1 or not e.constant)]
    for e in writers:
        for key in {(int(of[c]), int(side[c])) for c in e.channels.tolist()}:
            writing[key] += readers.vectors(e)
    found: dict[str, None] = {}
    for e in writers:
        if e.name in store.held | store.frozen | store.pinned:
            continue
        for own, rows in readers.groups(e.channels):
            mixed = store.mixed.issuperset(own.tolist()) and not store.partner.keys() & set(own.tolist())
            if rows < len(own) and not (mixed and writing[int(of[own[0]]), int(side[own[0]])] <= len(own)):
                found[f"{e.name}: {int(rows)} numbers are read of {len(own)} channels, so that changes may cancel"] = None
    return tuple(found)
