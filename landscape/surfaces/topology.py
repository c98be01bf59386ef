"""The minima of a sampled surface and the saddles between them: the merge tree of its sublevel sets."""

import math

import numpy as np

from landscape.errors import UsageError
from landscape.results import FAILED, MISSING, MergeTree, Minimum, Slice

_NORMAL = 1.96  # half-width of a 95 % interval in standard errors


def merge_tree(piece: Slice, quantity: str = "loss", threshold: float | None = None) -> MergeTree:
    """The minima of a surface, and the height of the saddle from each to a lower one.

    The components of the sublevel sets {x : f(x) <= c} are followed as c rises. A component is born at a minimum and dies at
    the saddle where it merges with one of a lower minimum (elder rule). The persistence is f(saddle) - f(minimum).

    Points are adjacent to their neighbours along the axes (2 on a line, 4 on a plane), not diagonally. They are ordered by
    value and then by flat index (row after row), so that equal values need no special case: a plateau is one minimum, at its
    first point, and of two minima of equal value the first is the elder. Pairs of persistence 0, which some plateaus cause in
    this order, are left out. Points that are not finite are ignored; if they separate the grid into parts, each part has a
    lowest minimum without a saddle. A minimum on the border of the grid may not be a minimum of the surface.

    Args:
        piece: a finished line or plane.
        quantity: a quantity of the slice, such as "loss", "test_loss" or "lambda_max", but not an accuracy.
        threshold: persistence above which a minimum is significant (`kept`), in units of the quantity. None: above its
            sampling error `doubt`; if that is unknown, the minimum is not counted. The lowest is always counted.

    Returns:
        MergeTree, minima in order of decreasing persistence, equal ones in the order above. `doubt` is the half-width of a 95 %
        interval of the persistence, 1.96 (s_minimum + s_pass), from the standard errors of the differences from the centre. It
        is conservative, since the two points share their samples. None if the errors are unknown or there is no saddle.

    Raises:
        UsageError: an accuracy, an unknown quantity, a point that is missing or failed, or a negative threshold.

    Cost: n log n for sorting n points, with array operations; a loop only over the pairs of neighbouring basins. 10^6 points
        take less than a second for a smooth surface, and 3 s for noise, where a fifth of the points are minima.

    Accuracy: exact for the grid. Minima closer than its spacing are not resolved, and saddles are those on the grid.

    Reference: Edelsbrunner, Harer 2010, Computational Topology, sections VI.4 and VII.1; Carr, Snoeyink, Axen 2003,
        doi:10.1016/S0925-7721(02)00093-7, section 3. Deviation: each point is first assigned to the minimum of its basin, and
        then basins are joined instead of points; the components, hence the tree, are the same.

    Example:
        >>> loss = np.array([3.0, 1.0, 2.0, 0.0, 5.0])
        >>> piece = Slice(("x",), (np.arange(5.0),), {"loss": loss}, {}, None, "two wells", {})
        >>> lowest, other = merge_tree(piece).minima
        >>> lowest.at, other.at, other.saddle, other.persistence, other.into
        ((3.0,), (1.0,), (2,), 1.0, 0)
    """
    values = _checked(piece, quantity, threshold)
    flat = values.reshape(-1)
    births, deaths, parents = _pairs(values)
    with np.errstate(over="ignore"):
        persistence = np.where(deaths < 0, np.inf, flat[deaths] - flat[births])
    order = np.lexsort((births, flat[births], -persistence))
    order = order[persistence[order] > 0]
    place = {int(births[m]): number for number, m in enumerate(order)}
    paired = piece.paired.get(quantity)
    errors: np.ndarray | None = None if paired is None else np.ma.filled(np.ma.asarray(paired, float), np.nan).reshape(-1)
    minima = []
    for m in order.tolist():
        birth, death = int(births[m]), int(deaths[m])
        index = tuple(int(i) for i in np.unravel_index(birth, values.shape))
        at = tuple(float(c[i]) for c, i in zip(piece.coordinates, index, strict=True))
        border = any(i in (0, n - 1) for i, n in zip(index, values.shape, strict=True))
        if death < 0:
            minima.append(Minimum(index, at, float(flat[birth]), None, math.inf, None, border=border))
            continue
        saddle = tuple(int(i) for i in np.unravel_index(death, values.shape))
        doubt = None if errors is None else _NORMAL * float(errors[birth] + errors[death])
        doubt = doubt if doubt is not None and math.isfinite(doubt) else None
        into = place[int(births[parents[m]])]
        minima.append(Minimum(index, at, float(flat[birth]), saddle, float(flat[death]), into, doubt, border))
    return MergeTree(quantity, tuple(minima), threshold)


def _checked(piece: Slice, quantity: str, threshold: float | None) -> np.ndarray:
    """The quantity's values over the grid, in float64."""
    if quantity not in piece.values:
        raise UsageError(f"expected a quantity of the surface ({', '.join(piece.values)}), found {quantity!r}")
    if "accuracy" in quantity:
        raise UsageError(f"expected a quantity other than an accuracy, found {quantity!r}", fix="use the loss")
    if threshold is not None and not threshold >= 0:
        raise UsageError(f"expected a persistence of at least 0 as the threshold, found {threshold:g}")
    open_points = int(np.isin(piece.status[quantity], (MISSING, FAILED)).sum())
    if open_points:
        raise UsageError(
            f"expected a finished surface, found {open_points} points of {quantity!r} missing or failed",
            fix="finish it with the same command",
        )
    return np.asarray(np.ma.getdata(piece.values[quantity]), float)


def _pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each basin the flat index of its minimum, that of its saddle (-1: none), the number of the basin it joins there."""
    flat = values.reshape(-1)
    count = flat.size
    order = np.argsort(np.where(np.isfinite(flat), flat, np.inf), kind="stable")  # stable: equal values by index
    order = order[np.isfinite(flat[order])]
    rank = np.full(count, count, np.int64)  # values that are not finite come last
    rank[order] = np.arange(len(order))
    edges = _edges(values.shape)
    edges = edges[:, (rank[edges] < count).all(axis=0)]

    # Each point's lowest neighbour, or itself. Followed to the end by pointer doubling, it is the minimum of its basin.
    lowest = rank.copy()
    np.minimum.at(lowest, edges[0], rank[edges[1]])
    np.minimum.at(lowest, edges[1], rank[edges[0]])
    down = lowest[order]
    while not np.array_equal(further := down[down], down):
        down = further
    minima, basin = np.unique(down, return_inverse=True)

    # Two basins meet where the higher end of an edge between them is lowest.
    ends = rank[edges]
    pair = np.sort(basin[ends], axis=0)
    between = pair[0] != pair[1]
    height, pair = ends.max(axis=0)[between], pair[:, between]
    key = pair[0] * len(minima) + pair[1]
    first = np.lexsort((height, key))
    first = first[np.diff(key[first], prepend=-1) != 0]
    first = first[np.argsort(height[first], kind="stable")]

    deaths, parents = [-1] * len(minima), [-1] * len(minima)
    root = list(range(len(minima)))  # basins are numbered by the rank of their minimum: the smaller number is the elder
    for a, b, top in zip(pair[0, first].tolist(), pair[1, first].tolist(), height[first].tolist(), strict=True):
        while root[a] != a:
            root[a] = a = root[root[a]]
        while root[b] != b:
            root[b] = b = root[root[b]]
        if a != b:
            elder, younger = (a, b) if a < b else (b, a)
            root[younger], deaths[younger], parents[younger] = elder, top, elder
    passes = np.array(deaths, np.int64)
    joined = passes >= 0
    passes[joined] = order[passes[joined]]
    return order[minima], passes, np.array(parents, np.int64)


def _edges(shape: tuple[int, ...]) -> np.ndarray:
    """(2, E) flat indices of neighbours along the axes."""
    index = np.arange(math.prod(shape)).reshape(shape)
    pairs = [np.stack((np.delete(index, -1, axis), np.delete(index, 0, axis))).reshape(2, -1) for axis in range(len(shape))]
    return np.concatenate(pairs, axis=1)
