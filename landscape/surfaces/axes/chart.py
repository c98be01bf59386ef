"""A chart: a grid of coordinates and the weights at each point. Lines, planes and curves are charts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from landscape.errors import UsageError

Span = tuple[float, float]
Place = tuple[float, ...]
Statistics = Callable[[Place, Tensor], dict[str, Tensor] | None]


@dataclass(frozen=True, eq=False)
class Chart:
    """A grid of points of weight space.

    Points are numbered in C order, with the last axis fastest.

    Attributes:
        axes: one name per axis.
        coordinates: one (n_i,) array per axis.
        weights: place -> (P,) weights.
        statistics: (place, weights) -> buffers that replace the network's there; None keeps the network's.
        centre: the reference point of differences.
        ends: other places that are saved networks.
    """

    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    weights: Callable[[Place], Tensor]
    statistics: Statistics
    centre: Place
    ends: tuple[Place, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Points on each axis."""
        return tuple(len(c) for c in self.coordinates)

    @property
    def size(self) -> int:
        """Total number of points."""
        return math.prod(self.shape)

    @cached_property
    def middle(self) -> tuple[int, ...]:
        """Index of the grid point nearest to the centre; the first of two equally near ones."""
        return tuple(int(np.argmin(np.abs(c - at))) for c, at in zip(self.coordinates, self.centre, strict=True))

    def place(self, number: int) -> Place:
        """Coordinates of a point."""
        index = np.unravel_index(number, self.shape)
        return tuple(float(c[i]) for c, i in zip(self.coordinates, index, strict=True))

    def stacks(self, size: int) -> list[tuple[int, ...]]:
        """All points from coarse to fine, in fixed groups of at most `size`; points that are saved networks form their own.

        Example:
            >>> flat = Chart(("d",), (np.linspace(-1, 1, 5),), lambda p: None, lambda p, t: None, (0.0,))
            >>> flat.stacks(1), flat.stacks(4)
            ([(0,), (2,), (4,), (1,), (3,)], [(2,), (0, 4, 1, 3)])
        """
        return self.grouped([k for level in self.levels() for k in level], size)

    def grouped(self, order: Sequence[int], size: int) -> list[tuple[int, ...]]:
        """These points in groups of at most `size`; points that are saved networks form their own."""
        if size == 1:
            return [(k,) for k in order]
        saved = {self.centre, *self.ends}
        alone = [k for k in order if self.place(k) in saved]
        rest = [k for k in order if self.place(k) not in saved]
        return [*((k,) for k in alone), *(tuple(rest[i : i + size]) for i in range(0, len(rest), size))]

    def at(self, place: Place) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Weights and buffers at a place."""
        theta = self.weights(place)
        return theta, self.statistics(place, theta)

    def levels(self) -> list[list[int]]:
        """The points by level, from coarse to fine: each level halves the spacing of the level before.

        The first level contains the middle and the corners of the border, so that every preview covers the whole span.
        """
        stride = 1 << max(0, (max(self.shape) // 2).bit_length() - 1)
        strides = [stride >> i for i in range(stride.bit_length())]
        first = np.zeros(self.shape, np.int8)  # the level of a point: the largest over its axes
        for axis, (n, middle) in enumerate(zip(self.shape, self.middle, strict=True)):
            away = np.arange(n) - middle
            level = np.array([np.argmax(away[i] % np.array(strides) == 0) for i in range(n)], np.int8)
            level[[0, -1]] = 0
            np.maximum(first, level.reshape([n if a == axis else 1 for a in range(len(self.shape))]), out=first)
        found = (np.flatnonzero(first == level).tolist() for level in range(len(strides)))
        return [numbers for numbers in found if numbers]

    def parent(self, number: int) -> int | None:
        """The neighbour one step closer to the middle, along the last axis first, then along the first; None at the middle."""
        index = [int(i) for i in np.unravel_index(number, self.shape)]
        for axis in reversed(range(len(index))):
            away = index[axis] - self.middle[axis]
            if away:
                index[axis] -= int(math.copysign(1, away))
                return int(np.ravel_multi_index(tuple(index), self.shape))
        return None

    def outwards(self) -> list[int]:
        """All points, each after its parent; each row outwards before the next row."""
        index = np.unravel_index(np.arange(self.size), self.shape)
        away = [i - m for i, m in zip(index, self.middle, strict=True)]
        keys = [key for a in away for key in (np.abs(a), a < 0)]
        spine = np.all([a == 0 for a in away[1:]], axis=0) if len(away) > 1 else np.ones(self.size, bool)
        # Off the first axis, sort by row, then by side, then by distance from the middle.
        rest = [*keys[:-2], keys[-1], keys[-2]]
        out = []
        for chosen, order in ((spine, keys), (~spine, rest)):
            numbers = np.flatnonzero(chosen)
            out += numbers[np.lexsort([key[numbers] for key in reversed(order)])].tolist()
        return out


def coordinates(span: Span, points: int) -> np.ndarray:
    """Evenly spaced points over the span, exactly antisymmetric if the span is symmetric. A coordinate 0 is exact.

    Raises:
        UsageError: fewer than two points, or a span that is not finite or not increasing.
    """
    low, high = float(span[0]), float(span[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"expected a span of two increasing finite numbers, found {low:g} to {high:g}", fix="pass --span -1 1")
    if points < 2:
        raise UsageError(f"expected a grid of at least 2 points on each axis, found {points}", fix="pass --grid 51")
    values = np.linspace(low, high, points)
    if low == -high:
        return (values - values[::-1]) / 2
    return np.where(np.abs(values) < 1e-12 * (high - low), 0.0, values)


def fitted_span(places: np.ndarray, points: int, margin: float = 0.15) -> Span:
    """A span that contains all places and 0, with a margin, such that 0 is one of `points` evenly spaced points.

    Example:
        >>> low, high = fitted_span(np.array([1.0, 6.0]), 11)
        >>> low < -0.9 + 1e-9, high > 6.9 - 1e-9, high - low < 9, 0.0 in coordinates((low, high), 11)
        (True, True, True, True)
    """
    low, high = min(0.0, float(np.min(places))), max(0.0, float(np.max(places)))
    room = margin * (high - low) or 1.0
    low, high = low - room, high + room
    if points < 3:
        return low, high
    steps = [max(-low / k, high / (points - 1 - k)) for k in range(1, points - 1)]
    before = 1 + int(np.argmin(steps))
    return -before * steps[before - 1], (points - 1 - before) * steps[before - 1]


def joining_span(points: int, margin: float = 0.25) -> Span:
    """A span around 0 and 1, both of them among `points` evenly spaced points, with at least this margin on either side.

    Networks at 0 and 1 then have a computed point each, where a picture shows them.

    Example:
        >>> joining_span(25), coordinates(joining_span(7), 7).tolist()
        ((-0.25, 1.25), [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
    """
    steps = points - 1
    between = next((k for k in range(steps - 2, 0, -1) if (steps - k) // 2 >= margin * k), None)
    if between is None:  # three points or fewer
        return fitted_span(np.array([1.0]), points, margin)
    before = (steps - between) // 2
    return -before / between, (steps - before) / between
