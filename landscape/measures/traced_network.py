"""The traced graph of a network, and conditions on it for claims of invariance."""

from weakref import WeakKeyDictionary

from landscape.errors import UsageError
from landscape.measures.registry import NotDefined
from landscape.network.graph import Graph, graph_of
from landscape.objective import Objective
from landscape.symmetry import Symmetries, symmetries_of

_graphs: WeakKeyDictionary[Objective, Graph] = WeakKeyDictionary()
_found: WeakKeyDictionary[Objective, Symmetries | str] = WeakKeyDictionary()  # or why there are none


def traced(objective: Objective) -> Graph:
    """The graph of the network for the shape of its first samples, traced once for all measures.

    Raises:
        NotDefined: the network takes several arguments, or cannot be traced.
    """
    if objective not in _graphs:
        try:
            model, _, (x, _) = objective.subset(min(2, objective.samples)).plain()
            _graphs[objective] = graph_of(model, x)
        except UsageError as error:
            raise NotDefined(error.problem) from error
    return _graphs[objective]


def in_whole_tensors(objective: Objective) -> bool:
    """Whether every layer-wise rescaling multiplies each tensor by one number, so that its norm scales alike.

    Counterexamples: rescaling one layer scales only some columns of a weight that reads a concatenation, and one third of
    the joint projection of an attention layer. Also False if the network cannot be traced.
    """
    symmetries = symmetries_for(objective)
    if symmetries is None:
        return False
    for unit in symmetries:
        for name in (*unit.multiplied, *unit.divided):
            exponent = symmetries.scalings[name].exponent(unit.neurons)
            if bool((exponent != exponent.flatten()[0]).any()):
                return False
    return True


def symmetries_for(objective: Objective) -> Symmetries | None:
    """The network's symmetries, found once for all measures; None if it cannot be traced."""
    try:
        return known_symmetries(objective)
    except NotDefined:
        return None


def known_symmetries(objective: Objective) -> Symmetries:
    """As `symmetries_for`, for measures that cannot do without.

    Raises:
        NotDefined: the network cannot be traced; the message says why.
    """
    if objective not in _found:
        try:
            _found[objective] = symmetries_of(traced(objective))
        except UsageError as error:
            _found[objective] = error.problem
    found = _found[objective]
    if isinstance(found, str):
        raise NotDefined(found)
    return found
