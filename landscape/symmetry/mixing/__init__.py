"""Matrices, shifts and biases: the symmetries that are no positive factor an element."""

from landscape.network.graph import Graph
from landscape.symmetry.mixing.blocks import coordinates_of, mixings_of
from landscape.symmetry.mixing.constants import shifts_of, trades_of
from landscape.symmetry.mixing.mixtures import Mixing, Reader, Rows, Shift, Trade
from landscape.symmetry.mixing.walk import channels_of

__all__ = ["Mixing", "Reader", "Rows", "Shift", "Trade", "mixed"]


def mixed(graph: Graph) -> tuple[tuple[Mixing, ...], tuple[Shift, ...], tuple[Trade, ...], tuple[str, ...]]:
    """The mixings, shifts and trades of a traced network, and the operations that no rule reads."""
    store = channels_of(graph)
    coordinates = coordinates_of(store)
    mixings = mixings_of(store, coordinates)
    keys, trades = trades_of(store, coordinates.of)
    return mixings, (*shifts_of(store), *keys), trades, tuple(store.unread)
