"""The traced graph of a network, its symmetries, and conditions on them for claims of invariance."""

from weakref import WeakKeyDictionary

from landscape.errors import UsageError, first_line
from landscape.measures.registry import NotDefined
from landscape.network.graph import Graph
from landscape.objective import Objective
from landscape.results import FoundSymmetries
from landscape.symmetry import Symmetries, symmetries_of
from landscape.symmetry.families import Family

_graphs: WeakKeyDictionary[Objective, Graph] = WeakKeyDictionary()
# Of the weights that vary, and of all weights; or why neither is known.
_found: WeakKeyDictionary[Objective, tuple[Symmetries, Symmetries] | str] = WeakKeyDictionary()


def traced(objective: Objective) -> Graph:
    """The graph of the network for the shape of its first samples, traced once for all measures.

    Raises:
        NotDefined: the network takes several arguments, or cannot be traced.
    """
    try:
        objective.subset(min(2, objective.samples)).plain()  # refuses several arguments
        return _graph(objective)
    except UsageError as error:
        raise NotDefined(error.problem) from error


def symmetries_for(objective: Objective) -> Symmetries | None:
    """The symmetries of the network with its loss, found once for all measures; None if the network cannot be read.

    Those that move the weights that vary, and no weight that is held: the symmetries of the loss as a function of theta. A
    shift that moves all outputs of a sample by the same counts only if the loss ignores that.

    Cost: one trace (seconds), at the first call.
    """
    found = _symmetries(objective)
    return None if isinstance(found, str) else found[0]


def whole_symmetries(objective: Objective) -> Symmetries | None:
    """As `symmetries_for`, with the factors that also move weights that are held."""
    found = _symmetries(objective)
    return None if isinstance(found, str) else found[1]


def known_symmetries(objective: Objective) -> Symmetries:
    """As `symmetries_for`, for measures that cannot do without.

    Raises:
        NotDefined: the network cannot be read; the message says why.
    """
    found = _symmetries(objective)
    if isinstance(found, str):
        raise NotDefined(found)
    return found[0]


def found_symmetries(objective: Objective) -> FoundSymmetries:
    """The families of symmetries of the network with its loss and how many of each, and what could not be read.

    Cost: as for `symmetries_for`.
    """
    found = _symmetries(objective)
    if isinstance(found, str):
        return FoundSymmetries(reason=found)
    inside, whole = _counts(found[0]), _counts(found[1])
    across = {family: n - inside.get(family, 0) for family, n in whole.items() if n > inside.get(family, 0)}
    return FoundSymmetries(inside, found[0].all_unread, across=across)


def _counts(found: Symmetries) -> dict[str, int]:
    """How many symmetries there are of every family that exists."""
    nearly = () if found.nearly is None else found.nearly.units
    counts = {
        "layer": len(found.units),
        "node": found.neurons,
        "pair": sum(mixing.family == "pair" for mixing in found.mixings),
        "rotation": sum(mixing.family == "rotation" for mixing in found.mixings),
        "norm-out": sum(unit.normed for unit in found.units),
        "norm-in": len(nearly) + sum(bool(unit.buffers) for unit in found.units),
        "shift": sum(constant.family == "shift" for constant in found.constants),
        "bias": sum(constant.family == "bias" for constant in found.constants),
    }
    return {family: counts[family] for family in found.families}


def share_symmetries(known: Objective, other: Objective) -> None:
    """Let an objective of the same network at other weights have the symmetries of a known one, if they were found already."""
    if known in _found:
        _found[other] = _found[known]


def in_whole_tensors(objective: Objective) -> bool:
    """Whether every layer-wise rescaling multiplies each tensor by one number, so that its norm scales alike.

    Counterexamples: rescaling one layer scales only some columns of a weight that reads a concatenation, and one third of
    the joint projection of an attention layer. Also False if the network cannot be traced.
    """
    symmetries = whole_symmetries(objective)  # a certificate moves the weights that are held, too
    if symmetries is None:
        return False
    for unit in symmetries:
        for name in (*unit.multiplied, *unit.divided):
            exponent = symmetries.scalings[name].exponent(unit.neurons)
            if bool((exponent != exponent.flatten()[0]).any()):
                return False
    return True


def with_means_of_batchnorm(objective: Objective) -> tuple[Family, ...]:
    """ "bias" for networks where it only exists between a BatchNorm's running mean and its shift.

    There the shift changes by a fixed multiple of the gain, so that the change of the weights is linear.
    """
    found = whole_symmetries(objective)
    others = (
        found is None
        or found.centrings
        or found.unread
        or found.unread_constants
        or any(trade.family == "bias" for trade in found.trades)
    )
    return () if others else ("bias",)


def _graph(objective: Objective) -> Graph:
    """The graph up to the tensor that the loss takes, traced once."""
    if objective not in _graphs:
        _graphs[objective] = objective.graph()
    return _graphs[objective]


def _symmetries(objective: Objective) -> tuple[Symmetries, Symmetries] | str:
    """The symmetries of the weights that vary, and of all, found once; or why there are none to know of."""
    if objective not in _found:
        try:
            graph, names = _graph(objective), frozenset(objective.layout.names)
            whole = symmetries_of(graph, names)
            found = whole if names >= graph.parameters else symmetries_of(graph, names, hold=True)
            if whole.moves_outputs and not objective.ignores_constants():
                found, whole = found.with_equal_outputs(), whole.with_equal_outputs()
            _found[objective] = (found, whole)
        except UsageError as error:
            _found[objective] = error.problem
        except Exception as error:  # a rule met a network it was not made for: its symmetries are then not known
            _found[objective] = f"reading its operations failed: {type(error).__name__}: {first_line(error)}"
    return _found[objective]
