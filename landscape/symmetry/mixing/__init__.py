"""Matrices, shifts and biases: the symmetries that are no positive factor an element."""

from collections import Counter
from dataclasses import dataclass

from landscape.network.graph import Graph
from landscape.symmetry.mixing.cases.narrow_readers import narrow_readers
from landscape.symmetry.mixing.channels import calls_of
from landscape.symmetry.mixing.constants import centrings_of, shifts_of, trades_of
from landscape.symmetry.mixing.contractions import score_shifts_of
from landscape.symmetry.mixing.lost_constants import lost_constants
from landscape.symmetry.mixing.mixed_channels import coordinates_of, mixings_of
from landscape.symmetry.mixing.mixtures import BatchNormMean, Centring, Mixing, Reader, Rows, Shift, Trade
from landscape.symmetry.mixing.walk import channels_of, unused

__all__ = ["BatchNormMean", "Centring", "Found", "Mixing", "Reader", "Rows", "Shift", "Trade", "mixed"]


@dataclass(frozen=True, eq=False)
class Found:
    """What `mixed` finds; see the fields of the same names of `landscape.symmetry.Symmetries`.

    `contracted` are the products of two activations that a matrix may pass.
    """

    mixings: tuple[Mixing, ...]
    shifts: tuple[Shift, ...]
    trades: tuple[Trade, ...]
    centrings: tuple[Centring, ...]
    means: tuple[BatchNormMean, ...]
    unread: tuple[str, ...]
    unread_matrices: tuple[str, ...]
    unread_constants: tuple[str, ...]
    contracted: frozenset[str]


def mixed(graph: Graph, trained: frozenset[str] | None = None, held: frozenset[str] = frozenset()) -> Found:
    """The matrices, shifts and biases that keep the function of a traced network, and the operations that no rule reads.

    `trained` are the parameters that may change, by default all; constants that change one of `held` are left out.
    """
    store = channels_of(graph, graph.parameters if trained is None else trained, held)
    coordinates = coordinates_of(store)
    mixings = mixings_of(store, coordinates)
    calls = calls_of(store)
    keys, trades = trades_of(store, calls, coordinates.of)
    more, centrings = centrings_of(store, calls)
    once = Counter(mean.shift for mean in store.means)
    means = tuple(mean for mean in store.means if once[mean.shift] == 1 and mean.shift not in held)
    shifts = (*shifts_of(store, calls), *keys, *more, *score_shifts_of(store), *store.cut_off, *unused(graph, held))
    contracted = frozenset(
        place for place, own in store.contracted.items() if all(store.mixed.issuperset(channels.tolist()) for channels in own)
    )
    lost = lost_constants(store, calls)
    unread = (*store.unread, *narrow_readers(store, coordinates.of, coordinates.side))
    matrices = tuple(store.unread_matrices)
    return Found(mixings, shifts, (*trades, *store.trades), centrings, means, unread, matrices, lost, contracted)
