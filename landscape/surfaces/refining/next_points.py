"""Which points of a surface are computed next, so that the rest can be interpolated."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from landscape.errors import UsageError
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.refining.known_values import Known
from landscape.surfaces.refining.smooth_fit import nearest_distance

LATTICE = 11  # points of the first lattice on each axis
NEAR = 3  # steps around the centre, where a minimum is narrowest, that are all computed
SAFETY = 0.2  # share of the tolerance up to which the two splines may be apart
KEPT = 0.6  # share of the tolerance up to which points held out may be off: what was not held out may be further off
GROWTH = 0.1  # new points of a round, as a share of the known ones
HELD_OUT, SHARE = 40, 1 / 8  # points held out at least, but of a small grid no more than this share of the interpolated ones
_FEWEST = 4  # points on an axis, and a third of the finite values, that splines need
_MOST = 0.7  # share of known points from which on all are computed
_BESIDE = 1.5  # a point this much further from one without a finite value than from one with may be without, too
_AROUND = 2.5  # steps around a point that was missed


@dataclass(frozen=True)
class Tolerance:
    """What a surface may be off by.

    Attributes:
        errors: in standard errors over samples.
        seed: of the points held out.
    """

    errors: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.errors < float("inf"):
            raise UsageError(f"expected a tolerance above 0 standard errors, found {self.errors:g}", fix="pass 0.25")


def first_points(chart: Chart, needed: Sequence[int]) -> list[int]:
    """The first lattice, the centre and its neighbours, saved networks on the grid, and what is needed beside them."""
    sizes = list(zip(chart.shape, chart.middle, strict=True))
    axes = [{m, *np.linspace(0, n - 1, min(LATTICE, n)).round().astype(int).tolist()} for n, m in sizes]
    near = [{i for i in range(m - NEAR, m + NEAR + 1) if 0 <= i < n} for n, m in sizes]
    found: set[tuple[int, ...]] = {*product(*axes), *product(*near)}
    for place in (chart.centre, *chart.ends):
        at = [np.flatnonzero(c == a) for c, a in zip(chart.coordinates, place, strict=True)]
        if all(len(a) for a in at):
            found.add(tuple(int(a[0]) for a in at))
    numbers = {int(np.ravel_multi_index(index, chart.shape)) for index in found} | set(needed)
    return [k for level in chart.levels() for k in level if k in numbers]


def next_points(known: Known, tolerance: Tolerance, together: int = 1) -> tuple[list[int], list[int], list[int]]:
    """The points to compute next; which of them are held out, and which are extremes. None if the last ones were right.

    All of the rest are computed where splines cannot help: few points on an axis, few finite values, or most points known.

    Args:
        known: the computed values.
        tolerance: what the others may be off by.
        together: points that are evaluated at once; a round fills such groups.
    """
    chart, rest = known.chart, known.rest
    few = min(chart.shape) < _FEWEST or any(known.finite(q).sum() < 3 * _FEWEST for q in known.errors)
    if few or not len(rest) or len(known.numbers) > _MOST * chart.size:
        return rest.tolist(), [], []
    try:
        return _next(known, tolerance, together)
    except np.linalg.LinAlgError:  # the finite points lie on a line
        return rest.tolist(), [], []


def _next(known: Known, tolerance: Tolerance, together: int) -> tuple[list[int], list[int], list[int]]:
    """`next_points` where every bounded quantity has splines."""
    rest, worst = known.rest, _apart(known)
    missed = [k for k, off in known.off().items() if off > KEPT * tolerance.errors]
    if missed:
        distance = nearest_distance(known.places[missed], known.places[rest])[0]
        worst[distance <= _AROUND * _step(known.chart)] = np.inf
    confirmed = bool(known.held) and not missed
    # Points held out that were right confirm the splines, unless they are now further apart than that.
    bad = worst > (KEPT if confirmed else SAFETY) * tolerance.errors
    if bad.any():
        most = max(8, int(GROWTH * len(known.numbers)))
        return rest[_spaced(known, worst, bad, _rounded_up(most, together))].tolist(), [], []
    if confirmed:
        return [], [], []
    draw = np.random.default_rng([tolerance.seed, len(known.numbers)])
    size = min(_rounded_up(HELD_OUT, together), max(8, int(SHARE * len(rest))), len(rest))
    held = sorted(draw.choice(rest, size, replace=False).tolist())
    extremes = sorted(_extremes(known) - set(held))
    return [*held, *extremes], held, extremes


def _apart(known: Known) -> np.ndarray:
    """How far the two splines are apart at each remaining point, in errors; infinite next to a point without a value."""
    rest = known.rest
    worst = np.zeros(len(rest))
    for quantity in known.errors:
        worst = np.maximum(worst, known.apart(quantity, rest))
        finite = known.finite(quantity)
        if not finite.all():
            at = known.places[known.numbers]
            lost, good = (nearest_distance(at[mask], known.places[rest])[0] for mask in (~finite, finite))
            worst[lost <= _BESIDE * good + _step(known.chart)] = np.inf
    return worst


def _spaced(known: Known, worst: np.ndarray, bad: np.ndarray, most: int) -> list[int]:
    """Indices into `known.rest`: the worst points, at most `most`, each as far from the others as it is from the known ones."""
    places, rest = known.places, known.rest
    own = nearest_distance(places[known.numbers], places[rest])[0]
    free = bad.copy()
    chosen: list[int] = []
    for i in np.argsort(-worst, kind="stable"):
        if len(chosen) >= most:
            break
        if free[i]:
            chosen.append(int(i))
            apart = np.linalg.norm(places[rest] - places[rest[i]], axis=1)
            free &= apart > max(own[i], 1.01 * _step(known.chart))
    return chosen


def _extremes(known: Known) -> set[int]:
    """The points of the smallest and the largest interpolated value, where they exceed the computed ones."""
    rest, found = known.rest, set[int]()
    for quantity in known.errors:
        own, between = known.values[quantity][known.finite(quantity)], known.between(quantity, rest)
        found |= {int(rest[np.argmin(between)])} if between.min() < own.min() else set()
        found |= {int(rest[np.argmax(between)])} if between.max() > own.max() else set()
    return found


def _rounded_up(points: int, together: int) -> int:
    """The next multiple of the points that are evaluated at once."""
    return -(-points // together) * together


def _step(chart: Chart) -> float:
    """The largest distance of two neighbours along an axis, in a unit cube."""
    return 1 / (min(chart.shape) - 1)
