"""How high the loss rises, or how deep the accuracy falls, on the way between two minima."""

import math
from dataclasses import dataclass
from typing import Any

from landscape.machine.json_values import finite_or_none


@dataclass(frozen=True)
class Barrier:
    """Barrier of one quantity on a path between two minima.

    Attributes:
        height: of a loss, the largest value on the line less the mean of the two ends; of an accuracy, the mean of the ends
            less the smallest value, so that a barrier is positive for both. Infinite where the path leaves the finite; nan
            where it is not known.
        stderr: standard error over samples of that difference at that place, from the samples' own differences; it does not
            count that the place was chosen. None where the quantity does not come apart by sample; 0 where no sample differs,
            which is no proof that none would.
        at: where on the line the extreme is, 0 at one end and 1 at the other.
        ends: mean of the two ends.
        reason: why the height is not known; empty where it is.
    """

    height: float
    stderr: float | None
    at: float
    ends: float
    reason: str = ""

    def text(self, scale: float = 1.0) -> str:
        """Height and 95 % half-width, in another unit where a scale is given."""
        if self.reason:
            return f"unknown ({self.reason})"
        if not math.isfinite(self.height):
            return "infinite"
        if self.stderr == 0:
            return f"{scale * self.height:.4g} (no sample differs)"
        half = "" if self.stderr is None else f" ± {1.96 * scale * self.stderr:.2g}"
        return f"{scale * self.height:.4g}{half}"

    def words(self, quantity: str) -> str:
        """The barrier of a quantity as a person says it; accuracies in points.

        Example:
            >>> Barrier(0.25, 0.01, 0.5, 0.1).words("loss"), Barrier(0.02, None, 1.0, 0.9).words("accuracy")
            ('barrier 0.25 ± 0.02, at 0.5', 'no hill: extreme at an end, 2 points from the mean of both')
        """
        accuracy = quantity.endswith("accuracy")
        height = self.text(100.0) + " points" if accuracy else self.text()
        if self.reason:
            return f"barrier unknown: {self.reason}"
        if self.height <= 0:
            return "no barrier"
        if self.at in (0.0, 1.0):
            return f"no hill: extreme at an end, {height} from the mean of both"
        return f"barrier {height}, at {self.at:.3g}"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; a height that is infinite or not known is null."""
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
