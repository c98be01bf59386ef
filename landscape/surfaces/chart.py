"""A chart: a grid of coordinates with the weights that belong to each. Lines, planes and curves are charts."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from landscape.errors import UsageError

Span = tuple[float, float]
Place = tuple[float, ...]
Statistics = Callable[[Place, Tensor], dict[str, Tensor] | None]


@dataclass(frozen=True, eq=False)
class Chart:
    """A grid of points of weight space.

    Points are numbered through in C order, the last axis fastest.

    Attributes:
        axes: a name an axis.
        coordinates: one (n_i,) array an axis.
        weights: place -> (P,) weights.
        statistics: place, weights -> buffers that replace the network's own there; None for its own.
        centre: the place that differences are taken to.
    """

    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    weights: Callable[[Place], Tensor]
    statistics: Statistics
    centre: Place

    @property
    def shape(self) -> tuple[int, ...]:
        """Points on each axis."""
        return tuple(len(c) for c in self.coordinates)

    @property
    def size(self) -> int:
        """Points in all."""
        return math.prod(self.shape)

    @property
    def middle(self) -> tuple[int, ...]:
        """Index of the point of the grid nearest to the centre."""
        return tuple(int(np.argmin(np.abs(c - at))) for c, at in zip(self.coordinates, self.centre, strict=True))

    def place(self, number: int) -> Place:
        """Coordinates of a point."""
        index = np.unravel_index(number, self.shape)
        return tuple(float(c[i]) for c, i in zip(self.coordinates, index, strict=True))

    def at(self, place: Place) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Weights and buffers at a place."""
        theta = self.weights(place)
        return theta, self.statistics(place, theta)

    def levels(self) -> list[list[int]]:
        """The points in order from coarse to fine: each level halves the distance between neighbours of the one before.

        Every level holds the middle and the borders, so that a picture of it covers the whole span.
        """
        stride = 1 << max(0, (max(self.shape) // 2).bit_length() - 1)
        done: set[int] = set()
        out = []
        while stride:
            axes = [_every(stride, n, c) for n, c in zip(self.shape, self.middle, strict=True)]
            numbers = [int(np.ravel_multi_index(index, self.shape)) for index in itertools.product(*axes)]
            new = [k for k in numbers if k not in done]
            done.update(new)
            if new:
                out.append(new)
            stride //= 2
        return out

    def parent(self, number: int) -> int | None:
        """The neighbour one step nearer to the middle: along the last axis first, then along the first; None in the middle."""
        index = [int(i) for i in np.unravel_index(number, self.shape)]
        for axis in reversed(range(len(index))):
            away = index[axis] - self.middle[axis]
            if away:
                index[axis] -= int(math.copysign(1, away))
                return int(np.ravel_multi_index(tuple(index), self.shape))
        return None

    def outwards(self) -> list[int]:
        """All points, each after its parent; along a row outwards before the next row begins."""

        def steps(number: int) -> tuple[int, ...]:
            index = np.unravel_index(number, self.shape)
            away = [int(i) - m for i, m in zip(index, self.middle, strict=True)]
            return tuple(key for a in away for key in (abs(a), int(a < 0)))

        spine = sorted((k for k in range(self.size) if self._on_spine(k)), key=steps)
        rest = sorted((k for k in range(self.size) if not self._on_spine(k)), key=lambda k: _row_first(steps(k)))
        return spine + rest

    def _on_spine(self, number: int) -> bool:
        """Whether a point lies on the first axis through the middle."""
        return all(int(i) == m for i, m in zip(np.unravel_index(number, self.shape)[1:], self.middle[1:], strict=True))


def coordinates(span: Span, points: int) -> np.ndarray:
    """Evenly spaced points over the span; exactly antisymmetric, with an exact 0 in the middle, if the span is symmetric.

    Raises:
        UsageError: fewer than two points, or a span that is not finite or not increasing.
    """
    low, high = float(span[0]), float(span[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"expected a span of two increasing finite numbers, found {low:g} to {high:g}", fix="pass --span -1 1")
    if points < 2:
        raise UsageError(f"expected a grid of at least 2 points on each axis, found {points}", fix="pass --grid 51")
    values = np.linspace(low, high, points)
    return (values - values[::-1]) / 2 if low == -high else values


def _every(stride: int, n: int, middle: int) -> list[int]:
    """Every so many indices of an axis, counted from the middle, and both ends."""
    return sorted({0, n - 1, *(i for i in range(n) if (i - middle) % stride == 0)})


def _row_first(steps: tuple[int, ...]) -> tuple[int, ...]:
    """Key that keeps half a row together: its row, its side, then the distance from the middle."""
    return (*steps[:-2], steps[-1], steps[-2])
