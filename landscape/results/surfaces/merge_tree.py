"""Which minima a sampled surface has, and how high one must climb from each to reach a lower one."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Minimum:
    """A branch of the merge tree: a minimum of the grid and the pass that leads from its basin to a lower minimum's.

    Attributes:
        index: its place on the grid.
        at: its coordinates.
        value: the quantity there (birth).
        saddle: place on the grid of the pass; None for the lowest minimum, whose basin never ends.
        saddle_value: the quantity at the pass (death); infinite for the lowest minimum.
        into: number of the minimum, in the tree's order, whose basin it joins there; None for the lowest.
        doubt: half-width of a 95 % interval of the persistence, from the errors over samples; None where they are unknown.
        border: whether it lies on the border of the grid, beyond which the surface may fall further: then it may be none.
    """

    index: tuple[int, ...]
    at: tuple[float, ...]
    value: float
    saddle: tuple[int, ...] | None
    saddle_value: float
    into: int | None
    doubt: float | None = None
    border: bool = False

    @property
    def persistence(self) -> float:
        """Height of the pass above the minimum; infinite for the lowest minimum."""
        return self.saddle_value - self.value


@dataclass(frozen=True)
class MergeTree:
    """The merge tree of a quantity's sublevel sets on a grid, points joined to their neighbours along the axes.

    Attributes:
        quantity: which of the slice's quantities.
        minima: in order of decreasing persistence, the lowest first.
        threshold: persistence from which a minimum counts; None: from its own doubt on, and never where that is unknown.
    """

    quantity: str
    minima: tuple[Minimum, ...]
    threshold: float | None = None

    @property
    def kept(self) -> tuple[Minimum, ...]:
        """The minima that count: the lowest, and those of persistence above the threshold, or above the samples' doubt."""
        return tuple(m for m in self.minima if m.saddle is None or m.persistence > self._least(m))

    def _least(self, m: Minimum) -> float:
        """Persistence from which a minimum counts; infinite where nobody knows."""
        if self.threshold is not None:
            return self.threshold
        return math.inf if m.doubt is None else m.doubt

    @property
    def unknown(self) -> int:
        """Number of minima of which nobody knows whether they count: there is no threshold, and no error over samples."""
        return sum(m.saddle is not None and m.doubt is None for m in self.minima) if self.threshold is None else 0

    def line(self) -> str:
        """The count in words."""
        n, kept, unknown = len(self.minima), len(self.kept), self.unknown
        if unknown and unknown == sum(m.saddle is not None for m in self.minima):
            return f"{n} minima on the grid in all, doubt unknown: no error over samples tells which of them count"
        above = "beyond the doubt of the samples" if self.threshold is None else f"of persistence above {self.threshold:.3g}"
        rest = f", doubt unknown of {unknown}" if unknown else ""
        edge = self.on_border
        at = f" ({edge} on the border)" if edge else ""
        if kept == edge == 1:
            at = " (on the border: the surface may fall further outside)"
        return f"{kept} minim{'um' if kept == 1 else 'a'} {above}{at}, {n} on the grid in all{rest}"

    @property
    def on_border(self) -> int:
        """How many of the minima that count lie on the border of the grid."""
        return sum(m.border for m in self.kept)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; what is infinite is null."""
        minima = [
            {
                "index": list(m.index), "at": list(m.at), "value": m.value,
                "saddle": None if m.saddle is None else list(m.saddle),
                "saddle_value": None if math.isinf(m.saddle_value) else m.saddle_value,
                "into": m.into, "doubt": m.doubt, "border": m.border,
            }
            for m in self.minima
        ]  # fmt: skip
        return {"quantity": self.quantity, "threshold": self.threshold, "kept": len(self.kept), "minima": minima}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "MergeTree":
        """Inverse of `to_json`."""
        minima = [
            Minimum(
                tuple(m["index"]), tuple(m["at"]), m["value"], None if m["saddle"] is None else tuple(m["saddle"]),
                math.inf if m["saddle_value"] is None else m["saddle_value"], m["into"], m["doubt"],
                m.get("border", False),
            )
            for m in data["minima"]
        ]  # fmt: skip
        return cls(data["quantity"], tuple(minima), data["threshold"])
