"""What must hold of a network for a claim of invariance that not every network lets a measure make."""

from weakref import WeakKeyDictionary

from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.symmetry import Symmetries, find_symmetries

_found: WeakKeyDictionary[Objective, Symmetries | None] = WeakKeyDictionary()


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
            _found[objective] = find_symmetries(objective.subset(1).plain()[0], objective.example)
        except UsageError:
            _found[objective] = None
    return _found[objective]
