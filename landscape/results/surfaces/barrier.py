"""The barrier between two minima: the rise of the loss, or the drop of the accuracy, along a path."""

import math
from dataclasses import dataclass
from typing import Any

from landscape.machine.json_values import finite_or_none


@dataclass(frozen=True)
class Barrier:
    """Barrier of one quantity on a path between two minima.

    Attributes:
        height: for a loss, the largest value on the path minus the mean of the two ends; for an accuracy, the mean of the ends
            minus the smallest value, so that a barrier is positive for both. Infinite if a value on the path is not finite;
            nan if unknown.
        stderr: standard error over samples of that difference at that point, from paired differences; the choice of the point
            is not accounted for. None if the quantity is not a mean over samples; 0 if no sample differs, which does not
            prove that none in the population would.
        at: position of the extreme on the path, from 0 to 1.
        ends: mean of the two ends.
        reason: why the height is unknown; empty if it is known.
    """

    height: float
    stderr: float | None
    at: float
    ends: float
    reason: str = ""

    @property
    def within_error(self) -> bool:
        """Whether the 95 % interval of the height reaches down to 0: the samples do not show a barrier."""
        return self.stderr is not None and 0 < self.height <= 1.96 * self.stderr

    def text(self, scale: float = 1.0) -> str:
        """Height and half-width of its 95 % interval, both multiplied by `scale`."""
        if self.reason:
            return f"unknown ({self.reason})"
        if not math.isfinite(self.height):
            return "infinite"
        if self.stderr == 0:
            return f"{scale * self.height:.4g} (no sample differs)"
        half = "" if self.stderr is None else f" ± {1.96 * scale * self.stderr:.2g}"
        return f"{scale * self.height:.4g}{half}"

    def words(self, quantity: str) -> str:
        """The barrier as text; accuracies are in percentage points.

        Example:
            >>> Barrier(0.25, 0.01, 0.5, 0.1).words("loss"), Barrier(0.02, None, 1.0, 0.9).words("accuracy")
            ('barrier 0.25 ± 0.02, at 0.5', 'no barrier: extreme at an end, 2 points from the mean of both ends')
            >>> Barrier(0.01, 0.02, 0.5, 0.1).words("loss")
            'no barrier beyond its error: 0.01 ± 0.039, at 0.5'
        """
        accuracy = quantity.endswith("accuracy")
        height = self.text(100.0) + " points" if accuracy else self.text()
        if self.reason:
            return f"barrier unknown: {self.reason}"
        if self.height <= 0:
            return "no barrier"
        if self.at in (0.0, 1.0):
            return f"no barrier: extreme at an end, {height} from the mean of both ends"
        return f"{'no barrier beyond its error:' if self.within_error else 'barrier'} {height}, at {self.at:.3g}"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; a height that is infinite or unknown is null."""
        numbers = {k: finite_or_none(getattr(self, k)) for k in ("height", "stderr", "at", "ends")}
        return numbers | ({"reason": self.reason} if self.reason else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Barrier":
        """Inverse of `to_json`."""
        reason = data.get("reason", "")
        unknown = math.nan if reason else math.inf
        height = unknown if data["height"] is None else data["height"]
        at, ends = (math.nan if data[k] is None else data[k] for k in ("at", "ends"))
        return cls(height, data["stderr"], at, ends, reason)
