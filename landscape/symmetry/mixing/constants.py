"""Draw the shifts and the trades of biases from what is recorded of a network's channels."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from landscape.symmetry.mixing.channels import Channels, Entry, Numbers, Pass
from landscape.symmetry.mixing.mixtures import Centring, Shift, Trade

# What takes away any constant, and what only the same one in all channels of a vector.
_ANY = ("bias", "mean", "softmax")
UNIFORM = ("layer norm", "classes", "outputs")
# Factors of sums are numbers such as 1, -1 or 1/3; smaller ones are rounding.
_ROUNDING = 1e-9


def shifts_of(store: Channels, calls: dict[str, set[int]]) -> tuple[Shift, ...]:
    """Constants, the same in all channels, that the mean of a LayerNorm takes away, or the loss from the outputs."""
    ignored = _ignored(store)
    single_use = once(calls)
    found = []
    for outputs in (False, True):
        rows: dict[str, torch.Tensor] = {}
        for vector in vectors_of(store, outputs):
            for entry in store.entries:
                whole = len(entry.channels) == len(vector) and set(entry.channels.tolist()) == set(vector.tolist())
                free = not entry.reads and entry.name in single_use - store.held
                taken = whole and free and all(ignored[c] for c in vector.tolist())
                if taken and not _put(rows, entry.name, entry.index):
                    found.append(Shift(f"{entry.name}: a constant in each row", {entry.name: entry.index}, True, outputs))
        if rows:
            what = "all outputs by one number, if the loss ignores that" if outputs else "what only LayerNorms read"
            found.append(Shift(f"{_listed(rows)}: {what}", rows, uniform=True, outputs=outputs))
    return tuple(found)


def _put(rows: dict[str, torch.Tensor], name: str, index: torch.Tensor) -> bool:
    """Add rows of a parameter of which other elements may be there already; False where those have another length."""
    if name in rows and rows[name].shape[1] != index.shape[1]:
        return False
    rows[name] = index if name not in rows else torch.cat([rows[name], index])
    return True


def _ignored(store: Channels) -> list[bool]:
    """For each channel, whether all that reads it takes a constant away, if all channels of its vector have the same one."""
    closed = store.fixed | store.stopped
    ignored = [c not in closed for c in range(len(store.key))]
    for taken in store.taken:
        if taken.by not in UNIFORM:
            for c in taken.channels.tolist():
                ignored[c] = False
    for total in reversed(store.sums):
        for part in total.parts:
            for c, t in zip(part.tolist(), total.total.tolist(), strict=True):
                ignored[c] = ignored[c] and ignored[t]
    return ignored


def vectors_of(store: Channels, outputs: bool) -> Iterator[Numbers]:
    """Whole vectors that a LayerNorm, or the loss, reads, and those that they are sums of."""
    front = [t.channels for t in store.taken if t.by in UNIFORM and (t.by == "outputs") == outputs]
    parts = {tuple(total.total.tolist()): total.parts for total in store.sums}
    seen: set[tuple[int, ...]] = set()
    while front:
        vector = front.pop()
        mark = tuple(vector.tolist())
        if mark not in seen:
            seen.add(mark)
            yield vector
            front.extend(parts.get(mark, ()))


def centrings_of(store: Channels, calls: dict[str, set[int]]) -> tuple[tuple[Shift, ...], tuple[Centring, ...]]:
    """Weights that read only what a LayerNorm has centred; without gain and shift their symmetry is a plain shift."""
    single_use = once(calls)
    single = {
        tuple(s.total.tolist()): (tuple(s.parts[0].tolist()), float(s.factors[0])) for s in store.sums if len(s.parts) == 1
    }
    shifts, found = [], []
    for entry, bias in store.readers:
        vector, factor = tuple(entry.channels.tolist()), 1.0
        while vector in single and vector not in store.centred:
            vector, times = single[vector]
            factor *= times
        if vector not in store.centred or entry.name not in single_use - store.held:
            continue
        shift = store.centred[vector]
        gains = [store.gain.get(c) for c in vector]
        name = f"{entry.name}: reads what a LayerNorm has centred"
        if shift is None and not any(gains):
            shifts.append(Shift(name, {entry.name: entry.index}, uniform=True))
        elif shift is None or (bias is not None and bias.name not in store.held):
            centring = Centring(name, entry.name, entry.index, factor=factor)
            if all(gain is not None for gain in gains):
                positions = torch.tensor([gain[1] for gain in gains if gain is not None])
                centring = replace(centring, gain=next(gain[0] for gain in gains if gain), gain_index=positions)
            if shift is not None and bias is not None:
                own, other = shift.elements().reshape(-1), bias.elements().reshape(-1)
                centring = replace(centring, shift=shift.name, shift_index=own, bias=bias.name, bias_index=other)
            found.append(centring)
    return tuple(shifts), tuple(found)


@dataclass(frozen=True, eq=False)
class Source:
    """A constant of one parameter that can be added to the channels of one group."""

    entry: Entry
    group: int


def trades_of(store: Channels, calls: dict[str, set[int]], of: Numbers) -> tuple[tuple[Shift, ...], tuple[Trade, ...]]:
    """Constants that move from one bias to others, and those in keys that the softmax takes away (shifts).

    `of` is the coordinate of each channel, see `landscape.symmetry.mixing.mixed_channels`.
    """
    if not len(store.key):
        return (), ()
    group = groups_of(store)
    single_use, tied = once(calls), _tied_to_outputs(store, calls)
    sources = sources_of(store, group, single_use | tied)
    flow = flow_of(store, group, sources)
    strict = {int(group[c]) for c in store.fixed | store.stopped} | held_readers(store, group)
    for taken in store.taken:
        if taken.reader is None or taken.reader.bias in store.held:
            continue
        if not {taken.reader.bias, taken.reader.weight} <= single_use:
            # One bias would have to take away what every call of it reads.
            strict.update(int(g) for g in group[taken.channels])
            if any(abs(flow[g]).any() for g in group[taken.channels]):
                store.give_up(f"{taken.reader.bias} has one set of values for several uses")
    uniform = {int(group[c]) for t in store.taken if t.by in UNIFORM for c in t.channels.tolist()}
    outputs = {int(group[c]) for t in store.taken if t.by == "outputs" for c in t.channels.tolist()}
    shifts, trades = [], []
    known = np.zeros((0, len(sources)))
    for level, zero in (("any", strict | uniform), ("uniform", strict | outputs)):
        for vector in null_space(flow[sorted(zero)]):
            rest = vector - known.T @ (known @ vector)
            rest -= known.T @ (known @ rest)
            size = float(np.linalg.norm(rest))
            if level == "uniform" and (size < _ROUNDING * np.linalg.norm(vector) or not _spans(group, sources, vector)):
                continue
            known = np.concatenate([known, rest[None] / size])
            found = _conclusion(store, group, of, sources, flow @ vector, vector, level == "uniform")
            own = tied & {s.entry.name for s, value in zip(sources, vector, strict=True) if abs(value) > _ROUNDING}
            if isinstance(found, Trade) and own and found.family == "bias":
                store.give_up(f"constants in {_listed(dict.fromkeys(own))}, which also writes the outputs")
            elif isinstance(found, Trade):
                trades.append(replace(found, outputs=bool(own)))
            elif isinstance(found, Shift) and not own:
                shifts.append(found)
    return tuple(shifts), tuple(trades)


def sources_of(store: Channels, group: Numbers, names: set[str]) -> list[Source]:
    """What these parameters may add, as far as they are not held."""
    return [
        Source(entry, g)
        for entry in store.entries
        if entry.constant and not entry.reads and entry.name in names - store.held
        for g in np.unique(group[entry.channels]).tolist()
    ]


def held_readers(store: Channels, group: Numbers) -> set[int]:
    """Groups that linear maps read whose biases are held."""
    read = [t.channels for t in store.taken if t.reader is not None and t.reader.bias in store.held]
    return {int(g) for channels in read for g in group[channels]}


def groups_of(store: Channels) -> Numbers:
    """A number for each channel; channels of one number have the same call, readers, writers and sums."""
    closed = {c: 1 + (c in store.fixed) for c in (*store.stopped, *store.fixed)}
    marks: list[list[int]] = [[call, closed.get(c, 0)] for c, call in enumerate(store.call.tolist())]
    for i, taken in enumerate(store.taken):
        for c in taken.channels.tolist():
            marks[c].append(i + 2)
    for i, entry in enumerate(store.entries):
        if entry.constant:
            for c in entry.channels.tolist():
                marks[c].append(-i - 1)
    numbers: dict[tuple[int, ...], int] = {}
    group = np.array([numbers.setdefault(tuple(m), len(numbers)) for m in marks], np.int64)
    for total in reversed(store.sums):
        for part in total.parts:
            _split(group, part, group[total.total])
    for total in store.sums:
        for part in total.parts:
            _split(group, total.total, group[part])
    return np.asarray(np.unique(group, return_inverse=True)[1].reshape(-1))


def _split(group: Numbers, channels: Numbers, labels: Numbers) -> None:
    """Give channels of one group that have different labels different groups."""
    pairs = np.stack([group[channels], labels], 1)
    group[channels] = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1) + int(group.max()) + 1


def flow_of(store: Channels, group: Numbers, sources: list[Source], passes: Sequence[Pass] = ()) -> np.ndarray:
    """(groups, sources): what each source adds to each group; with `passes` also behind linear maps without a bias."""
    flow = np.zeros((int(group.max()) + 1, len(sources)))
    for i, source in enumerate(sources):
        flow[source.group, i] += 1
    waiting = list(enumerate(passes))
    for k, total in enumerate([*store.sums, None]):
        while waiting and (total is None or waiting[0][1].after <= k):
            i, passed = waiting.pop(0)
            for j, g in enumerate(np.unique(group[passed.part])):
                flow[np.unique(group[passed.total])] += math.sqrt(2 + i + j / 7) * flow[g]
        if total is None:
            break
        places = np.unique(group[total.total], return_index=True)
        for g, at in zip(*places, strict=True):
            for part, factor in zip(total.parts, total.factors, strict=True):
                flow[g] += factor * flow[group[part[at]]]
    return flow


def null_space(matrix: np.ndarray) -> list[np.ndarray]:
    """Basis of the vectors x with matrix x = 0, each as sparse as elimination leaves it."""
    rows, n = np.unique(matrix, axis=0), matrix.shape[1]
    pivots: list[int] = []
    for column in range(n):
        below = rows[len(pivots) :]
        if not len(below) or np.abs(below[:, column]).max() < _ROUNDING:
            continue
        at = len(pivots) + int(np.abs(below[:, column]).argmax())
        rows[[len(pivots), at]] = rows[[at, len(pivots)]]
        row = rows[len(pivots)] / rows[len(pivots), column]
        rows -= np.outer(rows[:, column], row)
        rows[len(pivots)] = row
        rows[np.abs(rows) < _ROUNDING] = 0.0
        pivots.append(column)
    basis = []
    for free in sorted(set(range(n)) - set(pivots)):
        vector = np.zeros(n)
        vector[free] = 1.0
        vector[pivots] = -rows[: len(pivots), free]
        basis.append(vector)
    return basis


def _spans(group: Numbers, sources: list[Source], vector: np.ndarray) -> bool:
    """Whether every source of a vector covers whole vectors, so that the same constant in all of them can be told."""
    used = [s for s, value in zip(sources, vector, strict=True) if abs(value) > _ROUNDING]
    return all((group[s.entry.channels] == s.group).all() for s in used)


def _conclusion(
    store: Channels,
    group: Numbers,
    of: Numbers,
    sources: list[Source],
    moved: np.ndarray,
    vector: np.ndarray,
    uniform: bool,
) -> Shift | Trade | None:
    """A null vector as a shift, if only a softmax reads it, else as a trade; None, and noted, if its factors are not all 1."""
    moved = np.round(moved, 9)
    read = [t for t in store.taken if t.by in _ANY and moved[group[t.channels]].any()]
    taken_as = {float(v) for t in read for v in moved[group[t.channels]] if v}
    signs = {abs(float(v)) for v in (*np.round(vector, 9), *taken_as) if v}
    sides: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    for source, value in zip(sources, vector, strict=True):
        if abs(value) > _ROUNDING:
            at = np.flatnonzero(group[source.entry.channels] == source.group)
            _put(sides[int(value < 0)], source.entry.name, source.entry.index[:, _ordered(of, source.entry.channels, at)])
    by_softmax = bool(read) and all(t.by == "softmax" for t in read)
    if by_softmax and {float(v) for v in np.round(vector, 9) if v} == {1.0}:
        taken_as = signs = {1.0}  # it takes them away with any factor
    if signs != {1.0} or len(taken_as) > 1:
        store.give_up(f"constants in {_listed(sides[0] | sides[1])}, which meet with different factors")
        return None
    if taken_as == {-1.0}:
        sides = (sides[1], sides[0])
    plus, minus = sides
    if by_softmax:
        return None if minus else Shift(f"{_listed(plus)}: keys, of which a softmax takes it away", plus, uniform=False)
    readers = []
    for t in read:
        there = _ordered(of, t.channels, np.flatnonzero(moved[group[t.channels]]))
        if t.reader is not None:
            readers.append(replace(t.reader, weight_index=t.reader.weight_index[:, there]))
        if t.buffer is not None:
            plus = plus | {t.buffer[0]: t.buffer[1][there].reshape(1, -1)}
    statistics = any(t.buffer is not None for t in read)
    if uniform and not read and not minus:
        return None  # nothing but LayerNorms reads it: a shift
    to = dict.fromkeys([*minus, *(r.bias for r in readers)])
    return Trade(f"{_listed(plus)} to {_listed(to)}" if to else _listed(plus), plus, minus, tuple(readers), uniform, statistics)


def _ordered(of: Numbers, channels: Numbers, at: Numbers) -> torch.Tensor:
    """These positions in the order of their channels' coordinates, which is the same for all that a constant passes."""
    return torch.from_numpy(at[np.argsort(of[channels[at]], kind="stable")])


def once(calls: dict[str, set[int]]) -> set[str]:
    """Parameters that only one call uses."""
    return {name for name, own in calls.items() if len(own) == 1}


def _tied_to_outputs(store: Channels, calls: dict[str, set[int]]) -> set[str]:
    """Tables of two calls, of which one writes the outputs: a constant in all rows moves all outputs by one number."""
    last = {int(store.call[taken.channels[0]]) for taken in store.taken if taken.by == "outputs"}
    return {name for name, own in calls.items() if len(own) == 2 and len(own & last) == 1}


def _listed(names: dict[str, object] | dict[str, torch.Tensor] | dict[str, None]) -> str:
    """Names, shortened."""
    listed = list(names)
    return ", ".join(listed if len(listed) <= 3 else [*listed[:2], f"{len(listed) - 2} more"])
