"""Pictures of surfaces that are still being computed."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples

from landscape.report import coarse, draw_slice, figure_slice
from landscape.report.surfaces.coarse import preview
from landscape.results.surfaces.slice import DONE, FAILED, MISSING


def unfinished(there, **changes):
    """The example's plane where only these points are computed."""
    piece = examples.plane(*there.shape)
    values = {name: np.where(there, v, np.nan) for name, v in piece.values.items()}
    status = {name: np.where(there, DONE, MISSING).astype(np.int8) for name in values}
    stderr = {"loss": np.where(there, 0.1, np.nan)}
    return replace(piece, values=values, status=status, stderr=stderr, **changes)


def level(n=51, step=8):
    """Every `step`-th point of a grid, and its ends."""
    chosen = np.zeros(n, bool)
    chosen[::step] = chosen[-1] = True
    return chosen[:, None] & chosen


def test_a_finished_level_is_found_with_its_uneven_end():
    piece = unfinished(level())
    part = coarse(piece)
    at = [0, 8, 16, 24, 32, 40, 48, 50]
    for c, whole in zip(part.coordinates, piece.coordinates, strict=True):
        np.testing.assert_array_equal(c, whole[at])
    np.testing.assert_array_equal(part.values["loss"], examples.plane(51, 51).values["loss"][np.ix_(at, at)])
    assert part.complete
    assert part.stderr["loss"].shape == part.status["accuracy"].shape == (8, 8)


@pytest.mark.parametrize("seed", range(5))
def test_points_of_the_next_level_in_any_order_never_coarsen_it(seed):
    """A level of steps of 8, and a random half of the next one."""
    rng = np.random.default_rng(seed)
    there = level() | (level(step=4) & (rng.random((51, 51)) < 0.5))
    part = coarse(unfinished(there))
    assert part.complete
    assert min(map(len, part.coordinates)) >= 8
    assert max(np.diff(c).max() for c in part.coordinates) <= 8 * 0.04 + 1e-12


def test_rows_computed_one_after_another_are_all_used():
    there = np.zeros((20, 11), bool)
    there[:7] = True
    assert tuple(map(len, coarse(unfinished(there)).coordinates)) == (7, 11)
    there[7, :5] = True
    assert tuple(map(len, coarse(unfinished(there)).coordinates)) == (7, 11)


def test_a_failed_point_counts_as_computed_and_is_marked():
    piece = unfinished(level())
    piece.status["loss"][8, 16] = FAILED
    piece.values["loss"][8, 16] = np.nan
    part = coarse(piece)
    assert len(part.coordinates[0]) == 8
    assert part.status["loss"][1, 2] == FAILED
    labels = [t.get_text() for t in figure_slice(piece).axes[0].get_legend().get_texts()]
    assert "1 of 64 failed" in labels


def test_a_finished_slice_is_its_own_preview():
    piece = examples.plane(5, 5)
    assert coarse(piece) is piece
    assert preview(piece) == (piece, "")


def test_the_title_says_how_much_of_it_there_is():
    heading = figure_slice(unfinished(level())).get_suptitle().replace("\n", " ")
    assert heading == "Loss surface around clean-b16 (preview: 8 × 8 of 51 × 51 points)"


def test_the_axes_keep_the_whole_span_and_what_is_beyond_is_dotted():
    there = np.zeros((21, 21), bool)
    there[:9] = True
    ax = figure_slice(unfinished(there)).axes[0]
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-1, 1))
    assert [p.get_hatch() for p in ax.patches if p.get_gid() == "not computed"] == ["...."]
    (note,) = [t for t in ax.texts if t.get_text() == "not computed yet"]
    assert note.get_position() == pytest.approx((0.4, 0))  # half-way from x = -0.2, the last one computed, to 1
    assert ax.get_aspect() == 1
    assert not figure_slice(unfinished(level())).axes[0].patches
    there[:20] = np.arange(21) % 2 == 0
    assert "not computed yet" not in [t.get_text() for t in figure_slice(unfinished(there)).axes[0].texts]


def test_few_holes_are_shown_as_holes():
    there = np.ones((21, 21), bool)
    there[3, 4] = False
    figure = figure_slice(unfinished(there))
    assert "(preview: 440 of 441 points)" in figure.get_suptitle().replace("\n", " ")
    assert "1 of 441 not computed" in [t.get_text() for t in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("view", ["contour", "3d"])
@pytest.mark.parametrize("count", [0, 1])
def test_nothing_or_a_single_point_is_said_not_drawn(view, count):
    there = np.zeros((9, 9), bool)
    there[4, 4] = count
    piece = unfinished(there)
    assert tuple(map(len, coarse(piece).coordinates)) == (0, 0)
    figure = figure_slice(piece, view=view)
    said = "nothing computed yet: 0 of 81 points" if not count else "preview: 1 of 81 points"
    assert said in figure.get_suptitle().replace("\n", " ")
    assert any(f"{81 - count} of 81" in t.get_text() for t in figure.axes[0].get_legend().get_texts())


def test_a_line_is_previewed_over_its_whole_span():
    whole = examples.line(accuracy=False, test=False)
    status = np.full(51, MISSING, np.int8)
    status[10:40:5] = DONE
    piece = replace(whole, values={"loss": np.where(status == DONE, whole.values["loss"], np.nan)}, status={"loss": status})
    figure = figure_slice(piece)
    assert "(preview: 6 of 51 points)" in figure.get_suptitle()
    assert figure.axes[0].get_xlim() == (-1, 1)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), whole.coordinates[0][10:40:5])


def test_an_empty_line_says_so():
    whole = examples.line(accuracy=False, test=False)
    piece = replace(whole, values={"loss": np.full(51, np.nan)}, status={"loss": np.full(51, MISSING, np.int8)})
    figure = figure_slice(piece)
    assert "nothing computed yet: 0 of 51 points" in figure.get_suptitle().replace("\n", " ")
    assert "loss not computed: 51 of 51" in [t.get_text() for t in draw_slice(piece).get_legend().get_texts()]
