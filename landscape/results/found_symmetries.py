"""The symmetries of one network, as a line under its table of measures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from landscape.results.printed import Cells, Printed

_NAMED = 3  # operations that are named, out of those that could not be read


@dataclass(frozen=True)
class FoundSymmetries(Printed):
    """The changes of the weights that keep the function of one network, by family.

    Attributes:
        counts: family -> how many there are: layers, neurons, pairs of linear maps, streams that can be rotated, gains of
            normalizations, scales that a normalization takes away, shifts, and biases that can be traded.
        unread: operations that no rule reads, each with its place.
        reason: why the network could not be read at all; None if it was.
        across: family -> how many more there are that also move weights that are held. They are none of the loss as a function
            of the weights that vary; but between networks that differ in the others, they could give a number, too.
    """

    counts: dict[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    reason: str | None = None
    across: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """All of it in one line."""
        if self.reason is not None:
            return f"symmetries not known: {self.reason}"
        found = _listed(self.counts)
        text = f"symmetries found: {found}" if found else "no symmetries found"
        if self.across:
            text += f" among the weights that vary; others also move weights that are held: {_listed(self.across)}"
        if self.unread:
            more = len(self.unread) - _NAMED
            text += f"; not read: {', '.join(self.unread[:_NAMED])}" + (f" and {more} more" if more > 0 else "")
        return text

    def __str__(self) -> str:
        return self.line()

    def cells(self) -> Cells:
        """A row for each family, then all of it in one line."""
        families = dict.fromkeys((*self.counts, *self.across))
        rows = [(f, str(self.counts.get(f, 0)), str(self.across.get(f, 0))) for f in families]
        return Cells(("family", "found", "also move held weights"), rows, after=(self.line(),))

    def records(self) -> list[Mapping[str, Any]]:
        """One row for each family."""
        families = dict.fromkeys((*self.counts, *self.across))
        return [{"family": f, "found": self.counts.get(f, 0), "across": self.across.get(f, 0)} for f in families]

    def to_json(self) -> dict[str, Any]:
        """The attributes."""
        return {"found": self.counts, "unread": list(self.unread), "reason": self.reason, "across": self.across}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "FoundSymmetries":
        """Inverse of `to_json`."""
        return cls(dict(data["found"]), tuple(data["unread"]), data["reason"], dict(data.get("across", {})))


def _listed(counts: dict[str, int]) -> str:
    """Families and their numbers; of layers also how many are gains of normalizations, which norm-out counts again."""
    normed = counts.get("norm-out", 0)
    share = "all" if normed == counts.get("layer") else str(normed)
    words = {"layer": f"; {share} of normalizations"} if normed else {}
    return ", ".join(f"{family} ({n}{words.get(family, '')})" for family, n in counts.items())
