"""Trajectories and checkpoints on planes and lines: where they are, which end is which, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
from matplotlib.text import Annotation

from landscape.report import draw_slice, figure_interpolation, figure_slice
from landscape.report.figure_files import render
from landscape.report.page.surface_section import slice_entry
from landscape.report.surfaces.tracks import track_line
from landscape.results.surfaces.track import Track


def path(n=11, **changes):
    """From (-0.8, 0.6) to the checkpoint along a parabola, no two points alike."""
    t = np.linspace(0, 1, n)
    places = np.stack([-0.8 * (1 - t), 0.6 * (1 - t) ** 2], axis=1)
    return replace(Track("trajectory", tuple(f"epoch {i}" for i in range(n)), places, 2.3 * (1 - t), 0.87), **changes)


def marked(ax, gid):
    """The artist of this name."""
    return next(a for a in (*ax.lines, *ax.collections, *ax.texts) if a.get_gid() == gid)


def test_a_path_runs_through_its_points_in_their_order():
    ax = draw_slice(examples.plane(9, 9, tracks=(path(),)))
    np.testing.assert_array_equal(marked(ax, "track trajectory").get_xydata(), path().coordinates)
    assert marked(ax, "start trajectory").get_xydata().tolist() == [[-0.8, 0.6]]
    assert marked(ax, "end trajectory").get_xydata().tolist() == [[0, 0]]
    dots = marked(ax, "times trajectory")
    np.testing.assert_array_equal(dots.get_offsets(), path().coordinates)
    assert (np.diff(dots.get_sizes()) > 0).all()
    assert (np.diff(dots.get_array()) > 0).all()


def test_the_legend_and_the_page_say_the_share_and_the_distance():
    piece = examples.plane(9, 9, tracks=(path(),))
    labels = [t.get_text() for t in draw_slice(piece).get_legend().get_texts()]
    assert labels == ["checkpoint", "trajectory: 87 % in the plane, at most 2.3 off it"]
    facts = slice_entry(piece)["facts"]
    assert "trajectory of 11 points: 87 % of its spread in the plane, ends 0 off it, at most 2.3" in facts


def test_points_outside_the_span_are_counted_and_do_not_stretch_it():
    """-1.6 (1 - t) leaves [-1, 1] for t < 3/8: the first 4 of 11 points. What is not finite is outside, too."""
    far = path(coordinates=path().coordinates * [2, 1])
    piece = examples.plane(9, 9, tracks=(far,))
    ax = draw_slice(piece)
    assert ax.get_xlim() == (-1, 1)
    assert "4 of 11 not shown" in ax.get_legend().get_texts()[-1].get_text().replace("\n", " ")
    assert track_line(far, piece).endswith("; 4 of them outside the drawn span")
    assert not any(t.get_text() == "start" for t in ax.texts)
    far.coordinates[5] = np.nan
    assert track_line(far, piece).endswith("; 5 of them outside the drawn span")


def test_paths_that_meet_share_the_word_for_their_end():
    two = (path(), path(label="other", coordinates=-path().coordinates))
    ax = draw_slice(examples.plane(9, 9, tracks=two))
    words = [t.get_text() for t in ax.texts if isinstance(t, Annotation)]
    assert sorted(words) == ["end", "start", "start"]
    colours = {marked(ax, f"track {name}").get_color() for name in ("trajectory", "other")}
    assert len(colours) == 2


def test_checkpoints_are_marked_apart_and_named_inside_the_axes():
    places = np.array([[0.0, 0.0], [0.97, 0.1], [0.4, 0.96]])
    named = path(label="checkpoints", names=("sgd", "adam", "ends here"), coordinates=places, distances=np.zeros(3), path=False)
    figure = figure_slice(examples.plane(9, 9, tracks=(named,)))
    ax = figure.axes[0]
    marks = marked(ax, "track checkpoints")
    np.testing.assert_array_equal(marks.get_xydata(), places)
    assert marks.get_linestyle() == "None"
    figure.canvas.draw()
    for name, place in zip(named.names, places, strict=True):
        text = marked(ax, f"name {name}")
        assert text.xy == tuple(place)
        assert ax.bbox.contains(*text.get_window_extent().min)
        assert ax.bbox.contains(*text.get_window_extent().max)
    label = figure.axes[0].get_legend().get_texts()[-1].get_text().replace("\n", " ")
    assert label == "other checkpoints: 87 % in the plane, at most 0 off it"


def test_many_checkpoints_are_not_named():
    many = path(30, label="many", path=False)
    assert not [t for t in draw_slice(examples.plane(9, 9, tracks=(many,))).texts if (t.get_gid() or "").startswith("name")]


def test_on_a_line_they_are_ticks_at_their_coordinate():
    places = np.array([[-2.0], [-0.5], [0.0]])
    runs = path(3, coordinates=places, distances=np.array([3.0, 1.0, 0.0]))
    others = path(2, label="others", names=("a", "b"), coordinates=np.array([[0.25], [0.5]]), path=False)
    piece = replace(examples.line(), tracks=(runs, replace(others, distances=np.ones(2), explained=None)))
    ax = draw_slice(piece)
    assert marked(ax, "track trajectory").get_xdata().tolist() == [-0.5, 0.0]
    assert [marked(ax, f"name {n}").xy[0] for n in "ab"] == [0.25, 0.5]
    labels = [t.get_text().replace("\n", " ") for t in ax.get_legend().get_texts()]
    assert labels[-2:] == ["trajectory: 87 % on the line, at most 3 off it, 1 of 3 not shown", "others: at most 1 off it"]


def test_a_path_between_minima_says_where_the_tracks_are():
    off = path(2, names=("a", "b"), coordinates=np.array([[0.0], [1.0]]), distances=np.array([0.0, 4.0]))
    footer = figure_interpolation(replace(examples.interpolation(), tracks=(off,))).get_supxlabel()
    assert "trajectory of 2 points: 87 % of its spread on the line, ends 4 off it, at most 4" in footer.replace("\n", " ")


@pytest.mark.parametrize("name", [r"$\frac{$", "x" * 10_000, "\x1b[31m\n", "漢字 🙂"])
def test_hostile_names_are_drawn_as_text(name):
    hostile = path(4, label=name, names=(name,) * 4, path=False)
    for piece in (
        examples.plane(5, 5, tracks=(hostile, replace(hostile, path=True))),
        replace(examples.line(), tracks=(replace(hostile, coordinates=hostile.coordinates[:, :1]),)),
    ):
        assert render(figure_slice(piece)).startswith(b"\x89PNG")


def test_a_path_of_one_point_is_drawn():
    one = path(1)
    assert render(figure_slice(examples.plane(5, 5, tracks=(one,)))).startswith(b"\x89PNG")


def hill(n=5):
    """Three networks, of loss 0.1, around a hill at (0.5, 0.5), on n × n points from -0.5 to 1.5."""
    marks = Track(
        "checkpoints", ("b", "c"), np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2), 1.0, False, np.array([0.1, 0.1])
    )  # fmt: skip

    def loss(u, v):
        return 0.1 + np.minimum(u**2, (u - 1) ** 2) + np.minimum(v**2, (v - 1) ** 2) + 0 * u

    said = {"checkpoint": "runs/a.pt", "axis_lengths": [20.0, 20.0]}
    return examples.plane(n, n, ((-0.5, 1.5), (-0.5, 1.5)), loss, tracks=(marks,), provenance=said, check=None)


def in_space(ax, gid):
    """The points (n, 3) of every mark with this name."""
    found = [np.column_stack(line.get_data_3d()) for line in ax.lines if (line.get_gid() or "").endswith(gid)]
    return np.concatenate(found)


@pytest.mark.parametrize("n", [5, 6])
def test_marks_in_space_stand_at_the_losses_of_their_networks(n):
    """On 6 points a side the networks lie between the points of the grid, where the surface is drawn too high."""
    interactive = pytest.importorskip("landscape.report.page.interactive", reason="the report extra is not installed")
    ax = draw_slice(hill(n), view="3d")
    marks = in_space(ax, "checkpoints")
    assert sorted(marks.tolist()) == [[0, 1, pytest.approx(0.1)], [1, 0, pytest.approx(0.1)]]
    assert {"a", "b", "c"} <= {t.get_text().strip() for t in ax.texts}
    figure = interactive._figure(hill(n), "loss")
    (trace,) = (t for t in figure.data if (t.name or "").startswith("other checkpoints"))
    low, high = figure.layout.scene.zaxis.range
    assert (np.array(trace.z) - 0.03 * (high - low) >= 0.1 - 1e-9).all()  # where the surface is drawn higher, on that
    if n == 5:
        np.testing.assert_allclose(trace.z, 0.1 + 0.03 * (high - low))
    assert [(a.text, a.x, a.y) for a in figure.layout.scene.annotations] == [("a", 0, 0), ("b", 1, 0), ("c", 0, 1)]
    assert trace.customdata[0] == "b: loss 0.1, 0 off the plane"


def test_the_checkpoint_is_named_where_others_are():
    texts = {t.get_text() for t in draw_slice(hill()).texts}
    assert {"a", "b", "c"} <= texts
    assert "a" not in {t.get_text() for t in draw_slice(replace(hill(), tracks=())).texts}


def test_a_hidden_mark_is_hollow():
    """A wall as high as the box, right before the second network."""
    piece = hill(41)
    x, y = (np.asarray(c) for c in piece.coordinates)
    loss = np.where((np.abs(y - 0.9) < 0.03) & (x[:, None] > -0.3), 40.0, piece.values["loss"])
    ax = draw_slice(replace(piece, values={"loss": loss}), view="3d")
    assert in_space(ax, "hidden checkpoints")[:, :2].tolist() == [[0, 1]]
    assert in_space(ax, "track checkpoints")[:, :2].tolist() == [[1, 0]]
    assert "other checkpoints, 1 of 2 behind the surface" in [t.get_text() for t in ax.get_legend().get_texts()]
