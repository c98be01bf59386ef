"""Preview of an incomplete surface: its finest sub-grid without missing points."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]  # the toolkit has no types

from landscape.report.quantities import states
from landscape.report.style import GREY
from landscape.results import Slice
from landscape.results.surfaces.slice import MISSING

# Up to this share of missing points the whole grid is drawn, with gaps; above it, the finest complete sub-grid.
HOLES = 0.1
ROOM = 0.1  # share of an axis that the label beside the preview needs


def coarse(piece: Slice, quantity: str = "loss") -> Slice:
    """The finest complete sub-grid of an incomplete line or plane: rows and columns without missing points.

    Rows R and columns C are chosen such that every point of R × C is computed and sqrt(s_1^2 + s_2^2) is smallest. Here s_i is
    the largest step on axis i, between neighbours or to an end of the axis, as a share of its length. Ties go to the sub-grid
    with the most points. The optimum is NP-hard (a biclique problem). The candidates are: for every k, the rows with at least k
    points with the columns common to them; the same with rows and columns exchanged; and a greedy thinning. For grids that are
    refined level by level this is exact. Points that failed or are not finite count as computed, since they will not change.

    Args:
        piece: a line or a plane.
        quantity: the quantity whose missing points are considered.

    Returns:
        The slice on the sub-grid, which may be uneven, without merge tree; the slice itself if no point is missing; a slice
        without points if no complete sub-grid has at least 2 points per axis.

    Raises:
        UsageError: the slice lacks the quantity.

    Cost: O(n^3) comparisons for an n × n grid; a fraction of a second for 101 × 101.

    Example:
        >>> a = np.linspace(-1, 1, 5)
        >>> loss = np.ma.masked_array(a**2, mask=[False, True, False, True, False])
        >>> coarse(Slice(("d",), (a,), {"loss": loss}, {}, None, "", {})).coordinates[0].tolist()
        [-1.0, 0.0, 1.0]
    """
    there = states(piece, quantity) != MISSING
    if there.all():
        return piece
    coordinates = [np.asarray(c, float) for c in piece.coordinates]
    chosen = [np.flatnonzero(there)] if piece.dim == 1 else list(_finest(there, coordinates))
    if any(len(c) < 2 for c in chosen):
        chosen = [np.empty(0, int)] * piece.dim
    cut = np.ix_(*chosen)
    arrays: dict[str, Any] = {
        name: {
            k: np.ma.asarray(v)[cut] if np.ma.isMaskedArray(v) else np.asarray(v)[cut] for k, v in getattr(piece, name).items()
        }
        for name in ("values", "stderr", "paired", "status")
    }
    return replace(
        piece, coordinates=tuple(c[i] for c, i in zip(coordinates, chosen, strict=True)), merge_tree=None, **arrays
    )  # fmt: skip


def preview(piece: Slice, quantity: str = "loss") -> tuple[Slice, str]:
    """The slice to draw and a remark for its title; the remark is empty if no point is missing."""
    missing = states(piece, quantity) == MISSING
    if not missing.any():
        return piece, ""
    there = f"{missing.size - int(missing.sum()):,} of {missing.size:,} points"
    if missing.all():
        return piece, f"nothing computed yet: {there}"
    part = coarse(piece, quantity)
    if missing.mean() <= HOLES or 0 in map(len, part.coordinates):
        return piece, f"preview: {there}"
    sizes = (" × ".join(str(len(c)) for c in p.coordinates) for p in (part, piece))
    return part, f"preview: {' of '.join(sizes)} points"


def show_whole_span(ax: Axes, piece: Slice) -> None:
    """Extend the axes to the span of the complete slice; dots fill what the preview does not cover."""
    limits = [(float(np.min(c)), float(np.max(c))) for c in piece.coordinates]
    drawn = ax.get_xlim(), ax.get_ylim()
    if isinstance(ax, Axes3D):
        return
    ax.set_xlim(limits[0])
    if piece.dim == 1:
        return
    ax.set_ylim(limits[1])
    spans = [high - low for low, high in limits]
    if abs(spans[0] - spans[1]) <= 1e-9 * max(spans):
        ax.set_aspect("equal")
    if any(d != limit for d, limit in zip(drawn, limits, strict=True)):
        whole = Rectangle((limits[0][0], limits[1][0]), *(high - low for low, high in limits), gid="not computed", zorder=0.5)
        whole.set(facecolor="white", edgecolor=GREY, hatch="....", lw=0)
        ax.add_patch(whole)
        sides = [
            (abs(side - end), axis, (side + end) / 2)
            for axis in (0, 1)
            for side, end in zip(drawn[axis], limits[axis], strict=True)
        ]
        share, axis, place = max((size / np.ptp(limits[axis]), axis, place) for size, axis, place in sides)
        if share > ROOM:
            middle = [float(np.mean(limit)) for limit in limits]
            middle[axis] = place
            words: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "rotation": 0 if axis else 90,
                "fontsize": 8,
                "color": GREY,
            }
            box = {"fc": "white", "ec": "none", "pad": 2}
            ax.text(middle[0], middle[1], "not computed yet", bbox=box, zorder=1.5, **words)


def _finest(there: np.ndarray, coordinates: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the candidate with the smallest steps."""

    def coarseness(candidate: tuple[np.ndarray, np.ndarray]) -> tuple[float, int]:
        diagonal = math.hypot(*(_largest_step(c, i) for c, i in zip(coordinates, candidate, strict=True)))
        return diagonal, -len(candidate[0]) * len(candidate[1])

    return min(_candidates(there), key=coarseness)


def _candidates(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidates: complete sub-grids."""
    for rows, columns in _by_count(there):
        yield rows, columns
    for columns, rows in _by_count(there.T):
        yield rows, columns
    yield _thinned(there)


def _by_count(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows with at least k points and the columns common to them, for every k."""
    counts = there.sum(axis=1)
    for k in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts >= k)
        yield rows, np.flatnonzero(there[rows].all(axis=0))


def _thinned(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove the row or column with the largest share of missing points until no point is missing."""
    rows, columns = np.arange(there.shape[0]), np.arange(there.shape[1])
    while len(rows) and len(columns):
        gaps = ~there[np.ix_(rows, columns)]
        by_row, by_column = gaps.mean(axis=1), gaps.mean(axis=0)
        if by_row.max() == 0:
            break
        if by_row.max() >= by_column.max():
            rows = np.delete(rows, by_row.argmax())
        else:
            columns = np.delete(columns, by_column.argmax())
    return rows, columns


def _largest_step(coordinates: np.ndarray, chosen: np.ndarray) -> float:
    """The largest distance between chosen neighbours or to the ends of the axis, as a share of its length."""
    if len(chosen) < 2:
        return np.inf
    places = np.concatenate([coordinates[:1], coordinates[chosen], coordinates[-1:]])
    return round(float(np.diff(places).max() / np.ptp(coordinates)), 9)  # ignores rounding
