"""One quantity of a plane, transposed for matplotlib.

`values[i, j]` is at (axis 1, axis 2) = (x_i, y_j); matplotlib expects y along the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from landscape.errors import UsageError
from landscape.report.quantities import GAPS, SIGNED, shown, states
from landscape.report.style import DIVERGING, FIELD, asks_for_log, log_ticks, short, tick_text
from landscape.results import Slice


@dataclass(frozen=True)
class Field:
    """`z[j, i]` at (x[i], y[j]), nan where there is no value; `state[j, i]` is the status of the point.

    `log`: drawn on a log scale (see `asks_for_log`); `signed`: an eigenvalue that is positive at some points and negative at
    others.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    state: np.ndarray
    log: bool
    signed: bool

    @classmethod
    def of(cls, piece: Slice, quantity: str) -> "Field":
        """One quantity of a plane.

        Raises:
            UsageError: the slice lacks the quantity, or its grid is smaller than 2 × 2.
        """
        values, _ = shown(piece, quantity)
        x, y = (np.asarray(c, float) for c in piece.coordinates)
        if values.shape != (len(x), len(y)) or min(values.shape) < 2:
            found = f"values of shape {values.shape} on {len(x)} × {len(y)} points"
            raise UsageError(f"expected values on a grid of at least 2 × 2 points, found {found}", fix="use a finer grid")
        state = states(piece, quantity)
        z = np.where(np.isin(state, tuple(GAPS)), np.nan, values.data)
        signed = quantity in SIGNED and bool((z < 0).any() and (z > 0).any())
        return cls(x, y, z.T, state.T, asks_for_log([z]), signed)

    @property
    def empty(self) -> bool:
        """Whether there is no finite value."""
        return not np.isfinite(self.z).any()

    @property
    def holds_origin(self) -> bool:
        """Whether the checkpoint lies inside the plane."""
        return all(float(c.min()) <= 0 <= float(c.max()) for c in (self.x, self.y))

    @property
    def colours(self) -> str:
        """The colour map: one that diverges from zero for signed values."""
        return DIVERGING if self.signed else FIELD

    def levels(self) -> np.ndarray:
        """Round contour levels that span the values, in geometric steps on a log scale; for signed values they include 0."""
        low, high = float(np.nanmin(self.z)), float(np.nanmax(self.z))
        if self.log:
            return log_ticks(low, high)
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            width = max(abs(low), 1.0) * 1e-6
            return np.array([low - width, low + width])
        ticks = np.asarray(MaxNLocator(nbins=11, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        first, last = int(np.searchsorted(ticks, low, side="right")) - 1, int(np.searchsorted(ticks, high))
        return ticks[max(first, 0) : last + 1]

    def writing(self, levels: np.ndarray) -> Callable[[float], str]:
        """The label of a level, in the one notation of a log scale, else with as many digits as tell neighbours apart."""
        if self.log:
            return tick_text(float(levels[0]), float(levels[-1]))
        size, steps = float(np.abs(levels).max()), np.diff(levels)
        digits = max(3, int(np.ceil(np.log10(size / steps.min()) + 1e-9)) + 1) if size > 0 and len(steps) else 3
        return partial(short, digits=min(digits, 15))

    def norm(self, levels: np.ndarray) -> Normalize:
        """Normalization of the colour map over the levels; symmetric about zero for signed values."""
        if self.signed:
            largest = float(np.abs(levels).max())
            return Normalize(-largest, largest)
        return (LogNorm if self.log else Normalize)(levels[0], levels[-1])

    def cells(self, status: int) -> np.ndarray:
        """Mask on `z` of the points of this status."""
        return np.asarray(self.state == status)

    def remarks(self) -> list[str]:
        """The numbers of points without a value, for each reason."""
        counts = ((int(self.cells(status).sum()), what) for status, what in GAPS.items())
        return [f"{n} of {self.z.size} points {what}" for n, what in counts if n]

    def boxes(self, cells: np.ndarray) -> list[list[tuple[float, float]]]:
        """The four corners of every chosen point's cell."""
        x, y = edges(self.x), edges(self.y)
        return [[(x[i], y[j]), (x[i + 1], y[j]), (x[i + 1], y[j + 1]), (x[i], y[j + 1])] for j, i in np.argwhere(cells)]


def edges(points: np.ndarray) -> np.ndarray:
    """Cell borders half-way between neighbours.

    Example:
        >>> edges(np.array([0.0, 1.0, 3.0])).tolist()
        [-0.5, 0.5, 2.0, 4.0]
    """
    middle = (points[1:] + points[:-1]) / 2
    return np.concatenate([[2 * points[0] - middle[0]], middle, [2 * points[-1] - middle[-1]]])
