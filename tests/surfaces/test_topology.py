"""Merge trees against gudhi's persistence, closed forms, and what must not change them."""

import json
import math

import gudhi
import numpy as np
import pytest
from clock import growth
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from landscape.errors import UsageError
from landscape.results import FAILED, MISSING, MergeTree, Slice
from landscape.surfaces.topology import merge_tree

FIELDS = arrays(
    np.float64,
    array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=7),
    elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6), st.just(math.inf)),
)


def sliced(values, **more) -> Slice:
    values = np.asarray(values)
    axes = ("a", "b")[: values.ndim]
    coordinates = tuple(np.linspace(-1, 1, n) for n in values.shape)
    return Slice(axes, coordinates, {"loss": values}, {}, None, "", {}, **more)


def pairs(tree: MergeTree) -> list[tuple[float, float]]:
    return sorted((m.value, m.saddle_value) for m in tree.minima)


def gudhi_pairs(values: np.ndarray) -> list[tuple[float, float]]:
    """0-dimensional persistence pairs of positive length of the grid's lower-star filtration."""
    complex_ = gudhi.CubicalComplex(vertices=np.where(np.isfinite(values), values, np.inf))
    complex_.compute_persistence(homology_coeff_field=2, min_persistence=0.0)  # 0: pairs of length 0 are left out
    found = complex_.persistence_intervals_in_dimension(0).reshape(-1, 2)
    return sorted((float(b), float(d)) for b, d in found if math.isfinite(b))


def random_field(seed: int) -> np.ndarray:
    g = np.random.default_rng(seed)
    shape = tuple(g.integers(2, 30, size=1 + seed % 2))
    values = g.standard_normal(shape)
    if seed % 3 == 1:
        values = np.round(2 * values)  # ties, plateaus of odd shape
    if seed % 3 == 2:
        values = np.cumsum(values, axis=-1)
    if seed % 4 == 3:
        values[g.random(shape) < 0.3] = np.inf  # walls and islands
    if seed % 8 == 7:
        values[g.random(shape) < 0.1] = np.nan
    return values


@pytest.mark.parametrize("block", range(4))
def test_equals_gudhi(block):
    several = 0
    for seed in range(100 * block, 100 * block + 100):
        values = random_field(seed)
        found = pairs(merge_tree(sliced(values)))
        assert found == gudhi_pairs(values), seed
        several += len(found) > 1
    assert several > 90


@given(FIELDS)
def test_equals_gudhi_on_anything(values):
    assert pairs(merge_tree(sliced(values))) == gudhi_pairs(values)


def flooded(values: np.ndarray, level: float, start: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The points at or below a level that one can walk to, point by point."""
    seen, todo = {start}, [start]
    while todo:
        at = todo.pop()
        for axis in range(values.ndim):
            for step in (-1, 1):
                to = tuple(c + step * (i == axis) for i, c in enumerate(at))
                inside = all(0 <= c < n for c, n in zip(to, values.shape, strict=True))
                if inside and to not in seen and values[to] <= level:
                    seen.add(to)
                    todo.append(to)
    return seen


@given(FIELDS)
def test_every_pass_is_one(values):
    """At the pass, and not below it, one can walk from the minimum to the one it joins, which is lower or comes first."""
    tree = merge_tree(sliced(values))
    levels = sorted({float(v) for v in values.ravel() if np.isfinite(v)})
    for m in tree.minima:
        assert values[m.index] == m.value
        if m.into is None:
            assert m.saddle is None
            assert math.isinf(m.persistence)
            lowest = min(flooded(values, levels[-1], m.index), key=lambda p: (values[p], p))
            assert lowest == m.index
            continue
        elder = tree.minima[m.into]
        assert (elder.value, elder.index) < (m.value, m.index)
        assert values[m.saddle] == m.saddle_value
        assert {elder.index, m.saddle} <= flooded(values, m.saddle_value, m.index)
        below = max(level for level in levels if level < m.saddle_value)
        basin = flooded(values, below, m.index)
        assert min(basin, key=lambda p: (values[p], p)) == m.index  # nothing lower or earlier before the pass
        assert elder.index not in basin
    orders = [(-m.persistence, m.value, m.index) for m in tree.minima]
    assert orders == sorted(orders)


@given(FIELDS, st.integers(-8, 8))
def test_a_constant_shifts(values, shift):
    values = np.where(np.isfinite(values), np.round(values, 0), values)  # whole numbers: the sum is exact
    before, after = merge_tree(sliced(values)), merge_tree(sliced(values + shift))
    assert [(m.index, m.saddle, m.into, m.persistence) for m in before.minima] == [
        (m.index, m.saddle, m.into, m.persistence) for m in after.minima
    ]
    assert [m.value + shift for m in before.minima] == [m.value for m in after.minima]


@given(FIELDS)
def test_transposition_and_reflection_keep_the_pairs(values):
    expected = pairs(merge_tree(sliced(values)))
    assert pairs(merge_tree(sliced(values.T))) == expected
    assert pairs(merge_tree(sliced(np.flip(values)))) == expected


@given(FIELDS)
def test_a_rising_function_keeps_the_tree(values):
    values = np.where(np.isfinite(values), np.round(values, 0), values)
    before, after = merge_tree(sliced(values)), merge_tree(sliced(values**3))  # exact: |values| is at most 1e6
    found = {m.index: (m.saddle, None if m.into is None else after.minima[m.into].index) for m in after.minima}
    assert found == {m.index: (m.saddle, None if m.into is None else before.minima[m.into].index) for m in before.minima}


def test_two_wells():
    """f = (x^2 - 1)^2 + c x / 4 + y^2: wells near x = -1 and 1, the pass near x = 0, all on the axis y = 0."""
    x, y = np.linspace(-1.5, 1.5, 301), np.linspace(-1, 1, 41)
    profile = (x**2 - 1) ** 2 + 0.25 * x
    piece = Slice(("x", "y"), (x, y), {"loss": profile[:, None] + y**2}, {}, None, "", {})
    roots = sorted(np.roots([4, 0, -4, 0.25]).real)  # f' = 0
    lowest, other = merge_tree(piece).minima
    assert lowest.at == pytest.approx((roots[0], 0), abs=0.005)
    assert other.at == pytest.approx((roots[2], 0), abs=0.005)
    assert other.saddle[1] == 20
    assert x[other.saddle[0]] == pytest.approx(roots[1], abs=0.005)
    height = [(r**2 - 1) ** 2 + 0.25 * r for r in roots]
    assert other.persistence == pytest.approx(height[1] - height[2], abs=1e-4)
    assert (lowest.into, other.into, lowest.doubt, other.doubt) == (None, 0, None, None)
    assert merge_tree(piece).kept == (lowest,), "without errors nobody knows what the other one is"
    assert (
        merge_tree(piece).line()
        == "2 minima on the grid in all; sampling error unknown, so it is unknown which are significant"
    )
    assert len(merge_tree(piece, threshold=0.5).kept) == 2
    assert len(merge_tree(piece, threshold=0.9).kept) == 1
    assert merge_tree(piece, threshold=0.9).line() == "1 minimum of persistence above 0.9, 2 on the grid in all"


def test_diagonals_do_not_join():
    tree = merge_tree(sliced([[0.0, 9.0], [7.0, 1.0]]))
    assert [(m.index, m.saddle, m.persistence) for m in tree.minima] == [((0, 0), None, math.inf), ((1, 1), (1, 0), 6.0)]


def test_plateaus_are_one_minimum():
    assert [m.index for m in merge_tree(sliced(np.zeros((4, 5)))).minima] == [(0, 0)]
    odd = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])  # its first row has two firsts
    assert [m.index for m in merge_tree(sliced(odd)).minima] == [(0, 0)]
    twins = merge_tree(sliced([0.0, 1.0, 1.0, 0.0]))  # equal minima: the first is the elder; a flat pass: its first point
    assert [(m.index, m.saddle) for m in twins.minima] == [((0,), None), ((3,), (2,))]


def test_walls_leave_islands():
    values = np.array([3.0, 1.0, np.inf, 0.0, 2.0, 1.5, np.nan, -np.inf, 5.0])
    tree = merge_tree(sliced(values))
    assert [(m.index, m.into) for m in tree.minima] == [((3,), None), ((1,), None), ((8,), None), ((5,), 0)]
    assert merge_tree(sliced(np.full((3, 3), np.nan))).minima == ()
    assert MergeTree.from_json(tree.to_json()) == tree


def test_doubt_is_from_the_paired_errors():
    values = np.array([0.0, 3.0, 1.0, 2.0, 1.5])
    paired = {"loss": np.array([0.0, 0.5, 0.25, 0.1, np.nan])}
    lowest, second, third = merge_tree(sliced(values, paired=paired)).minima
    assert lowest.doubt is None
    assert second.doubt == pytest.approx(1.96 * (0.25 + 0.5))
    assert third.doubt is None  # of a point without an error nothing is known
    partly = merge_tree(sliced(values, paired=paired))
    assert partly.kept == (lowest, second)
    beyond = "2 minima of persistence above the sampling error"
    assert partly.line() == f"{beyond} (1 on the border), 3 on the grid in all, 1 of unknown sampling error"
    noisy = {"loss": np.array([0.0, 0.8, 0.3, 0.1, 0.1])}
    tree = merge_tree(sliced(values, paired=noisy))
    assert [m.index for m in tree.kept] == [(0,), (4,)]  # 2 < 1.96 * 1.1 and 0.5 > 1.96 * 0.2
    assert tree.line() == f"{beyond} (2 on the border), 3 on the grid in all"


def test_refusals():
    piece = sliced(np.arange(6.0).reshape(2, 3))
    with pytest.raises(UsageError, match=r"expected a quantity of the surface \(loss\), found 'height'"):
        merge_tree(piece, "height")
    with pytest.raises(UsageError, match="expected a persistence of at least 0 as the threshold, found -1"):
        merge_tree(piece, threshold=-1.0)
    piece.values["test_accuracy"] = piece.values["loss"]
    with pytest.raises(UsageError, match="expected a quantity other than an accuracy, found 'test_accuracy'"):
        merge_tree(piece, "test_accuracy")
    piece.status["loss"][0, 0], piece.status["loss"][1, 1] = MISSING, FAILED
    with pytest.raises(UsageError, match="expected a finished surface, found 2 points of 'loss' missing or failed"):
        merge_tree(piece)


@pytest.mark.slow
def test_a_million_points():
    """In time as n log n, not n^2: noise, where a fifth of the points are minima, equals gudhi."""
    values = np.random.default_rng(0).standard_normal((1000, 1000))
    trees: dict[int, MergeTree] = {}
    assert growth(lambda n: trees.update({n: merge_tree(sliced(values[: n // 1000]))}), 60_000, 1_000_000) < 4
    assert pairs(trees[1_000_000]) == gudhi_pairs(values)


def test_a_minimum_on_the_border_says_so():
    """A slope has its lowest point where the grid ends; a well inside has it inside."""
    a, b = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 5), indexing="ij")
    axes = (np.linspace(-1, 1, 7), np.linspace(-1, 1, 5))
    slope = merge_tree(Slice(("u", "v"), axes, {"loss": a + b**2}, {}, None, "", {}))
    well = merge_tree(Slice(("u", "v"), axes, {"loss": a**2 + b**2}, {}, None, "", {}))
    assert [m.border for m in slope.minima] == [True]
    assert [m.border for m in well.minima] == [False]
    assert "(on the border: the surface may be lower outside)" in slope.line()
    assert "border" not in well.line()
    assert MergeTree.from_json(json.loads(json.dumps(slope.to_json()))) == slope
