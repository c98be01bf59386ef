"""Warm starts: the eigenvectors found for one checkpoint start the Lanczos runs of its neighbour."""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor

from landscape.objective import Objective


@dataclass(frozen=True, eq=False)
class Directions:
    """Eigenvectors that were found for one network.

    Attributes:
        layout: names and shapes of the weights; they mean nothing to a network with others.
        rows: (matrix, units of the weights) -> eigenvectors (k, P), in those units.
    """

    layout: tuple[tuple[str, tuple[int, ...]], ...]
    rows: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, objective: Objective) -> "Directions":
        """None yet."""
        return cls(tuple((entry.name, tuple(entry.shape)) for entry in objective.layout))


_found: WeakKeyDictionary[Objective, Directions] = WeakKeyDictionary()
_starts: WeakKeyDictionary[Objective, Directions] = WeakKeyDictionary()


def start_from(objective: Objective, directions: object) -> bool:
    """Whether these are directions of a network with the same weights; if so, later runs of the objective start from them."""
    usable = isinstance(directions, Directions) and directions.layout == Directions.of(objective).layout and directions.rows
    if usable and isinstance(directions, Directions):
        _starts[objective] = directions
    return bool(usable)


def directions_of(objective: Objective) -> Directions:
    """What was found for this objective so far."""
    return _found.setdefault(objective, Directions.of(objective))


def hint(objective: Objective, matrix: str, units: str | None) -> Tensor | None:
    """Eigenvectors of the neighbour for the same matrix in the same units, (k, P), if it has some."""
    known = _starts.get(objective)
    return None if known is None or units is None else known.rows.get((matrix, units))


def remember(objective: Objective, matrix: str, units: str | None, vectors: Tensor) -> None:
    """Keep them for a neighbour; those in units without a name are of no use to it."""
    if units is not None:
        directions_of(objective).rows[matrix, units] = vectors
