"""Minima on contours and the bars of their persistence, against a tree known by heart."""

import math
from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples

from landscape.errors import UsageError
from landscape.report import draw_merge_tree, draw_slice, figure_merge_tree, figure_slice
from landscape.report.page.surface_section import slice_entry
from landscape.report.surfaces.minima import _beside_checkpoint
from landscape.results import Estimate
from landscape.results.surfaces.merge_tree import MergeTree, Minimum
from landscape.results.surfaces.random_axes import RandomAxes, RandomAxis


def valleys(threshold=0.25, doubt=0.1):
    """(x² - 1)² + y² + x/8 on 9 × 5 points: minima at x = -1 (deepest) and x = 1, the pass between them near x = 0."""
    x, y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
    loss = (x[:, None] ** 2 - 1) ** 2 + y**2 + x[:, None] / 8
    minima = (
        Minimum((2, 2), (-1.0, 0.0), -0.125, None, math.inf, None),
        Minimum((6, 2), (1.0, 0.0), 0.125, (4, 2), 1.0, 0, doubt),
        Minimum((8, 0), (2.0, -1.0), 1.9, (8, 1), 2.0, 1, doubt),
    )
    axes = {"coordinates": (x, y), "values": {"loss": loss}, "merge_tree": MergeTree("loss", minima, threshold)}
    return examples.plane(9, 5, **axes)


def marked(ax, gid):
    """The line of this name; None where there is none."""
    return next((line for line in ax.lines if line.get_gid() == gid), None)


def test_kept_minima_and_their_passes_are_marked_where_they_are():
    ax = draw_slice(valleys())
    assert marked(ax, "minima").get_xydata().tolist() == [[-1, 0], [1, 0]]
    assert marked(ax, "passes").get_xydata().tolist() == [[0, 0]]
    assert [t.get_text() for t in ax.texts if (t.get_gid() or "").startswith("minimum")] == ["1", "2"]
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    first = [label.partition("\n")[0] for label in labels]
    assert first == [
        "checkpoint",
        "2 minima of persistence > 0.25",
        "saddle to a lower minimum",
    ]


def test_a_minimum_of_the_plane_beside_a_negative_eigenvalue_is_one_of_the_plane():
    axes = {str(i): RandomAxis(0.4, Estimate(0.42, 0.03, "t", 64), 0.05, 22.6) for i in (1, 2)}
    ends = Estimate(-0.1, 1e-6, "residual", 56), Estimate(1.9, 1e-6, "residual", 56)
    piece = valleys()
    hidden = replace(piece, check=replace(examples.plane().check, random=RandomAxes(axes, 0.3, *ends)))
    labels = [t.get_text() for t in draw_slice(hidden).get_legend().get_texts()]
    assert "2 minima of persistence > 0.25, as seen on these axes" in [label.partition("\n")[0] for label in labels]
    assert "A SADDLE LOOKS LIKE A MINIMUM" in figure_slice(hidden).get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("at", [(-0.11, 1.15), (-0.123, -1.15)])
def test_the_legend_of_the_bars_stays_in_the_figure(at):
    """Beside wide names of the minima, for which the axes are narrow."""
    minima = [replace(m, at=at, border=i > 0) for i, m in enumerate(valleys(None, 0.0123).merge_tree.minima)]
    piece = replace(valleys(), merge_tree=MergeTree("loss", tuple(minima)))
    figure = figure_merge_tree(piece)
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_the_figure_of_their_persistence_and_the_page_count_them():
    words = "2 minima of persistence above 0.25, 3 on the grid in all"
    assert words in figure_merge_tree(valleys()).get_supxlabel().replace("\n", " ")
    assert f"loss: {words}" in slice_entry(valleys())["facts"]


def test_only_the_quantity_of_the_tree_carries_them():
    piece = valleys()
    both = replace(piece, values=piece.values | {"accuracy": np.clip(piece.values["loss"] / 20, 0, 1)}, status={})
    ax = draw_slice(both, quantity="accuracy")
    assert marked(ax, "minima") is None
    assert not [t for t in ax.get_legend().get_texts() if "minima" in t.get_text()]


def test_bars_run_from_birth_to_death():
    ax = draw_merge_tree(valleys())
    top = valleys().values["loss"].max()
    bars = [marked(ax, f"bar {i}").get_xdata().tolist() for i in (1, 2, 3)]
    assert bars == [[-0.125, top], [0.125, 1.0], [1.9, 2.0]]
    assert marked(ax, "without end").get_xdata().tolist() == [top]
    colours = [marked(ax, f"bar {i}").get_color() for i in (1, 2, 3)]
    assert colours[0] == colours[1] != colours[2]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["1  (−1, 0)", "2  (1, 0)", "3  (2, −1)"]
    assert [t.get_text() for t in ax.texts] == ["the lowest", "0.875 ± 0.1", "0.1 ± 0.1"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the lowest minimum on top


def test_doubt_is_drawn_around_the_pass_and_not_below_the_minimum():
    segments = [c.get_segments()[0][:, 0] for c in draw_merge_tree(valleys(doubt=0.3)).collections]
    np.testing.assert_allclose(segments, [[0.7, 1.3], [1.9, 2.3]])
    legend = [t.get_text() for t in draw_merge_tree(valleys()).get_legend().get_texts()]
    assert legend == ["2 minima of persistence > 0.25", "1 less persistent", "95 % over samples"]


def test_without_errors_no_doubt_is_claimed():
    ax = draw_merge_tree(valleys(doubt=None))
    assert not ax.collections
    assert "0.875" in [t.get_text() for t in ax.texts]
    assert not any("95 %" in t.get_text() for t in ax.get_legend().get_texts())


@pytest.mark.parametrize(("lowest", "scale"), [(0.9, "linear"), (0.001, "log"), (-1.0, "linear")])
def test_log_scale_only_where_all_is_positive_and_far_apart(lowest, scale):
    piece = valleys()
    first, *others = piece.merge_tree.minima
    tree = replace(piece.merge_tree, minima=(replace(first, value=lowest), *(replace(m, value=0.95) for m in others)))
    ax = draw_merge_tree(replace(piece, merge_tree=tree))
    assert ax.get_xscale() == scale
    assert ax.get_xlabel().endswith("log scale") is (scale == "log")


def test_minima_beyond_what_can_be_told_apart_are_counted():
    piece = valleys()
    first, *_, last = piece.merge_tree.minima
    tree = replace(piece.merge_tree, minima=(first, *[last] * 40))
    figure = figure_merge_tree(replace(piece, merge_tree=tree))
    (ax,) = figure.axes
    assert len(ax.get_yticklabels()) == 20
    assert "21 more not drawn" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert "41 on the grid in all" in figure.get_supxlabel()


def test_a_slice_without_a_tree_is_refused():
    with pytest.raises(
        UsageError, match="expected a merge tree to draw, found a slice without one; compute the plane to its end"
    ):
        figure_merge_tree(examples.plane(5, 5))
    with pytest.raises(UsageError, match="found one without any minimum"):
        draw_merge_tree(examples.plane(5, 5, merge_tree=MergeTree("loss", ())))


def test_minima_of_unknown_doubt_are_all_drawn_and_none_is_claimed():
    piece = valleys(threshold=None, doubt=None)
    ax = draw_merge_tree(piece)
    colours = [marked(ax, f"bar {i}").get_color() for i in (1, 2, 3)]
    assert colours[1] == colours[2] != colours[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["lowest of 3 minima, error unknown", "2 of unknown error"]
    assert "3 minima on the grid in all; sampling error unknown" in figure_merge_tree(piece).get_supxlabel().replace("\n", " ")
    assert marked(draw_slice(piece), "minima").get_xydata().tolist() == [[-1, 0]]


@pytest.mark.parametrize(("error", "words"), [(0.1, "below"), (0.45, "not below"), (1.0, "not below")])
def test_the_lowest_point_is_called_better_than_the_checkpoint_beyond_its_error_only(error, words):
    """The checkpoint has a loss of 1, and ring 1 one of -0.125, a difference of 1.125.

    It is 2.5 standard errors of 0.45: beyond 1.96 of them, but not beyond the 3.05 that hold for all 44 points together.
    """
    piece = replace(valleys(), paired={"loss": np.full((9, 5), error)})
    label = draw_slice(piece).get_legend().get_texts()[1].get_text().replace("\n", " ")
    assert label.endswith(f"1, the lowest computed point: −0.125, {words} the checkpoint (1) beyond sampling error")


def test_a_plane_that_is_nowhere_better_than_the_checkpoint_is_seldom_called_so():
    """Of 300 planes of noise about one loss, 5 % may be called better; a bound for each point alone calls nearly all so."""
    rng, called, alone = np.random.default_rng(0), 0, 0
    piece = valleys()
    for _ in range(300):
        values = rng.standard_normal((9, 5))
        values[4, 2] = 0.0  # the checkpoint: the errors are those of differences from it
        index = tuple(int(i) for i in np.unravel_index(values.argmin(), values.shape))
        lowest = replace(piece.merge_tree.minima[0], index=index, value=float(values[index]))
        noise = replace(piece, values={"loss": values}, status={}, paired={"loss": np.ones((9, 5))})
        words = _beside_checkpoint(MergeTree("loss", (lowest,)), noise)
        called += ", below" in words
        alone += values.min() < -1.96
    assert called <= 27  # 15 expected: 3 standard deviations more
    assert alone > 150


def test_rings_on_the_border_are_whole():
    ax = draw_slice(valleys())
    assert not marked(ax, "minima").get_clip_on()
    assert not marked(ax, "passes").get_clip_on()


def test_a_legend_above_the_axes_can_be_removed():
    ax = draw_slice(valleys())
    ax.get_legend().remove()
    assert ax.get_legend() is None
