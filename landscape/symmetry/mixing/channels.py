"""The channels of a network's linear maps, and what the rest of the network does with them.

Every linear map starts new channels. The rules record what writes them, what reads them, which must be mixed by the same
matrix, and which cannot be mixed at all; `mixed_channels` and `constants` draw the conclusions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.mixing.cases.narrow_readers import Ways
from landscape.symmetry.mixing.mixtures import BatchNormMean, Reader, Shift, Trade

Numbers = Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Entry:
    """Weights that write channels, or read them: each row holds one weight for each channel.

    Attributes:
        name: of the parameter.
        index: (r, n) positions in the flattened parameter.
        channels: (n,) what the columns belong to.
        reads: False for weights that write the channels, True for weights that read them.
        call: number of the call that uses them.
        constant: whether adding d to every row adds d to the channels, whatever the input: a bias, or a whole table.
    """

    name: str
    index: Tensor
    channels: Numbers
    reads: bool
    call: int
    constant: bool = False


@dataclass(frozen=True, eq=False)
class Sum:
    """Channels that are the sum of other channels times a number, one by one; a weighted mean over positions counts as one."""

    total: Numbers
    parts: tuple[Numbers, ...]
    factors: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """Channels that a linear map without a bias reads, and those that it writes; `after` as many sums as there were."""

    part: Numbers
    total: Numbers
    after: int
    reason: str


@dataclass(frozen=True, eq=False)
class Taken:
    """Channels into which a constant may be added, because what reads them takes it away.

    Attributes:
        channels: (n,) one vector.
        by: "bias" of a linear map, running "mean", "softmax", mean of a "layer norm", or the loss of the "outputs".
        reader: the linear map for "bias".
        buffer: name and positions of the running mean.
    """

    channels: Numbers
    by: str
    reader: Reader | None = None
    buffer: tuple[str, Tensor] | None = None


@dataclass
class Channels:
    """All channels of a network, numbered from 0.

    Attributes:
        key: channels with different keys are never mixed with each other.
        call: the call that started the channel.
        broken: why it cannot be mixed, "" if it can.
        doubtful: what nobody has worked out about it, "" if nothing; only of interest if it is not broken.
        separate: channel -> the BatchNorm that gives each of them a factor of its own, which a matrix might pass.
        rigid: whether it is written by something other than a linear map, so that no matrix can be written into it.
        normed: 0, 1 if an RMSNorm reads it, 2 if a LayerNorm does.
        normal: channels that a normalization gives.
        partner: channel -> the one that a rotary embedding turns it with.
        fixed: channels to which no constant may be added.
        lost, hidden: channel -> the place behind which constants are not followed; such places without channels.
        trades: those that a single call shows.
        passes: linear maps without a bias, behind which they are not followed either.
        unequal: sums of values after different gains.
        ways: where channels go.
        cut_off: elements of parameters that no output reads.
        made, tensors: see `landscape.symmetry.mixing.cases.fixed_values.value_of`.
        same: channel that is another one times a number -> that one.
        factor: channel -> that number.
        turned: those of them that a rotary embedding adds to others.
        direct, through: call -> the values that its weights read, and those that all linear maps before them read too.
        uses: how many operations read the channels of a call.
        frozen, held: parameters that are not trained, and those that may not change.
        shared: parameters that several calls use.
        even_gains: parameters of which all elements are equal.
        pinned: those of them of which one use is neither a linear map nor a sum.
        contracted: products of two activations that a matrix may pass, if these channels are mixed.
        mixed: channels of the mixings that were found.
        open_scores: products of queries and keys of which it is not known yet what reads them.
        score_biases: parameters that are added to scores.
        centred: vectors that a LayerNorm has centred -> its shift.
        readers: linear maps, each with its bias.
        means: BatchNorms with a running mean and a shift.
        gain: name and position of the normalization's gain between a normalized channel and what reads it.
    """

    key: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    call: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    broken: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    rigid: list[bool] = field(default_factory=list)
    normed: list[int] = field(default_factory=list)
    normal: set[int] = field(default_factory=set)
    gain: dict[int, tuple[str, int]] = field(default_factory=dict)
    separate: dict[int, str] = field(default_factory=dict)
    partner: dict[int, int] = field(default_factory=dict)
    links: list[tuple[Numbers, Numbers, int]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)
    lost: dict[int, str] = field(default_factory=dict)
    hidden: dict[str, None] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    ways: Ways = field(default_factory=Ways)
    cut_off: tuple[Shift, ...] = ()
    made: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    unequal: set[int] = field(default_factory=set)
    same: dict[int, int] = field(default_factory=dict)
    factor: dict[int, float] = field(default_factory=dict)
    turned: set[int] = field(default_factory=set)
    direct: dict[int, set[Any]] = field(default_factory=dict)
    through: dict[int, set[Any]] = field(default_factory=dict)
    uses: Counter[int] = field(default_factory=Counter)
    beside: list[tuple[int, str]] = field(default_factory=list)
    frozen: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    even_gains: frozenset[str] = frozenset()
    pinned: set[str] = field(default_factory=set)
    contracted: dict[str, list[Numbers]] = field(default_factory=dict)
    mixed: set[int] = field(default_factory=set)
    open_scores: dict[int, tuple[Numbers, str]] = field(default_factory=dict)
    score_biases: list[Leaf] = field(default_factory=list)
    centred: dict[tuple[int, ...], Leaf | None] = field(default_factory=dict)
    readers: list[tuple[Entry, Leaf | None]] = field(default_factory=list)
    means: list[BatchNormMean] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    unread: dict[str, None] = field(default_factory=dict)
    unread_matrices: dict[str, None] = field(default_factory=dict)

    def fresh(self, n: int, where: str, *, rigid: bool = False) -> Numbers:
        """`n` new channels of a new call in the layer `where`."""
        start, call = len(self.key), len(self.calls)
        self.calls.append(where)
        self.key = np.concatenate([self.key, np.full(n, self._newest() + 1)])
        self.call = np.concatenate([self.call, np.full(n, call)])
        self.broken += [""] * n
        self.doubtful += [""] * n
        self.rigid += [rigid] * n
        self.normed += [0] * n
        return np.arange(start, start + n)

    def _newest(self) -> int:
        return int(self.key.max()) if len(self.key) else -1

    def writes(self, name: str, index: Tensor, channels: Numbers, *, constant: bool = False) -> None:
        """Record weights that write these channels."""
        self.entries.append(Entry(name, index, channels, False, int(self.call[channels[0]]), constant))

    def reads(self, name: str, index: Tensor, channels: Numbers, call: int, bias: Leaf | None = None) -> None:
        """Record weights that read these channels, and the bias that is added to what they give."""
        self.entries.append(Entry(name, index, channels, True, call))
        self.readers.append((self.entries[-1], bias))

    def link(self, a: Numbers, b: Numbers, *, dual: bool = False) -> None:
        """What mixes the channels `a` by A mixes `b` by A too, or with `dual` by the inverse of A^T."""
        kept = (a >= 0) & (b >= 0) if dual else (a >= 0) & (b >= 0) & (a != b)
        n = len(self.key)
        pairs = np.unique(a[kept] * n + b[kept])  # one number for each pair: much faster than rows
        if len(pairs):
            self.links.append((pairs // n, pairs % n, int(dual)))

    def split(self, channels: Numbers, labels: Sequence[Any] | np.ndarray) -> None:
        """Channels with different labels are not mixed with each other."""
        labels = np.asarray(labels)
        if len(channels) < 2 or (labels == labels[0]).all():
            return
        pairs = np.stack([self.key[channels], np.unique(labels, return_inverse=True)[1].reshape(-1)], 1)
        self.key[channels] = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1) + self._newest() + 1

    def apart(self, channels: Numbers) -> None:
        """An operation uses these channels alike, and no others: they are not mixed with those that it does not use."""
        own = np.unique(channels[channels >= 0])
        if len(own):
            self.key[own] = np.unique(self.key[own], return_inverse=True)[1].reshape(-1) + self._newest() + 1

    def sum(self, total: Numbers, parts: Sequence[Numbers], factors: Sequence[float], *, chosen: bool = False) -> None:
        """`total` is the sum of the parts times these factors, or with `chosen` one of them, and mixed as they are."""
        for part in parts:
            self.link(part, total)
            self.ways.lead(part, total)
            self.split(total, self.key[part])
        self.sums.append(Sum(total, tuple(parts), tuple(factors)))
        if not chosen:
            self._compare(total, [int(self.call[part[0]]) for part in parts])
        gains = [[self.gain.get(c) for c in part.tolist()] for part in parts]
        if any(gain != gains[0] for gain in gains) or any(c in self.unequal for part in parts for c in part.tolist()):
            self.unequal.update(total.tolist())
        self.gain.update({t: gain for t, gain in zip(total.tolist(), gains[0], strict=True) if gain is not None})

    def _compare(self, total: Numbers, calls: list[int]) -> None:
        """Note a sum of two linear maps of one value: what one of them gains the other may lose."""
        own = int(self.call[total[0]])
        for one in calls:
            self.uses[one] += 1
            for two in calls:
                if one != two and self.direct.get(one, set()) & self.through.get(two, set()):
                    names = " and ".join(sorted((self.calls[one], self.calls[two])))
                    self.beside.append((one, f"{names} add two linear maps of one value"))
        self.direct[own] = set().union(*(self.direct.get(c, set()) for c in calls))
        self.through[own] = set().union(*(self.through.get(c, set()) for c in calls))

    def weigh(self, total: Numbers, by: Any) -> None:
        """`total` is an average: a linear map of the same average of what the averaged values are linear maps of."""
        call = int(self.call[total[0]])
        for known in (self.direct, self.through):
            known[call] = {(by, value) for value in known.get(call, ())}

    def look(self) -> None:
        """Break what a pinned parameter writes or reads; give up sums of two linear maps of one value."""
        for channels, place in self.open_scores.values():
            self.lose(channels, f"products of {place} are read")
        for entry in self.entries:
            if entry.name in self.pinned:
                self.break_(entry.channels, f"{entry.name} is also used in another way")
        for call, reason in self.beside:
            if self.uses[call] < 2:
                self.give_up(reason)

    def break_(self, channels: Numbers, reason: str, *, constants: bool = False, linear: bool = False) -> None:
        """These channels cannot be mixed; with `constants` one may be added; `linear` where what reads them is linear."""
        self.ways.bent.update(() if linear else channels[channels >= 0].tolist())
        for c in np.unique(channels[channels >= 0]).tolist():
            self.broken[c] = self.broken[c] or reason
            if not constants:
                self.fixed.add(c)

    def doubt(self, channels: Numbers, reason: str, *, linear: bool = False) -> None:
        """Nobody has worked out whether these channels can be mixed; `linear` as for `break_`."""
        self.ways.bent.update(() if linear else channels[channels >= 0].tolist())
        for c in np.unique(channels[channels >= 0]).tolist():
            self.doubtful[c] = self.doubtful[c] or reason
        self.lose(channels, reason)

    def lose(self, channels: Numbers, reason: str) -> None:
        """Constants in these channels are not followed any further."""
        for c in np.unique(channels[channels >= 0]).tolist():
            self.lost.setdefault(c, reason)

    def hide(self, reason: str) -> None:
        """A constant may be taken away here, which is not looked for."""
        self.hidden[reason] = None

    def goes_through(self, channels: Numbers, call: int, reason: str) -> None:
        """Constants in these channels go through the linear map of this call, which has no bias to take them away."""
        self.passes.append(Pass(np.unique(channels), np.flatnonzero(self.call == call), len(self.sums), reason))

    @property
    def stopped(self) -> set[int]:
        """Channels in which constants are not followed, though they might pass."""
        return {*self.lost, *(c for passed in self.passes for c in passed.part.tolist())}

    def stiffen(self, channels: Numbers) -> None:
        """No matrix can be written into these channels."""
        for c in channels.tolist():
            self.rigid[c] = True

    def give_up(self, reason: str) -> None:
        """Something of the network is not read."""
        self.unread[reason] = None


def calls_of(store: Channels) -> dict[str, set[int]]:
    """The calls that use each parameter; calls that use other elements of it than all others count as one."""
    uses: dict[str, dict[int, list[Entry]]] = {}
    for entry in store.entries:
        uses.setdefault(entry.name, {}).setdefault(entry.call, []).append(entry)
    return {name: set(own) if _overlap(own) else {min(own)} for name, own in uses.items()}


def _overlap(uses: dict[int, list[Entry]]) -> bool:
    """Whether two calls use the same element of a parameter."""
    if len(uses) < 2:
        return False
    elements = [np.unique(np.concatenate([e.index.numpy().reshape(-1) for e in own])) for own in uses.values()]
    return sum(map(len, elements)) > len(np.unique(np.concatenate(elements)))
