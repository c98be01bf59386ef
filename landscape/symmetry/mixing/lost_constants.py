"""Constants that were followed to a place which may let them pass: whether any might be taken away behind it."""

from collections.abc import Iterable, Sequence

import numpy as np

from landscape.symmetry.mixing.channels import Channels, Entry, Numbers
from landscape.symmetry.mixing.constants import (
    UNIFORM,
    Source,
    flow_of,
    groups_of,
    held_readers,
    null_space,
    once,
    sources_of,
    vectors_of,
)
from landscape.symmetry.mixing.mixtures import OUTPUTS


def lost_constants(store: Channels, calls: dict[str, set[int]]) -> tuple[str, ...]:
    """Places that may hide a constant: with them open, more constants are taken away than with them closed.

    Closed, they count as places where no constant may arrive, which is what `trades_of` assumes. Open, a constant ends there,
    or goes on through a linear map that has no bias with a factor of its own, which no other constant can undo but one that is
    added to what the map gives. A parameter of several uses adds the same constant in all of them.
    """
    if not len(store.key):
        return tuple(store.hidden)
    group = groups_of(store)
    sources = sources_of(store, group, once(calls))
    shared = _shared(store, group, calls)
    closed = flow_of(store, group, sources)
    opened = np.concatenate([flow_of(store, group, sources, store.passes), *shared.values()], axis=1)
    firm = {int(group[c]) for c in store.fixed} | held_readers(store, group)
    stopped = firm | {int(group[c]) for c in store.stopped}
    found = dict(store.hidden) | dict.fromkeys(_in_parts(store))
    for kinds in (UNIFORM, ("outputs",)):
        taken = {int(group[c]) for t in store.taken if t.by in kinds for c in t.channels.tolist()}
        known = null_space(closed[sorted(stopped | taken)])
        more = null_space(opened[sorted(firm | taken)])
        if len(more) <= len(known):
            continue
        vectors = np.stack(more, axis=1)
        moved = np.abs(opened @ vectors).max(1) > 0
        for i, name in enumerate(shared, start=len(sources)):
            if vectors[i].any():
                found[f"constants in {name}, which is used in several places"] = None
        for channels, reason in _places(store):
            if reason not in found and moved[group[channels]].any():
                found[reason] = None
    return tuple(found)


def _in_parts(store: Channels) -> Iterable[str]:
    """Vectors of which a constant is taken away that several layers write beside each other: it may be one in all of them."""
    for outputs in (False, True):
        for vector in vectors_of(store, outputs):
            whole, written, names = set(vector.tolist()), set[int](), dict[str, None]()
            for entry in store.entries:
                own = set(entry.channels.tolist()) & whole
                if own and own != whole and not entry.reads and entry.name not in store.held:
                    written |= own
                    names[entry.name] = None
            if written == whole:
                yield OUTPUTS if outputs else f"{' and '.join(names)}: a constant in all of them"


def _places(store: Channels) -> Iterable[tuple[Numbers, str]]:
    """Channels of the places that are open, and their reasons."""
    for c, reason in store.lost.items():
        yield np.array([c]), reason
    for passed in store.passes:
        yield passed.part, passed.reason


def _shared(store: Channels, group: Numbers, calls: dict[str, set[int]]) -> dict[str, np.ndarray]:
    """Name of each parameter that writes constants in several calls -> what it adds to each group, (groups, 1)."""
    by_name: dict[str, list[Entry]] = {}
    for entry in store.entries:
        if entry.constant and not entry.reads and entry.name not in store.held and len(calls[entry.name]) > 1:
            by_name.setdefault(entry.name, []).append(entry)
    several = {name: own for name, own in by_name.items() if len(own) == len(calls[name])}
    return {name: _together(store, group, own) for name, own in several.items()}


def _together(store: Channels, group: Numbers, entries: Sequence[Entry]) -> np.ndarray:
    """The sum of what these entries add."""
    sources = [Source(entry, int(g)) for entry in entries for g in np.unique(group[entry.channels])]
    return np.asarray(flow_of(store, group, sources, store.passes).sum(1, keepdims=True))
