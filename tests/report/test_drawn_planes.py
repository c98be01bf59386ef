"""Contours and surfaces: the right value at the right place, and nothing hidden."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from landscape.errors import UsageError
from landscape.report import draw_slice, figure_slice
from landscape.report.surfaces.field import Field
from landscape.report.surfaces.plane import draw_contour
from landscape.results import DONE, INTERPOLATED
from landscape.results.surfaces.track import Track


def lines_of(ax):
    """(level, vertices) of every contour line: the one contour set without filling."""
    for collection in ax.collections:
        if hasattr(collection, "levels") and not collection.filled:
            for level, path in zip(collection.levels, collection.get_paths(), strict=True):
                for piece in path.to_polygons(closed_only=False):
                    yield level, piece


@pytest.mark.parametrize(("nx", "ny"), [(9, 9), (5, 12)])
def test_contours_run_where_the_function_has_their_value(nx, ny):
    """f = x + 10 y is neither symmetric nor even: a transposed or mirrored drawing cannot pass."""
    ax = draw_slice(examples.plane(nx, ny, ((-1, 2), (-3, 1)), lambda u, v: u + 10 * v))
    found = list(lines_of(ax))
    assert len(found) > 3
    for level, vertices in found:
        np.testing.assert_allclose(vertices[:, 0] + 10 * vertices[:, 1], level, atol=1e-9)
    assert ax.get_xlim() == (-1, 2)
    assert ax.get_ylim() == (-3, 1)


def test_rendered_pixels_show_the_high_corner_where_it_is():
    """High only where axis 1 is positive and axis 2 negative: bottom right on paper."""
    ax = draw_slice(examples.plane(21, 21, function=lambda u, v: 1.0 + (u > 0) * (v < 0)))
    figure = ax.get_figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int).sum(axis=2)  # row 0 at the foot

    def at(x, y):
        column, row = np.round(ax.transData.transform((x, y))).astype(int)
        return pixels[row, column]

    low = {at(-0.6, -0.6), at(-0.6, 0.6), at(0.6, 0.6)}
    assert len(low) == 1
    assert at(0.6, -0.6) > low.pop() + 100


def test_surface_has_the_height_of_the_function():
    ax = draw_slice(examples.plane(5, 8, ((-1, 2), (-3, 1)), lambda u, v: u + 10 * v), view="3d")
    x, y, z = ax.collections[0]._faces.reshape(-1, 3).T  # the polygons before projection; matplotlib has no public way to them
    assert len(z) == 4 * 7 * 4
    np.testing.assert_allclose(z, x + 10 * y)
    assert (ax.get_xlabel(), ax.get_ylabel()) == tuple(f"{n}\n(1 = the whole vector)" for n in examples.plane().axes)


def test_log_surface_labels_values_not_logarithms():
    ax = draw_slice(examples.plane(5, 5, function=lambda u, v: 10.0 ** (2 * u + v)), view="3d")
    x, y, z = ax.collections[0]._faces.reshape(-1, 3).T
    np.testing.assert_allclose(z, 2 * x + y, atol=1e-12)
    assert "0.001" in [t.get_text() for t in ax.get_zticklabels()]
    assert ax.get_zlabel().endswith("log scale")


@pytest.mark.parametrize(("ratio", "log"), [(99.0, False), (101.0, True)])
def test_log_levels_only_where_the_range_asks(ratio, log):
    ax = draw_slice(examples.plane(7, 7, function=lambda u, v: 1 + (ratio - 1) * (u + v + 2) / 4))
    filled = next(c for c in ax.collections if getattr(c, "filled", False))
    assert isinstance(filled.norm, LogNorm) is log
    steps = np.diff(np.log(filled.levels) if log else filled.levels)
    assert steps.max() / steps.min() < (1.5 if log else 1.001)
    assert filled.levels[0] <= 1
    assert filled.levels[-1] >= ratio * (1 - 1e-12)


def test_negative_values_never_take_a_log_scale():
    ax = draw_slice(examples.plane(7, 7, function=lambda u, v: 300 * u + v))
    assert not any(isinstance(c.norm, LogNorm) for c in ax.collections)


def test_cells_that_are_not_finite_are_hatched_where_they_are_and_counted():
    piece = examples.plane(7, 9, ((-3, 3), (-4, 4)))
    loss = np.ma.MaskedArray(piece.values["loss"].copy())
    loss[6, 0] = np.inf  # x = 3, y = -4
    loss[1, 7] = np.nan  # x = -2, y = 3
    loss[0, 0] = np.ma.masked
    ax = draw_slice(replace(piece, values={"loss": loss}))
    boxes = {c.get_gid(): c for c in ax.collections if isinstance(c, PolyCollection) and c.get_hatch()}
    centres = {name: {tuple(p.vertices[:4].mean(axis=0)) for p in c.get_paths()} for name, c in boxes.items()}
    assert centres == {"not finite": {(3.0, -4.0), (-2.0, 3.0)}, "not computed": {(-3.0, -4.0)}}
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["checkpoint", "2 of 63 not finite", "1 of 63 not computed"]


def test_nothing_finite_is_drawn_as_nothing_finite():
    ax = draw_slice(examples.plane(5, 5, function=lambda u, v: np.nan * u * v))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["checkpoint", "25 of 25 not finite"]
    deep = draw_slice(examples.plane(5, 5, function=lambda u, v: np.nan * u * v), view="3d")
    assert "25 of 25 points not finite (left out)" in [t.get_text() for t in deep.get_legend().get_texts()]


@pytest.mark.parametrize("view", ["contour", "3d"])
def test_a_constant_surface_is_drawn(view):
    ax = draw_slice(examples.plane(5, 5, function=lambda u, v: 0 * u * v + 2.5), view=view)
    FigureCanvasAgg(ax.get_figure()).draw()


def test_aspect_is_equal_only_for_equal_spans():
    assert draw_slice(examples.plane(5, 5)).get_aspect() == 1
    assert draw_slice(examples.plane(5, 5, ((-1, 1), (-2, 2)))).get_aspect() == "auto"


def test_the_centre_is_marked_only_where_it_is_inside():
    inside = draw_slice(examples.plane(5, 5))
    mark = next(line for line in inside.lines if line.get_gid() == "centre")
    assert mark.get_xydata().tolist() == [[0, 0]]
    outside = draw_slice(examples.plane(5, 5, ((0.5, 1), (-1, 1))))
    assert not outside.lines


def test_colour_bar_says_quantity_unit_and_scale():
    ax = draw_slice(examples.plane(9, 9))
    bar = next(a for a in ax.get_figure().axes if a is not ax)
    assert bar.get_ylabel() == "loss (mean per sample), log scale"
    accuracy = draw_slice(examples.plane(9, 9), quantity="accuracy")
    bar = next(a for a in accuracy.get_figure().axes if a is not accuracy)
    assert bar.get_ylabel() == "accuracy (%)"
    assert max(float(t.get_text()) for t in bar.get_yticklabels()) == 100


def test_axes_of_the_user_are_drawn_on():
    ax = Figure().add_subplot()
    assert draw_slice(examples.plane(5, 5), ax) is ax
    with pytest.raises(UsageError, match="expected axes in three dimensions for view='3d', found flat ones"):
        draw_slice(examples.plane(5, 5), ax, view="3d")


def test_bad_requests_say_what_was_found():
    piece = examples.plane(5, 5)
    with pytest.raises(UsageError, match="expected view 'contour' or '3d', found 'wire'"):
        draw_slice(piece, view="wire")
    with pytest.raises(UsageError, match="expected a quantity out of loss, accuracy, found 'sharpness'"):
        draw_slice(piece, quantity="sharpness")
    with pytest.raises(UsageError, match="expected a slice along one or two axes, found 3"):
        draw_slice(replace(piece, axes=("a", "b", "c")))
    with pytest.raises(UsageError, match=r"at least 2 × 2 points, found values of shape \(1, 5\) on 1 × 5 points"):
        draw_contour(examples.plane(1, 5), None, "loss")


def test_the_result_draws_itself():
    ax = examples.plane(5, 5).plot()
    assert ax.get_xlabel() == "random, seed 0, filter norm (1 = the whole vector)"
    assert ax._repr_png_().startswith(b"\x89PNG")


def test_an_axis_says_how_long_a_step_of_one_is():
    piece = examples.plane(5, 5, provenance={"axis_lengths": [1.0, 12.345]})
    ax = draw_slice(piece)
    assert ax.get_xlabel().endswith("(distance in weight space)")
    assert ax.get_ylabel().endswith("(1 = a distance of 12.3)")


def test_no_label_of_a_contour_lies_under_a_path():
    """Every label of the plane without a path that its path would cross is gone, and only labels near the path are."""
    places = np.array([[0.9, 0.8], [0.4, -0.6], [0.0, 0.0]])
    bare = draw_slice(examples.plane(41, 41))
    ax = draw_slice(examples.plane(41, 41, tracks=(Track("training", ("0", "1", "2"), places, np.zeros(3), 1.0),)))
    ax.get_figure().draw_without_rendering()
    (line,) = [line for line in ax.lines if line.get_gid() == "track training"]
    path = ax.transData.transform(np.concatenate([np.linspace(a, b, 200) for a, b in itertools.pairwise(line.get_xydata())]))
    labels = [t for t in ax.texts if t.get_gid() is None]
    for text in labels:
        assert not any(text.get_window_extent().contains(*p) for p in path), text
    assert 0 < len(labels) < len(bare.texts)


@pytest.mark.parametrize("function", [lambda u, v: 0.003 + u**2 + v**2, lambda u, v: 12345.0 + u + 0 * v])
def test_numbers_of_the_vertical_axis_stand_off_their_ticks(function):
    figure = figure_slice(examples.plane(9, 9, function=function), view="3d")
    figure.dpi = 180
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_zlim()
    seen = [t for t in ax.zaxis.get_major_ticks() if low <= t.get_loc() <= high]
    widest = max((t.label1.get_window_extent() for t in seen), key=lambda box: box.width)
    ends = [t.tick1line.get_window_extent().x1 for t in seen]
    assert min(t.label1.get_window_extent().x0 for t in seen) > max(ends)
    assert not ax.zaxis.label.get_window_extent().overlaps(widest)


def test_a_surface_carries_its_trajectory_at_its_own_height():
    places = np.array([[0.9, 0.8], [0.4, 0.5], [0.0, 0.0]])
    track = Track("training", ("0", "1", "2"), places, np.zeros(3), 1.0)
    ax = draw_slice(examples.plane(5, 5, function=lambda u, v: 1 + u + 2 * v + 3, tracks=(track,)), view="3d")
    (line,) = [line for line in ax.lines if line.get_gid() == "track training"]
    x, y, z = (np.asarray(c, float) for c in line.get_data_3d())
    np.testing.assert_allclose(z, x + 2 * y + 4)  # a plane hides nothing of itself
    assert (x[0], y[0], x[-1], y[-1]) == (0.9, 0.8, 0.0, 0.0)
    assert "training" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_checkpoint_behind_a_wall_is_shown_from_above_or_as_a_ring():
    def wall(u, v):
        return 1 + 3 * np.exp(-(((v + 0.8) / 0.08) ** 2)) + 0 * u

    bowl = examples.plane(31, 31, function=lambda u, v: 1 + u**2 + v**2)
    low, high = draw_slice(bowl, view="3d"), draw_slice(examples.plane(31, 31, function=wall), view="3d")
    assert low.elev < high.elev
    pit = draw_slice(examples.plane(31, 31, function=lambda u, v: 1 - 0.9 * np.exp(-(u**2 + v**2) / 0.001)), view="3d")
    for ax in (low, high, pit):
        (dot,) = [line for line in ax.lines if line.get_gid() == "centre"]
        assert (dot.get_markerfacecolor() == "none") is (ax is pit)


def test_the_surface_in_space_shows_which_points_were_computed():
    """As the flat drawing does: dots on the surface at computed points that it does not hide, and the number of all."""
    piece = examples.plane(9, 9)
    status = np.full((9, 9), INTERPOLATED, np.int8)
    status[::4, ::2] = DONE
    piece = replace(piece, status={"loss": status})
    assert not [line for line in draw_slice(examples.plane(9, 9), view="3d").lines if line.get_gid() == "computed"]
    ax = draw_slice(piece, view="3d")
    label = "computed: 15 of 81, interpolated between"
    assert label in [text.get_text() for text in ax.get_legend().get_texts()]
    assert label in [text.get_text() for text in draw_contour(piece, None, "loss").get_legend().get_texts()]
    (dots,) = (line for line in ax.lines if line.get_gid() == "computed")
    x, y, z = dots.get_data_3d()
    computed = {(u, v): h for u, row in zip(piece.coordinates[0], piece.values["loss"], strict=True)
                for v, h in zip(piece.coordinates[1], row, strict=True)}  # fmt: skip
    assert 5 < len(x) <= 15
    for u, v, height in zip(x, y, z, strict=True):
        assert np.isclose(height, [computed[u, v], np.log10(computed[u, v])]).any()
        assert status[list(piece.coordinates[0]).index(u), list(piece.coordinates[1]).index(v)] == DONE


@pytest.mark.parametrize(
    ("levels", "texts"),
    [
        ([2.307, 2.3075, 2.308], ["2.307", "2.3075", "2.308"]),
        ([0.0, 0.05, 0.1], ["0", "0.05", "0.1"]),
        ([-5.0, 0.0, 5.0], ["−5", "0", "5"]),
        ([0.0], ["0"]),
    ],
)
def test_levels_of_a_flat_loss_are_told_apart(levels, texts):
    write = Field(*[np.zeros(2)] * 2, *[np.zeros((2, 2))] * 2, log=False, signed=False).writing(np.array(levels))
    assert [write(level) for level in levels] == texts
