"""The minima of a sampled surface, and the height of the saddle from each to a lower one."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Minimum:
    """A branch of the merge tree: a minimum on the grid and the saddle from its basin to that of a lower minimum.

    Attributes:
        index: grid index of the minimum.
        at: coordinates of the minimum.
        value: the quantity there (birth).
        saddle: grid index of the saddle; None for the lowest minimum, whose basin merges with no other.
        saddle_value: the quantity at the saddle (death); infinite for the lowest minimum.
        into: index, in the tree's order, of the minimum whose basin it joins there; None for the lowest.
        doubt: half-width of a 95 % interval of the persistence, from the sampling errors; None if they are unknown.
        border: whether it lies on the border of the grid; the surface may be lower outside, so it may not be a minimum.
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
        """Height of the saddle above the minimum; infinite for the lowest minimum."""
        return self.saddle_value - self.value


@dataclass(frozen=True)
class MergeTree:
    """The merge tree of a quantity's sublevel sets on a grid, in which points are adjacent along the axes.

    Attributes:
        quantity: name of the quantity.
        minima: in order of decreasing persistence; the first is the lowest.
        threshold: a minimum is significant if its persistence is above this; None: above its own `doubt`, so a minimum of
            unknown `doubt` is not counted.
    """

    quantity: str
    minima: tuple[Minimum, ...]
    threshold: float | None = None

    @property
    def kept(self) -> tuple[Minimum, ...]:
        """The significant minima: the lowest, and those whose persistence is above the threshold or their sampling error."""
        return tuple(m for m in self.minima if m.saddle is None or m.persistence > self._least(m))

    def _least(self, m: Minimum) -> float:
        """Persistence above which a minimum is significant; infinite if unknown."""
        if self.threshold is not None:
            return self.threshold
        return math.inf if m.doubt is None else m.doubt

    @property
    def unknown(self) -> int:
        """Number of minima of unknown significance: there is neither a threshold nor a sampling error."""
        return sum(m.saddle is not None and m.doubt is None for m in self.minima) if self.threshold is None else 0

    def line(self) -> str:
        """The number of minima as text."""
        n, kept, unknown = len(self.minima), len(self.kept), self.unknown
        if unknown and unknown == sum(m.saddle is not None for m in self.minima):
            return f"{n} minima on the grid in all; sampling error unknown, so it is unknown which are significant"
        if n == 1:  # nothing is compared, so no sampling error enters
            return "1 minimum on the grid in all" + (
                " (on the border: the surface may be lower outside)" if self.on_border else ""
            )
        above = "of persistence above " + ("the sampling error" if self.threshold is None else f"{self.threshold:.3g}")
        rest = f", {unknown} of unknown sampling error" if unknown else ""
        edge = self.on_border
        at = f" ({edge} on the border)" if edge else ""
        if kept == edge == 1:
            at = " (on the border: the surface may be lower outside)"
        return f"{kept} minim{'um' if kept == 1 else 'a'} {above}{at}, {n} on the grid in all{rest}"

    @property
    def on_border(self) -> int:
        """Number of significant minima on the border of the grid."""
        return sum(m.border for m in self.kept)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; infinite values are null."""
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
