"""Draw the shifts and the trades of biases from what is recorded of a network's channels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from landscape.symmetry.mixing.channels import Channels, Entry, Numbers
from landscape.symmetry.mixing.mixtures import Centring, Shift, Trade

# What takes away any constant, and what only the same one in all channels of a vector.
_ANY = ("bias", "mean", "softmax")
_UNIFORM = ("layer norm", "outputs")


def shifts_of(store: Channels) -> tuple[Shift, ...]:
    """Constants, the same in all channels, that the mean of a LayerNorm takes away, or the loss from the outputs."""
    ignored = _ignored(store)
    once = _used_once(store)
    found = []
    for outputs in (False, True):
        rows: dict[str, torch.Tensor] = {}
        for vector in _vectors(store, outputs):
            for entry in store.entries:
                whole = len(entry.channels) == len(vector) and set(entry.channels.tolist()) == set(vector.tolist())
                if whole and not entry.reads and entry.name in once and all(ignored[c] for c in vector.tolist()):
                    rows[entry.name] = entry.index
        if rows:
            what = "the outputs, whose loss ignores it" if outputs else "what only LayerNorms read"
            found.append(Shift(f"{_listed(rows)}: {what}", rows, uniform=True, outputs=outputs))
    return tuple(found)


def _ignored(store: Channels) -> list[bool]:
    """For each channel, whether all that reads it takes a constant away, if all channels of its vector have the same one."""
    ignored = [c not in store.fixed for c in range(len(store.key))]
    for taken in store.taken:
        if taken.by not in _UNIFORM:
            for c in taken.channels.tolist():
                ignored[c] = False
    for total in reversed(store.sums):
        for part in total.parts:
            for c, t in zip(part.tolist(), total.total.tolist(), strict=True):
                ignored[c] = ignored[c] and ignored[t]
    return ignored


def _vectors(store: Channels, outputs: bool) -> Iterator[Numbers]:
    """Whole vectors that a LayerNorm, or the loss, reads, and those that they are sums of."""
    front = [t.channels for t in store.taken if t.by in _UNIFORM and (t.by == "outputs") == outputs]
    parts = {tuple(total.total.tolist()): total.parts for total in store.sums}
    seen: set[tuple[int, ...]] = set()
    while front:
        vector = front.pop()
        mark = tuple(vector.tolist())
        if mark not in seen:
            seen.add(mark)
            yield vector
            front.extend(parts.get(mark, ()))


def centrings_of(store: Channels) -> tuple[tuple[Shift, ...], tuple[Centring, ...]]:
    """Weights that read only what a LayerNorm has centred; without gain and shift their symmetry is a plain shift."""
    once = _used_once(store)
    single = {tuple(s.total.tolist()): tuple(s.parts[0].tolist()) for s in store.sums if len(s.parts) == 1}
    shifts, found = [], []
    for entry, bias in store.readers:
        vector = tuple(entry.channels.tolist())
        while vector in single and vector not in store.centred:
            vector = single[vector]
        if vector not in store.centred or entry.name not in once:
            continue
        shift = store.centred[vector]
        gains = [store.gain.get(c) for c in vector]
        name = f"{entry.name}: reads what a LayerNorm has centred"
        if shift is None and not any(gains):
            shifts.append(Shift(name, {entry.name: entry.index}, uniform=True))
        elif shift is None or bias is not None:
            centring = Centring(name, entry.name, entry.index)
            if all(gain is not None for gain in gains):
                positions = torch.tensor([gain[1] for gain in gains if gain is not None])
                centring = replace(centring, gain=next(gain[0] for gain in gains if gain), gain_index=positions)
            if shift is not None and bias is not None:
                own, other = shift.elements().reshape(-1), bias.elements().reshape(-1)
                centring = replace(centring, shift=shift.name, shift_index=own, bias=bias.name, bias_index=other)
            found.append(centring)
    return tuple(shifts), tuple(found)


@dataclass(frozen=True, eq=False)
class _Source:
    """A constant of one parameter that can be added to the channels of one group."""

    entry: Entry
    group: int


def trades_of(store: Channels, of: Numbers) -> tuple[tuple[Shift, ...], tuple[Trade, ...]]:
    """Constants that move from one bias to others, and those in keys that the softmax takes away (shifts).

    `of` is the coordinate of each channel, see `landscape.symmetry.mixing.blocks`.
    """
    if not len(store.key):
        return (), ()
    group = _groups(store)
    once = _used_once(store)
    sources = [
        _Source(entry, g)
        for entry in store.entries
        if entry.constant and not entry.reads and entry.name in once
        for g in np.unique(group[entry.channels]).tolist()
    ]
    flow = _flow(store, group, sources)
    strict = {int(group[c]) for c in store.fixed}
    uniform = {int(group[c]) for t in store.taken if t.by in _UNIFORM for c in t.channels.tolist()}
    outputs = {int(group[c]) for t in store.taken if t.by == "outputs" for c in t.channels.tolist()}
    shifts, trades = [], []
    known: list[list[Fraction]] = []
    for level, zero in (("any", strict | uniform), ("uniform", strict | outputs)):
        for vector in _null_space([flow[g] for g in sorted(zero)], len(sources)):
            if level == "uniform" and (_rank([*known, vector]) == _rank(known) or not _spans(store, group, sources, vector)):
                continue
            known.append(vector)
            found = _conclusion(store, group, of, sources, flow, vector, level == "uniform")
            if isinstance(found, Shift):
                shifts.append(found)
            elif isinstance(found, Trade):
                trades.append(found)
    return tuple(shifts), tuple(trades)


def _groups(store: Channels) -> Numbers:
    """A number for each channel; channels of one number have the same call, readers, writers and sums."""
    marks: list[list[int]] = [[call, int(c in store.fixed)] for c, call in enumerate(store.call.tolist())]
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


def _flow(store: Channels, group: Numbers, sources: list[_Source]) -> list[dict[int, Fraction]]:
    """For each group, what every source adds to it."""
    flow: list[dict[int, Fraction]] = [{} for _ in range(int(group.max()) + 1)]
    for i, source in enumerate(sources):
        flow[source.group][i] = flow[source.group].get(i, Fraction(0)) + 1
    for total in store.sums:
        for g in np.unique(group[total.total]).tolist():
            at = int(np.flatnonzero(group[total.total] == g)[0])
            for part, factor in zip(total.parts, total.factors, strict=True):
                for i, value in flow[int(group[part[at]])].items():
                    flow[g][i] = flow[g].get(i, Fraction(0)) + Fraction(factor) * value
    return flow


def _null_space(rows: list[dict[int, Fraction]], n: int) -> list[list[Fraction]]:
    """Basis of the vectors x with rows x = 0, by exact elimination."""
    pivots: dict[int, dict[int, Fraction]] = {}
    for row in rows:
        row = {i: v for i, v in row.items() if v}
        for p in sorted(pivots):
            if row.get(p):
                row = _minus(row, pivots[p], row[p])
        if not row:
            continue
        p = min(row)
        row = {i: v / row[p] for i, v in row.items()}
        pivots = {q: _minus(other, row, other.get(p, Fraction(0))) for q, other in pivots.items()} | {p: row}
    basis = []
    for free in (i for i in range(n) if i not in pivots):
        vector = [Fraction(0)] * n
        vector[free] = Fraction(1)
        for p, row in pivots.items():
            vector[p] = -row.get(free, Fraction(0))
        basis.append(vector)
    return basis


def _minus(a: dict[int, Fraction], b: dict[int, Fraction], factor: Fraction) -> dict[int, Fraction]:
    """a - factor b, without zeros."""
    out = {i: a.get(i, Fraction(0)) - factor * b.get(i, Fraction(0)) for i in {**a, **b}}
    return {i: v for i, v in out.items() if v}


def _rank(vectors: list[list[Fraction]]) -> int:
    """Rank of a list of vectors."""
    rows = [{i: v for i, v in enumerate(vector) if v} for vector in vectors]
    n = len(vectors[0]) if vectors else 0
    return n - len(_null_space(rows, n))


def _spans(store: Channels, group: Numbers, sources: list[_Source], vector: list[Fraction]) -> bool:
    """Whether every source of a vector covers whole vectors, so that the same constant in all of them can be told."""
    used = [s for s, value in zip(sources, vector, strict=True) if value]
    return all((group[s.entry.channels] == s.group).all() for s in used)


def _conclusion(
    store: Channels,
    group: Numbers,
    of: Numbers,
    sources: list[_Source],
    flow: list[dict[int, Fraction]],
    vector: list[Fraction],
    uniform: bool,
) -> Shift | Trade | None:
    """A null vector as a shift, if only a softmax reads it, else as a trade; None, and noted, if its factors are not all 1."""
    moved = [sum((value * vector[i] for i, value in row.items()), Fraction(0)) for row in flow]
    read = [t for t in store.taken if t.by in _ANY and any(moved[int(group[c])] for c in t.channels.tolist())]
    taken_as = {moved[int(group[c])] for t in read for c in t.channels.tolist()} - {Fraction(0)}
    signs = {abs(v) for v in (*vector, *taken_as) if v}
    sides: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    for source, value in zip(sources, vector, strict=True):
        if value:
            at = np.flatnonzero(group[source.entry.channels] == source.group)
            sides[value < 0][source.entry.name] = source.entry.index[:, _ordered(of, source.entry.channels, at)]
    if signs != {Fraction(1)} or len(taken_as) > 1:
        store.give_up(f"constants in {_listed(sides[0] | sides[1])}, which meet with different factors")
        return None
    if taken_as == {Fraction(-1)}:
        sides = (sides[1], sides[0])
    plus, minus = sides
    if read and all(t.by == "softmax" for t in read):
        return None if minus else Shift(f"{_listed(plus)}: keys, of which a softmax takes it away", plus, uniform=False)
    readers = []
    for t in read:
        at = _ordered(of, t.channels, np.flatnonzero([bool(moved[g]) for g in group[t.channels].tolist()]))
        if t.reader is not None:
            readers.append(replace(t.reader, weight_index=t.reader.weight_index[:, at]))
        if t.buffer is not None:
            plus = plus | {t.buffer[0]: t.buffer[1][at].reshape(1, -1)}
    to = dict.fromkeys([*minus, *(r.bias for r in readers)])
    return Trade(f"{_listed(plus)} to {_listed(to)}" if to else _listed(plus), plus, minus, tuple(readers), uniform)


def _ordered(of: Numbers, channels: Numbers, at: Numbers) -> torch.Tensor:
    """These positions in the order of their channels' coordinates, which is the same for all that a constant passes."""
    return torch.from_numpy(at[np.argsort(of[channels[at]], kind="stable")])


def _used_once(store: Channels) -> set[str]:
    """Parameters that one call uses, in one way."""
    calls: dict[str, set[tuple[int, bool]]] = {}
    for entry in store.entries:
        calls.setdefault(entry.name, set()).add((entry.call, False))
    return {name for name, own in calls.items() if len(own) == 1}


def _listed(names: dict[str, object] | dict[str, torch.Tensor] | dict[str, None]) -> str:
    """Names, shortened."""
    listed = list(names)
    return ", ".join(listed if len(listed) <= 3 else [*listed[:2], f"{len(listed) - 2} more"])
