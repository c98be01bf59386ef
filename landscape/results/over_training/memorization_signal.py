"""Whether training began to fit wrong labels, as an alarm on the traces of layers says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.machine.json_values import finite_or_none
from landscape.results.drawing import drawing, plotted
from landscape.results.printed import Cells, Printed, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 4  # layers; more are counted


@dataclass(frozen=True, eq=False)
class MemorizationSignal(Printed):
    """The state of an alarm for label memorization at the last check of a training run.

    Attributes:
        steps: (n,) steps of the checks.
        sums: (n,) Page's cumulative sums of the log traces' increments since the alarm began to listen; nan before.
        threshold: the alarm sounds once a sum is above it.
        listening: step at which it began to listen, once something had been learned; None if it has not.
        sounded: step of the first check at which a sum was above the threshold; None if none was.
        layers: the layers whose traces count.
        reason: why it cannot tell; "" if it can.
        counted: what the steps count: see `WatchHistory`.
    """

    steps: np.ndarray = field(repr=False)
    sums: np.ndarray = field(repr=False)
    threshold: float
    listening: int | None = None
    sounded: int | None = None
    layers: tuple[str, ...] = ()
    reason: str = ""
    counted: str = "step"

    @property
    def largest(self) -> float:
        """The largest sum so far; 0 before the alarm listens."""
        known = self.sums[np.isfinite(self.sums)]
        return float(known.max()) if len(known) else 0.0

    def __str__(self) -> str:
        if self.reason:
            return f"memorization alarm: cannot tell, {self.reason}"
        if self.listening is None:
            return "memorization alarm: silent, not listening yet: the loss is still near the first one"
        layers = ", ".join(self.layers) if len(self.layers) <= _NAMED else f"{len(self.layers)} hidden layers"
        factor = f"{np.exp(self.largest):.3g}"
        since = f"since {self.counted} {self.listening}"
        limit = f"it sounds at {np.exp(self.threshold):.3g}-fold"
        if self.sounded is None:
            rose = f"rose at most {factor}-fold" if factor != "1" else "did not rise"
            return f"memorization alarm: silent; over the output layer's record, traces of {layers} {rose} {since}; {limit}"
        found = f"wrong labels may be being fitted since about {self.counted} {self.sounded}"
        rose = f"rose {factor}-fold {since}"
        return f"memorization alarm: {found}; over the output layer's record, traces of {layers} {rose}; {limit}"

    def cells(self) -> Cells:
        """A row for each check at which it listened, then what it says."""
        rows = [(str(s), f"{x:.4g}", f"{np.exp(x):.3g}-fold") for s, x in zip(self.steps, self.sums, strict=True) if x == x]
        return Cells((self.counted, "sum", "rise"), rows, after=(str(self),))

    def records(self) -> list[Mapping[str, Any]]:
        """One row for each check: its number and the sum, nan before the alarm listened."""
        return rows_of({self.counted: self.steps, "sum": self.sums})

    @drawing
    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the sums against the threshold."""
        return plotted(self, ax, caption)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; a sum that is not finite is null."""
        return {
            "steps": [int(s) for s in self.steps],
            "sums": [finite_or_none(float(s)) for s in self.sums],
            "threshold": self.threshold,
            "listening": self.listening,
            "sounded": self.sounded,
            "layers": list(self.layers),
            "reason": self.reason,
            "counted": self.counted,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "MemorizationSignal":
        """Inverse of `to_json`."""
        sums = np.array([np.nan if s is None else s for s in data["sums"]], dtype=float)
        named = {name: data[name] for name in ("threshold", "listening", "sounded", "reason")}
        counted = data.get("counted", "step")
        return cls(np.array(data["steps"], dtype=np.int64), sums, layers=tuple(data["layers"]), counted=counted, **named)
