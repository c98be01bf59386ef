"""What a traced network tells its measures: its graph, and which claims of invariance it lets them make."""

from weakref import WeakKeyDictionary

from landscape.errors import UsageError
from landscape.measures.registry import NotDefined
from landscape.network.graph import Graph, graph_of
from landscape.objective import Objective
from landscape.symmetry import Symmetries, symmetries_of

_graphs: WeakKeyDictionary[Objective, Graph] = WeakKeyDictionary()
_found: WeakKeyDictionary[Objective, Symmetries | None] = WeakKeyDictionary()


def traced(objective: Objective) -> Graph:
    """The network as a graph, for the shape of its first samples; traced once for all measures that read it.

    Raises:
        NotDefined: it takes several arguments, or cannot be traced.
    """
    if objective not in _graphs:
        try:
            model, _, (x, _) = objective.subset(min(2, objective.samples)).plain()
            _graphs[objective] = graph_of(model, x)
        except UsageError as error:
            raise NotDefined(error.problem) from error
    return _graphs[objective]


def in_whole_tensors(objective: Objective) -> bool:
    """Whether every layer-wise rescaling multiplies each tensor by one number, so that its norm follows.

    Scaling one layer scales only some columns of a weight that reads a concatenation, and one third of an attention's
    joint projection. False as well for a network that cannot be traced: what is not known is not claimed.
    """
    symmetries = _symmetries(objective)
    if symmetries is None:
        return False
    for unit in symmetries:
        for name in (*unit.multiplied, *unit.divided):
            exponent = symmetries.scalings[name].exponent(unit.neurons)
            if bool((exponent != exponent.flatten()[0]).any()):
                return False
    return True


def _symmetries(objective: Objective) -> Symmetries | None:
    """The network's symmetries, looked for once; None where it cannot be traced."""
    if objective not in _found:
        try:
            _found[objective] = symmetries_of(traced(objective))
        except UsageError:
            _found[objective] = None
    return _found[objective]
