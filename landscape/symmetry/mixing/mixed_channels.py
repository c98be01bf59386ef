"""Draw the mixings from what is recorded of a network's channels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from landscape.symmetry.mixing.channels import Channels, Entry, Numbers
from landscape.symmetry.mixing.mixtures import Group, Mixing, Rows


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Channels that are mixed as one: coordinate of each channel, and whether by A (0) or by the inverse of A^T (1).

    Attributes:
        of: (channels,) coordinate of each channel.
        side: (channels,) 0 or 1.
        folded: (coordinates,) whether a channel is on both sides, so that A must be its own inverse of A^T: orthogonal.
    """

    of: Numbers
    side: Numbers
    folded: np.ndarray


def mixings_of(store: Channels, coordinates: Coordinates) -> tuple[Mixing, ...]:
    """Every set of two channels or more that matrices may mix; notes in `store.unread` those that nobody has worked out."""
    blocks = list(_blocks(store, coordinates))
    block_of = np.zeros(len(store.key), np.int64)
    for number, members in enumerate(blocks):
        block_of[members] = number
    used: list[list[Entry]] = [[] for _ in blocks]
    for entry in store.entries:
        for number in np.unique(block_of[entry.channels]).tolist():
            used[number].append(entry)
    found = (_mixing(store, coordinates, members, own) for members, own in zip(blocks, used, strict=True))
    return tuple(mixing for mixing in found if mixing is not None)


def _tie(store: Channels) -> None:
    """A parameter that several calls use has one set of values: what it writes or reads there is mixed alike."""
    by_name: dict[str, list[Entry]] = {}
    for entry in store.entries:
        by_name.setdefault(entry.name, []).append(entry)
    for name, entries in by_name.items():
        if len({entry.call for entry in entries}) < 2:
            continue
        for i, one in enumerate(entries):
            for two in entries[i + 1 :]:
                if one.call != two.call:
                    _tied(store, name, one, two)


def _tied(store: Channels, name: str, one: Entry, two: Entry) -> None:
    """Link the channels of two uses whose rows are the same; rows of one that are columns of the other are independent."""
    dual = one.reads != two.reads
    meeting = _meeting(one.index, two.index)
    if meeting == "equal":
        store.link(one.channels, two.channels, dual=dual)
    elif meeting == "same rows":
        n, m = one.index.shape[1], two.index.shape[1]
        _, at, there = np.intersect1d(one.index.numpy().reshape(-1), two.index.numpy().reshape(-1), return_indices=True)
        store.link(one.channels[at % n], two.channels[there % m], dual=dual)
    elif meeting == "mixed":
        for channels in (one.channels, two.channels):
            store.doubt(channels, f"{name} has one set of values for uses of different shape")


def _meeting(one: torch.Tensor, two: torch.Tensor) -> str:
    """How the weights of two sets of rows meet: "equal", "same rows" in parts, "crossing", "mixed", or "" if they do not."""
    if one.shape == two.shape and torch.equal(one, two):
        return "equal"
    if one.shape == two.shape[::-1] and torch.equal(one, two.t()):
        return "crossing"
    if int(one.min()) > int(two.max()) or int(two.min()) > int(one.max()):
        return ""
    n, m = one.shape[1], two.shape[1]
    elements, at, there = np.intersect1d(one.numpy().reshape(-1), two.numpy().reshape(-1), return_indices=True)
    if not len(elements):
        return ""
    rows = len(np.unique(at // n * len(two) + there // m))
    if rows == len(np.unique(at // n)) == len(np.unique(there // m)):
        return "same rows"
    return "crossing" if min(n, m) == 1 or rows == len(elements) else "mixed"


def coordinates_of(store: Channels) -> Coordinates:
    """Connected channels, with their sides, and keys that tell apart what the sums of channels tell apart.

    Nodes 2c and 2c + 1 stand for channel c mixed by A, or by the inverse of A^T.
    """
    _tie(store)
    for total in reversed(store.sums):
        for part in total.parts:
            store.split(part, store.key[total.total])
    _as_originals(store)
    n = len(store.key)
    edges = [np.zeros((0, 2), np.int64)]
    for a, b, dual in store.links:
        edges += [np.stack([2 * a, 2 * b + dual], 1), np.stack([2 * a + 1, 2 * b + 1 - dual], 1)]
    pairs = np.concatenate(edges)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(2 * n, 2 * n))
    _, component = connected_components(graph, directed=False)
    even, odd = component[0::2], component[1::2]
    both = np.minimum(even, odd)  # the component and its mirror image are one coordinate
    labels, of = np.unique(both, return_inverse=True)
    folded = np.zeros(len(labels), bool)
    folded[of.reshape(-1)] = even == odd
    return Coordinates(of.reshape(-1), (even > odd).astype(np.int64), folded)


def _as_originals(store: Channels) -> None:
    """Give the negated half of what a rotary embedding turns the keys of the channels it copies: their vector stays whole."""
    copies = np.array(sorted(store.turned), np.int64)
    for call in np.unique(store.call[copies]):
        own = copies[store.call[copies] == call]
        if len(np.unique(store.key[own])) == 1:  # nothing has told them apart since
            store.key[own] = store.key[[store.same[c] for c in own.tolist()]]


def _blocks(store: Channels, coordinates: Coordinates) -> Iterator[Numbers]:
    """Channels of each block: coordinates whose channels have the same keys, on the same sides."""
    order = np.lexsort((coordinates.side, store.key, coordinates.of))
    of, parts = coordinates.of[order], np.stack([store.key[order], coordinates.side[order]], 1)
    if not len(of):
        return
    starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    by_keys: dict[bytes, list[Numbers]] = {}
    for start, stop in zip(starts, np.r_[starts[1:], len(of)], strict=True):
        own = parts[start:stop]
        new = np.r_[True, (own[1:] != own[:-1]).any(1)]
        by_keys.setdefault(own[new].tobytes(), []).append(order[start:stop])
    for group in by_keys.values():
        yield np.concatenate(group)


def _mixing(store: Channels, coordinates: Coordinates, members: Numbers, entries: list[Entry]) -> Mixing | None:
    """The mixing of a block, if there is one."""
    if any(store.broken[c] for c in members):
        members = _unbroken(store, coordinates, members)
    own = coordinates.of[members]
    places, size = np.unique(own), len(np.unique(own))
    if size < 2:
        return None
    normed = max(store.normed[c] for c in members)
    if any(store.rigid[c] for c in members) or not any(not e.reads for e in entries):
        return None
    unequal = [c for c in members if c in store.unequal]
    if any(store.normed[c] for c in unequal):
        return None  # the matrix behind a gain is no longer orthogonal, and a normalization reads it
    if unequal:
        store.give_up(f"{store.calls[int(store.call[unequal[0]])]} adds values after different gains")
        return None
    reason = next((store.doubtful[c] for c in members if store.doubtful[c]), "")
    if reason:
        store.give_up(reason)
        return None
    between = next((store.separate[c] for c in members.tolist() if c in store.separate), "")
    if between:
        store.unread_matrices[between] = None
        return None
    group: Group = "centred" if normed == 2 else "orthogonal" if normed or coordinates.folded[places].any() else "general"
    turned = None
    if any(c in store.partner for c in members):
        turned = _turned(store, coordinates, members, places)
        if turned is None or group != "general":
            store.give_up("a rotary embedding that turns only some channels, or is normalized after it")
            return None
        group = "rotary"
    rows: list[Rows] = []
    for entry in entries:
        at = np.flatnonzero(np.isin(entry.channels, members))
        for key in np.unique(store.key[entry.channels[at]]):
            own_rows = _rows(store, coordinates, entry, at[store.key[entry.channels[at]] == key], places)
            if own_rows is None:
                store.give_up(f"{entry.name} reads or writes only a part of what is mixed")
                return None
            rows.append(own_rows)
    rows = _merged(rows)
    if _conflicting(rows, group):
        gains = {r.gain for r in rows if r.gain is not None}
        if gains and gains <= store.even_gains:
            store.give_up(f"{', '.join(sorted(gains))}: all elements are equal, so that a rotation may pass")
        return None
    store.mixed.update(members.tolist())
    return Mixing(_name(store, members, rows), size, group, tuple(rows), turned)


def _unbroken(store: Channels, coordinates: Coordinates, members: Numbers) -> Numbers:
    """Members whose coordinate has no broken channel."""
    broken = {int(coordinates.of[c]) for c in members if store.broken[c]}
    return np.array([c for c in members if int(coordinates.of[c]) not in broken], np.int64)


def _rows(store: Channels, coordinates: Coordinates, entry: Entry, at: Numbers, places: Numbers) -> Rows | None:
    """Columns `at` of an entry in the order of the coordinates; None if a coordinate is missing or occurs twice."""
    own = coordinates.of[entry.channels[at]]
    if len(at) != len(places) or (np.sort(own) != places).any():
        return None
    at = at[np.argsort(own)]
    sides = np.unique(coordinates.side[entry.channels[at]])
    gains = [store.gain.get(int(c)) for c in entry.channels[at]]
    named = {gain[0] for gain in gains if gain is not None}
    if len(sides) > 1 or len(named) > 1 or (named and None in gains):
        return None
    index, inverse = entry.index[:, torch.from_numpy(at)], bool(sides[0]) != entry.reads
    if not named:
        return Rows(entry.name, index, inverse)
    return Rows(entry.name, index, inverse, named.pop(), torch.tensor([gain[1] for gain in gains if gain is not None]))


def _merged(rows: list[Rows]) -> list[Rows]:
    """Without rows that stand twice because several calls use one parameter."""

    def same(a: Rows, b: Rows) -> bool:
        return (a.name, a.inverse, a.gain) == (b.name, b.inverse, b.gain) and _meeting(a.index, b.index) == "equal"

    out: list[Rows] = []
    for r in rows:
        if not any(same(other, r) for other in out):
            out.append(r)
    return out


def _conflicting(rows: list[Rows], group: Group) -> bool:
    """Whether one weight would have to change in two ways, as a table that is tied to the output layer with a gain between."""
    for i, one in enumerate(rows):
        for two in rows[i + 1 :]:
            alike = two.gain == one.gain and (two.inverse == one.inverse or group in ("orthogonal", "centred"))
            if two.name == one.name and not alike and _meeting(one.index, two.index) in ("equal", "same rows", "mixed"):
                return True
    return False


def _turned(store: Channels, coordinates: Coordinates, members: Numbers, places: Numbers) -> torch.Tensor | None:
    """Positions of the coordinates that a rotary embedding turns together; None if some stay as they are."""
    at = {int(p): i for i, p in enumerate(places)}
    pairs: dict[tuple[int, int], None] = {}
    for c in members.tolist():
        if c in store.partner:
            one, two = at.get(int(coordinates.of[c])), at.get(int(coordinates.of[store.partner[c]]))
            if one is None or two is None:
                return None
            pairs[(min(one, two), max(one, two))] = None
    found = torch.tensor(sorted(pairs))
    whole = found.ndim == 2 and len(found.unique()) == found.numel() == len(places)
    return found if whole else None


def _name(store: Channels, members: Numbers, rows: list[Rows]) -> str:
    """The layers that write a block, and which of their channels it is."""
    layers = dict.fromkeys(r.name.removesuffix(".weight") for r in rows if r.name.endswith("weight") or len(r.index) > 1)
    listed = list(layers) or list(dict.fromkeys(r.name for r in rows))
    shown = " + ".join(listed if len(listed) <= 4 else [*listed[:2], f"{len(listed) - 2} more"])
    call = store.call[members[0]]
    own = np.sort(members[store.call[members] == call]) - int(np.flatnonzero(store.call == call)[0])
    runs = np.split(own, np.flatnonzero(np.diff(own) > 1) + 1)
    spread = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return f"{shown}, channels {' and '.join(spread if len(spread) <= 3 else [*spread[:2], f'{len(spread) - 2} more'])}"
