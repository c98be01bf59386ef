"""The grid: its levels from coarse to fine, its tree from the middle outwards, its order."""

import itertools

import numpy as np
import pytest
import torch
from clock import growth

from landscape.errors import UsageError
from landscape.surfaces.axes.chart import Chart, coordinates, joining_span

SHAPES = [(2,), (3,), (4,), (11,), (51,), (2, 2), (2, 7), (5, 5), (6, 6), (13, 4), (51, 25), (16, 33)]
CENTRES = {"middle": 0.0, "first border": -1.0, "last border": 1.0, "off centre": 0.37}


def chart_of(shape: tuple[int, ...], at: float = 0.0) -> Chart:
    axes = tuple(coordinates((-1, 1), n) for n in shape)
    return Chart(
        tuple("ab"[: len(shape)]), axes, lambda place: torch.tensor(place), lambda place, theta: None, (at,) * len(shape)
    )


def grid_of(chart: Chart, numbers) -> np.ndarray:
    """Where some points are, as a mask over the grid."""
    mask = np.zeros(chart.size, bool)
    mask[list(numbers)] = True
    return mask.reshape(chart.shape)


def gaps(indices: np.ndarray) -> int:
    return int(np.diff(np.sort(indices)).max())


@pytest.mark.parametrize("at", CENTRES.values(), ids=CENTRES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_levels_go_from_coarse_to_fine_and_cover_everything_once(shape, at):
    chart = chart_of(shape, at)
    levels = chart.levels()
    assert sorted(k for level in levels for k in level) == list(range(chart.size))
    assert all(level and level == sorted(level) for level in levels)
    known: set[int] = set()
    before = [max(shape)] * len(shape)
    for level in levels:
        known |= set(level)
        mask = grid_of(chart, known)
        assert mask[chart.middle]
        # A grid of its own: the product of what it has on each axis, both borders among them.
        lines = [np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
        assert mask.sum() == np.prod([len(line) for line in lines])
        for axis, line in enumerate(lines):
            assert {0, shape[axis] - 1, chart.middle[axis]} <= set(line.tolist())
            assert gaps(line) <= max(1, before[axis])
            before[axis] = gaps(line)
    assert before == [1] * len(shape)


def test_levels_halve_the_distance_and_the_first_is_small():
    levels = chart_of((51, 51)).levels()
    assert [len(level) for level in levels] == [25, 9**2 - 25, 15**2 - 81, 27**2 - 225, 51**2 - 729]
    known: list[int] = []
    widths = []
    for level in levels:
        known += level
        rows = np.unique(np.unravel_index(known, (51, 51))[0])
        widths.append(gaps(rows))
    assert widths == [16, 8, 4, 2, 1]


@pytest.mark.parametrize("at", CENTRES.values(), ids=CENTRES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_tree_is_rooted_in_the_middle_and_outwards_follows_it(shape, at):
    chart = chart_of(shape, at)
    order = chart.outwards()
    assert sorted(order) == list(range(chart.size))
    rank = {k: i for i, k in enumerate(order)}
    root = int(np.ravel_multi_index(chart.middle, shape))
    assert order[0] == root
    index = np.array(np.unravel_index(np.arange(chart.size), shape)).T
    for k in order:
        parent = chart.parent(k)
        if parent is None:
            assert k == root
            continue
        assert rank[parent] < rank[k]
        assert np.abs(index[k] - index[parent]).sum() == 1  # a neighbour
        assert np.abs(index[parent] - chart.middle).sum() == np.abs(index[k] - chart.middle).sum() - 1


def test_half_a_row_is_done_in_one_go():
    """Off the first axis a point follows its parent at once, so that one pair of eigenvectors is held at a time."""
    chart = chart_of((9, 7))
    order = chart.outwards()
    spine = [k for k in order if k % 7 == 3]
    assert order[:9] == spine
    following = sum(chart.parent(b) == a for a, b in itertools.pairwise(order[9:]))
    assert following == 9 * 2 * (3 - 1)


def test_places_are_numbered_in_c_order():
    chart = Chart(
        ("a", "b"),
        (np.array([10.0, 20.0]), np.array([1.0, 2.0, 3.0])),
        lambda p: torch.tensor(p),
        lambda p, t: {"s": t},
        (20.0, 1.0),
    )
    assert [chart.place(k) for k in range(6)] == [(10, 1), (10, 2), (10, 3), (20, 1), (20, 2), (20, 3)]
    assert (chart.shape, chart.size, chart.middle) == ((2, 3), 6, (1, 0))
    theta, buffers = chart.at((10.0, 2.0))
    assert theta.tolist() == [10.0, 2.0]
    assert buffers["s"] is theta


def test_a_million_points_take_time_in_proportion():
    def both(n: int) -> tuple[list[list[int]], list[int]]:
        chart = chart_of((n // 1001, 1001))
        return chart.levels(), chart.outwards()

    assert growth(both, 60 * 1001, 1000 * 1001) < 4
    levels, order = both(1000 * 1001)
    assert sum(map(len, levels)) == len(order) == 1_001_000
    assert len(levels[0]) < 40


@pytest.mark.parametrize("points", [2, 3, 10, 51, 1001])
@pytest.mark.parametrize("end", [1.0, 0.1, 1 / 3, 1e-7, 3.7e5])
def test_symmetric_spans_are_antisymmetric_to_the_bit(points, end):
    at = coordinates((-end, end), points)
    assert (at == -at[::-1]).all()
    assert (at[0], at[-1]) == (-end, end)
    assert (points % 2 == 0) or at[points // 2] == 0.0
    np.testing.assert_allclose(np.diff(at), 2 * end / (points - 1), rtol=1e-9)


def test_spans_keep_their_ends():
    at = coordinates((0.1, 0.7), 7)
    assert (at[0], at[-1]) == (0.1, 0.7)
    with pytest.raises(UsageError, match="expected a span of two increasing finite numbers, found 1 to 1"):
        coordinates((1, 1), 5)
    with pytest.raises(UsageError, match="expected a grid of at least 2 points on each axis, found 1"):
        coordinates((0, 1), 1)


@pytest.mark.parametrize("points", [*range(4, 60), 101])
def test_two_networks_are_points_of_the_default_grid_with_room_around_them(points):
    places = coordinates(joining_span(points), points)
    for at in (0.0, 1.0):
        assert np.abs(places - at).min() < 1e-12
    assert places[0] <= -0.25
    assert places[-1] >= 1.25
    assert points < 10 or places[-1] - places[0] < 2.1
