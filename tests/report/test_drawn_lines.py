"""Lines and interpolations: values, bands, scales, marks."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
from matplotlib.colors import to_hex
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from landscape.errors import UsageError
from landscape.report import draw_interpolation, draw_slice, figure_slice
from landscape.report.style import BLUE
from landscape.results import Barrier, Slice


def band(ax, quantity):
    """(x, low, high) of a band as drawn."""
    collection = next(c for c in ax.collections if c.get_gid() == f"band {quantity}")
    vertices = collection.get_paths()[0].vertices
    x = np.unique(vertices[:, 0])
    return x, *(np.array([f(vertices[vertices[:, 0] == u, 1]) for u in x]) for f in (min, max))


def told(ax):
    """The legend's entries, each in one line."""
    return [t.get_text().replace("\n", " ") for t in ax.get_legend().get_texts()]


def end_names(ax):
    """(name, box) of the two ends, which stand under the axis."""
    ax.get_figure().draw_without_rendering()
    found = {}
    for text in ax.get_xticklabels(minor=True):
        box = text.get_window_extent()
        if text.get_text().startswith("\n"):  # one line lower, the first line is empty
            box = Bbox([[box.x0, box.y0], [box.x1, (box.y0 + box.y1) / 2]])
        found[text.get_text().strip()] = box
    return found


def test_values_and_bands_are_the_results_own():
    a = np.linspace(-1, 1, 51)
    piece = Slice(("d",), (a,), {"loss": 2 + a + a**2}, {"loss": np.full(51, 0.01)}, None, "", {})
    ax = draw_slice(piece)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), piece.coordinates[0])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), piece.values["loss"])
    x, low, high = band(ax, "loss")
    np.testing.assert_array_equal(x, piece.coordinates[0])
    np.testing.assert_allclose(low, piece.values["loss"] - 0.0196)
    np.testing.assert_allclose(high, piece.values["loss"] + 0.0196)


@pytest.mark.parametrize(("ratio", "scale"), [(99.0, "linear"), (101.0, "log")])
def test_log_scale_only_where_the_range_asks(ratio, scale):
    a = np.linspace(-1, 1, 11)
    ax = draw_slice(Slice(("d",), (a,), {"loss": 1 + (ratio - 1) * a**2}, {}, None, "", {}))
    assert ax.get_yscale() == scale


def test_loss_and_accuracy_stand_on_two_axes():
    ax = draw_slice(examples.line())
    other = next(a for a in ax.get_figure().axes if a is not ax)
    assert (ax.get_ylabel(), other.get_ylabel()) == ("loss (mean per sample)", "accuracy (%)")
    np.testing.assert_allclose(other.lines[0].get_ydata(), 100 * examples.line().values["accuracy"])
    assert [line.get_linestyle() for line in other.lines] == ["-", "--"]
    assert not [c for c in other.collections if c.get_gid()], "bands of both axes would hide one another"
    assert band(draw_slice(examples.line(), quantity="accuracy"), "test_accuracy")[2].max() <= 100
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names == ["train loss", "test loss", "train accuracy", "test accuracy", "checkpoint", "95 % over samples"]


def test_one_quantity_alone():
    ax = draw_slice(examples.line(), quantity="test_accuracy")
    assert len(ax.get_figure().axes) == 1
    assert ax.get_ylabel() == "test accuracy (%)"


def test_the_ring_sits_on_the_checkpoints_own_loss():
    piece = examples.line(accuracy=False)
    off = replace(piece, check=replace(piece.check, centre_value=0.5, centre_is_exact=False))
    ring = next(line for line in draw_slice(off).lines if line.get_label() == "checkpoint")
    assert ring.get_xydata().tolist() == [[0, 0.5]]


def test_points_that_are_not_finite_are_marked_and_counted():
    piece = examples.line(test=False, accuracy=False)
    piece.values["loss"][[0, 50]] = np.nan, np.inf
    piece.values["loss"] = np.ma.masked_equal(piece.values["loss"], piece.values["loss"][10])
    ax = draw_slice(piece)
    marks = next(line for line in ax.lines if line.get_gid() == "not finite")
    assert marks.get_xdata().tolist() == [-1.0, 1.0]
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert "loss not finite: 2 of 51" in names
    assert "loss not computed: 1 of 51" in names


def test_the_check_and_what_it_is_made_from_stand_below():
    subject, check = figure_slice(examples.line()).get_supxlabel().splitlines()
    assert subject == "final.pt · digits-mlp, train split · 1,347 samples"
    assert check == "checked: axes, norm, centre, slopes, curvature"


def test_a_line_does_not_look_at_the_view():
    assert figure_slice(examples.line(), view="line").axes[0].get_ylabel() == "loss (mean per sample)"


def test_the_barrier_that_is_drawn_is_the_one_that_the_slice_has():
    """The picture computes none of its own: another height, place and mean in the slice are another arrow."""
    piece = examples.interpolation()
    drawn = draw_interpolation(replace(piece, barriers={"loss": Barrier(0.5, 0.1, 0.25, 0.125)}))[0]
    assert "barrier 0.5 ± 0.2" in told(drawn)
    (arrow,) = drawn.texts
    assert (arrow.xyann, arrow.xy) == ((0.25, 0.125), (0.25, 0.625))
    assert not [text for text in told(draw_interpolation(replace(piece, barriers={}))[0]) if "barrier" in text]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Barrier(np.nan, None, np.nan, 0.1, "2 of 41 points failed"), "barrier unknown: 2 of 41 points failed"),
        (Barrier(np.inf, None, 0.5, 0.1), "barrier infinite, at 0.5"),
        (Barrier(-0.1, 0.01, 0.5, 0.1), "no barrier: the loss never exceeds the mean of its ends"),
        (Barrier(0.5, 0.3, 0.5, 0.1), "no barrier beyond its error: 0.5 ± 0.59"),
    ],
)
def test_a_barrier_without_a_height_is_put_in_words(found, words):
    drawn = draw_interpolation(replace(examples.interpolation(), barriers={"loss": found}))[0]
    assert words in told(drawn)
    assert not drawn.texts, "no arrow"


def test_a_path_has_no_checkpoint_at_0_and_a_line_has_one_even_unfinished():
    path = replace(examples.interpolation(), paired={"loss": np.full(41, 0.01)})
    for piece, words in ((path, "start"), (replace(path, check=None), "start"), (replace(path, path=False), "checkpoint")):
        names = [t.get_text() for t in draw_slice(piece).get_legend().get_texts()]
        assert f"95 % of the difference to the {words}" in names
        assert ("checkpoint" in names) is (words == "checkpoint")


def test_interpolation_has_two_panels_its_ends_and_the_barrier():
    loss, accuracy = draw_interpolation(examples.interpolation(), ends=("small", "large"))
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (mean per sample)", "accuracy (%)")
    height = examples.interpolation().barriers["loss"].height
    assert f"barrier {height:.3g} ± 0.039" in told(loss)
    for ax in (loss, accuracy):
        assert set(end_names(ax)) == {"small", "large"}
        assert ax.get_xlabel() == "position a"
    (arrow,) = loss.texts
    assert arrow.xy[1] - arrow.xyann[1] == pytest.approx(height)


def test_a_line_without_a_hill_says_so():
    a = np.linspace(0, 1, 11)
    found = {"loss": Barrier(0.0, None, 0.0, 1.0)}
    (ax,) = draw_interpolation(Slice(("a",), (a,), {"loss": 1 - a * (1 - a)}, {}, None, "", {}, found))
    assert any("never exceeds" in text for text in told(ax))


@pytest.mark.parametrize(
    "shape", [lambda a: 0.1 + 1.3 * a**2, lambda a: 1.4 - 1.3 * a, lambda a: 0.01 + 2 * a**2, lambda a: 1 - 3 * a * (1 - a)]
)
def test_what_is_said_of_a_line_without_a_hill_covers_neither_curves_nor_names(shape):
    """Rising, falling, on a log axis, and sagging between equal ends; the names of the ends cover no curve either."""
    a = np.linspace(0, 1, 31)
    values = {"loss": shape(a), "test_loss": 1.05 * shape(a), "accuracy": 1 - shape(a) / 4}
    piece = Slice(("a",), (a,), values, {}, None, "", {}, {"loss": Barrier(0.65, 0.03, 1.0, 0.75)})
    axes = draw_interpolation(piece, ends=("slow-0", "a longer name"))
    assert any(text.startswith("no ") for text in told(axes[0]))
    for ax in axes:
        one, other = end_names(ax).values()
        assert not one.overlaps(other)
        assert not ax.texts, "nothing is written into the panel"
        assert max(box.y1 for box in (one, other)) < ax.bbox.y0
        assert ax.get_legend().get_window_extent().y0 >= ax.bbox.y1


@pytest.mark.parametrize("span", [(0.0, 1.0), (-0.5, 1.5), (-2.0, 3.0)])
def test_names_of_the_ends_do_not_meet(span):
    a = np.linspace(*span, 31)
    piece = Slice(("a",), (a,), {"loss": 1 + a**2, "accuracy": 1 - a**2 / 10}, {}, None, "", {}, path=True)
    for ax in draw_interpolation(piece, ends=("A-WIDE-NAME-OF-A-RUN-1", "ANOTHER-WIDE-NAME-OF-2")):
        one, other = end_names(ax).values()
        assert not one.overlaps(other)


def flat_beside_test():
    """The demo's line between two networks of one valley: training loss near 0.01, test loss near 0.09 with a wide band."""
    a = np.linspace(0, 1, 31)
    values = {"loss": 0.0095 + 0.0005 * np.sin(2 * a), "test_loss": 0.0897 - 0.0004 * a, "accuracy": 1 - 1e-3 * a}
    stderr = {"loss": np.full(31, 0.001), "test_loss": np.full(31, 0.025), "accuracy": np.full(31, 1e-3)}
    paired = {"loss": 0.0007 * a, "test_loss": 0.006 * a, "accuracy": 1e-3 * a}
    barriers = {"loss": Barrier(3.14e-4, 1.7e-4, 0.5, 0.0097)}
    named = {"ends": ["small-batch", "large-batch"]}
    return Slice(("a",), (a,), values, stderr, None, "", named, barriers, paired, path=True)


def test_a_training_curve_that_would_be_flat_beside_the_test_curve_has_its_own_panel():
    piece = flat_beside_test()
    loss, test, accuracy = draw_interpolation(piece)
    assert [ax.get_ylabel() for ax in (loss, test, accuracy)] == [
        "loss (mean per sample)", "test loss (mean per sample)", "accuracy (%)",
    ]  # fmt: skip
    bottom, top = loss.get_ylim()
    half = 1.96 * piece.paired["loss"]
    low, high = (piece.values["loss"] - half).min(), (piece.values["loss"] + half).max()
    assert bottom <= low < high <= top, "the band of the difference is whole"
    assert high - low >= 0.4 * (top - bottom), "and fills the panel"
    assert "no barrier beyond its error: 3.14×10⁻⁴ ± 3.3×10⁻⁴" in told(loss)
    assert not loss.texts, "no arrow"
    assert "95 % of the difference to small-batch" in told(loss)
    assert "95 % over samples, cut at the edge" in told(test)
    alike = piece.values | {"test_loss": piece.values["loss"] + 0.001}
    both = replace(piece, values=alike, paired=dict.fromkeys(("loss", "test_loss"), piece.paired["loss"]))
    assert len(draw_interpolation(both)) == 2


def test_interpolation_wants_a_line_and_enough_axes():
    with pytest.raises(UsageError, match="expected a line"):
        draw_interpolation(examples.plane(5, 5))
    with pytest.raises(UsageError, match="expected 2 axes, found 0"):
        draw_interpolation(examples.interpolation(), [])


def test_a_wide_band_of_test_data_does_not_flatten_the_curves():
    piece = examples.interpolation()
    low = {k: 0.05 * v + 0.3 if "loss" in k else v for k, v in piece.values.items()}
    found = piece.barriers["loss"]
    small = Barrier(0.05 * found.height, 0.001, found.at, 0.05 * found.ends + 0.3)
    stderr = {**piece.stderr, "test_loss": np.full(41, 5.0)}
    ax = draw_interpolation(replace(piece, values=low, stderr=stderr, barriers={"loss": small}))[0]
    bottom, top = ax.get_ylim()
    curves = np.concatenate([low["loss"], low["test_loss"]])
    assert np.ptp(curves) >= 0.4 * (top - bottom)
    assert bottom <= curves.min() < curves.max() <= top


@pytest.mark.parametrize("share", [1.0, 0.004])
def test_a_barrier_too_low_for_an_arrow_stands_in_words(share):
    piece = examples.interpolation()
    found = piece.barriers["loss"]
    low = Barrier(share * found.height, 0.001, found.at, found.ends)
    ax = draw_interpolation(replace(piece, barriers={"loss": low}))[0]
    assert len(ax.texts) == (share == 1.0)
    assert any(text.startswith(f"barrier {low.height:.3g} ± 0.002") for text in told(ax))


def test_two_bands_that_look_like_one_have_one_entry_in_their_colour():
    piece = examples.line()
    piece = replace(piece, values={"loss": piece.values["loss"]}, stderr={"loss": piece.stderr["loss"]})
    for share, words in (
        (1.0, ["95 % over samples, also of the difference to the checkpoint"]),
        (0.1, ["95 % over samples", "95 % of the difference to the checkpoint"]),
    ):
        ax = draw_slice(replace(piece, paired={"loss": share * piece.stderr["loss"]}))
        patches = [h for h in ax.get_legend().legend_handles if isinstance(h, Patch)]
        assert [n.removesuffix(", cut at the edge") for n in told(ax) if "95 %" in n] == words
        assert {to_hex(p.get_facecolor()) for p in patches} == {to_hex(BLUE)}
