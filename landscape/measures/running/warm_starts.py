"""Warm starts: the eigenvectors of one checkpoint start the Lanczos runs of the next."""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor

from landscape.objective import Objective


@dataclass(frozen=True, eq=False)
class Directions:
    """Eigenvectors of one network.

    Attributes:
        layout: names and shapes of the weights; only a network with the same ones can use the eigenvectors.
        rows: (matrix, units of the weights) -> eigenvectors (k, P), in those units.
    """

    layout: tuple[tuple[str, tuple[int, ...]], ...]
    rows: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, objective: Objective) -> "Directions":
        """An empty set for this objective."""
        return cls(tuple((entry.name, tuple(entry.shape)) for entry in objective.layout))


_found: WeakKeyDictionary[Objective, Directions] = WeakKeyDictionary()
_starts: WeakKeyDictionary[Objective, Directions] = WeakKeyDictionary()


def start_from(objective: Objective, directions: object) -> bool:
    """Start later Lanczos runs from these eigenvectors if names and shapes of the weights agree; return whether they do."""
    usable = isinstance(directions, Directions) and directions.layout == Directions.of(objective).layout and directions.rows
    if usable and isinstance(directions, Directions):
        _starts[objective] = directions
    return bool(usable)


def directions_of(objective: Objective) -> Directions:
    """The eigenvectors computed for this objective so far."""
    return _found.setdefault(objective, Directions.of(objective))


def hint(objective: Objective, matrix: str, units: str | None) -> Tensor | None:
    """Eigenvectors of the other checkpoint for the same matrix in the same units, (k, P), if there are any."""
    known = _starts.get(objective)
    return None if known is None or units is None else known.rows.get((matrix, units))


def remember(objective: Objective, matrix: str, units: str | None, vectors: Tensor) -> None:
    """Store eigenvectors for another checkpoint; those in units without a name cannot be reused."""
    if units is not None:
        directions_of(objective).rows[matrix, units] = vectors
