"""Densities and eigenvalues as drawn."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples

from landscape.report import draw_breakdown, draw_density, draw_eigenvalues, figure_density
from landscape.report.figures.spectrum import _wide_parts, draw_minibatch_spectra
from landscape.report.over_training.history import draw_history
from landscape.report.over_training.watched import draw_watched
from landscape.report.style import short
from landscape.results import Block, Eigenpairs, Estimate, MinibatchSpectra


def test_density_band_and_scale():
    density = examples.density()
    ax = draw_density(density)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), density.grid)
    floor = ax.get_ylim()[0]
    seen = density.density > floor
    np.testing.assert_array_equal(line.get_ydata()[seen], density.density[seen])
    assert (line.get_ydata()[~seen] < floor).all()
    vertices = ax.collections[0].get_paths()[0].vertices
    peak = int(np.argmax(density.density))
    at_peak = vertices[vertices[:, 0] == density.grid[peak], 1]
    np.testing.assert_allclose(sorted(at_peak), [density.lower[peak], density.upper[peak]])


def test_a_band_that_is_open_below_is_a_line_and_no_wall():
    density = examples.density()
    lower = np.where(np.abs(density.grid) < 1, density.density / 2, 0.0)
    density = replace(density, lower=lower, resolution=np.full(density.grid.shape, 0.05))
    ax = draw_density(density)
    floor = ax.get_ylim()[0]
    filled = ax.collections[0].get_paths()
    reach = np.concatenate([p.vertices[:, 0] for p in filled])
    assert np.abs(reach).max() < 1.01
    edge = next(line for line in ax.lines if line.get_linestyle() == ":")
    x, y = edge.get_xydata().T
    shown = np.isfinite(y)
    assert shown[np.abs(x) > 1].all()
    np.testing.assert_allclose(y[shown], np.maximum(density.upper[shown], floor / 100))
    assert "resolution at the peak: 0.05" in figure_density(density).get_supxlabel()


def test_every_mark_of_a_density_is_in_the_legend():
    """Lines, band, shade, ticks and triangles: as many entries as marks, and none of them by a name of numerical analysis."""
    density = examples.density("log")
    lower = np.where(density.grid < 0.5, density.density / 2, 0.0)
    density = replace(density, lower=lower, resolution=np.full(density.grid.shape, 0.05))
    ax = draw_density(density, eigenpairs=examples.eigenpairs())
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    drawn = [a for a in (*ax.lines, *ax.collections, *ax.patches) if not str(a.get_label()).startswith("_")]
    assert len(names) == len(drawn) == len([*ax.lines, *ax.collections, *ax.patches])
    assert not any(word in name for name in names for word in ("Ritz", "probe", "quadrature", "node"))
    assert "smallest and largest eigenvalue that each of them found" in " ".join(names).replace("\n", " ")


def test_one_layer_has_a_stem_and_its_value():
    one = [Block("2", None, 330, Estimate(3.82, 0.04, "t", 30), Estimate(1.1, 1e-6, "residual", 9))]
    traces, tops = draw_breakdown(one)
    for ax, value in ((traces, one[0].trace.value), (tops, one[0].lambda_max.value)):
        (stem,) = [c for c in ax.collections if c.get_gid() == "stems"]
        assert stem.get_segments()[0][:, 1].tolist() == [0.0, value]
        (text,) = [t.get_text() for t in ax.texts if t.get_gid() == "value"]
        assert text.startswith(short(value))
    many = draw_breakdown(one * 9)[1]
    assert not [t for t in many.texts if t.get_gid() == "value"]


def test_one_eigenvalue_of_all_can_be_seen():
    """A peak of weight 1/P stands above the lower end of the axis, however many weights there are."""
    for dim in (100, 17_226, 10_000_000):
        density = examples.density(dim=dim)
        alone = 1 / (dim * 0.06 * np.sqrt(2 * np.pi))
        low, high = draw_density(density).get_ylim()
        assert low < alone / 2
        assert high > density.upper.max()


def test_symmetric_log_axis_takes_its_threshold():
    ax = draw_density(examples.density("log"))
    assert ax.get_xscale() == "symlog"
    assert ax.xaxis.get_transform().linthresh == 1e-2
    ticks = ax.get_xticks()
    assert 0 in ticks
    assert len(ticks) <= 11
    assert "axis linear from −0.01 to 0.01, else logarithmic" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert ax.get_xlabel().endswith("log scale on both sides of 0")


@pytest.mark.parametrize(("low", "expected"), [(-0.03, -0.02), (-0.3, -0.1), (-7.0, -1.0), (-0.0115, -0.01), (0.5, None)])
def test_the_left_side_of_a_symmetric_log_axis_has_a_round_tick_wherever_it_is_logarithmic(low, expected):
    """The tick furthest left that has a name; without one nobody could read a size there."""
    density = examples.density("log")
    inside = (density.grid >= low) | (np.arange(len(density.grid)) > 700)
    few = {k: getattr(density, k)[inside] for k in ("grid", "density", "lower", "upper", "sigma")}
    grid = few["grid"].copy()
    grid[0] = low
    ax = draw_density(replace(density, **few | {"grid": grid}))
    named = [t for t in ax.get_xticks() if t < 0]
    assert min(named, default=None) == (None if expected is None else pytest.approx(expected))
    between = ax.get_xticks(minor=True)
    assert all(low <= t <= grid[-1] and abs(t) > 0.01 for t in between)
    assert {2.0, 5.0} <= {round(float(t), 6) for t in between}


@pytest.mark.parametrize(("linthresh", "named"), [(0.03, [-0.1, 0.0, 0.1, 1.0, 10.0]), (0.09, [-0.2, 0.0, 1.0, 10.0])])
def test_the_first_decade_is_named_unless_it_would_stand_beside_the_zero(linthresh, named):
    density = examples.density("log")
    inside = density.grid >= -0.28
    few = {k: getattr(density, k)[inside] for k in ("grid", "density", "lower", "upper", "sigma")}
    assert draw_density(replace(density, **few, linthresh=linthresh)).get_xticks() == pytest.approx(named)


def test_rug_shows_the_extreme_ritz_values_of_every_probe():
    density = examples.density()
    rug = next(line for line in draw_density(density).lines if line.get_marker() == "|")
    assert sorted(rug.get_xdata()) == sorted([*density.nodes.min(axis=1), *density.nodes.max(axis=1)])


def test_eigenvalues_on_a_density_are_hollow_where_not_converged():
    pairs = examples.eigenpairs()
    marks = [line for line in draw_density(examples.density(), eigenpairs=pairs).lines if line.get_marker() == "v"]
    assert [len(m.get_xdata()) for m in marks] == [7, 1]
    assert marks[1].get_markerfacecolor() == "white"
    assert marks[1].get_xdata()[0] == pairs.values[7]


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2, 1.0])
def test_both_histograms_of_mini_batches_are_seen(scale):
    """Whatever the ratio of the two ends: each fills some of the width, and counts every mini-batch once."""
    draws = np.random.default_rng(0)
    largest, smallest = draws.uniform(0.2, 5, 64), -scale * draws.lognormal(0, 0.7, 64)
    found = MinibatchSpectra(
        16, 1347, largest, smallest, np.full((64, 2), 1e-9), np.ones((64, 2), bool), Estimate(0.6), Estimate(-scale / 3), 9
    )  # fmt: skip
    ax = draw_minibatch_spectra(found)
    ax.get_figure().draw_without_rendering()
    for bars in ax.containers:
        boxes = [bar.get_window_extent() for bar in bars if bar.get_height()]
        assert max(b.x1 for b in boxes) - min(b.x0 for b in boxes) > 0.02 * ax.bbox.width
        assert sum(bar.get_height() for bar in bars) == 64
        assert all(ax.bbox.x0 <= b.x0 and b.x1 <= ax.bbox.x1 for b in boxes)


def test_eigenvalues_stand_at_their_rank_with_their_residual():
    pairs = examples.eigenpairs()
    ax = draw_eigenvalues(pairs)
    (good, bad) = ax.containers
    np.testing.assert_array_equal(good[0].get_xydata(), np.column_stack([np.arange(7), pairs.values[:7]]))
    (bar,) = bad[2][0].get_segments()
    np.testing.assert_allclose(bar, [[7, pairs.values[7] - 0.4], [7, pairs.values[7] + 0.4]])
    assert [t.get_text() for t in ax.get_xticklabels()] == list("12345678")
    assert "NOT converged, residual ≤ 0.4" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_both_ends_have_ranks_of_both_signs():
    ax = draw_eigenvalues(examples.eigenpairs("both", 3))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "3", "−3", "−2", "−1"]


@pytest.mark.parametrize(("factor", "said"), [(0.75, ""), (0.05, "\nlog scale on both sides of 0")])
def test_a_symmetric_log_axis_of_eigenvalues_is_named(factor, said):
    pairs = examples.eigenpairs("both", 4)
    values = np.concatenate([10 * factor ** np.arange(4), -(factor ** np.arange(4)[::-1])])
    assert draw_eigenvalues(replace(pairs, values=values)).get_ylabel() == f"eigenvalue λ (loss / weight²){said}"


def test_smallest_end_counts_from_below():
    ax = draw_eigenvalues(examples.eigenpairs("smallest", 3))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["−3", "−2", "−1"]


def test_the_caption_says_the_method_and_the_samples():
    footer = figure_density(examples.density(), provenance={"samples": 30, "seed": 3}).get_supxlabel()
    assert footer == "stochastic Lanczos quadrature: 8 random vectors × 29 steps, 17,226 weights\n30 samples"


def test_single_walls_of_the_band_are_not_filled():
    parts = np.array([True] * 3 + [False] * 97 + [True, False] + [True] * 40)
    assert _wide_parts(parts).tolist() == [False] * 102 + [True] * 40
    assert not _wide_parts(np.array([False] * 60 + [True] + [False] * 60)).any()
    assert _wide_parts(np.ones(10, bool)).all()


@pytest.mark.parametrize(("residual", "scale"), [(1e-9, "log"), (1e-5, "linear")])
def test_eigenvalues_of_many_decades_are_drawn_without_a_warning(residual, scale):
    """On a log scale, which has no zero; not where the residual of one reaches 0."""
    values = np.array([0.7, 0.6, 0.4, 4e-6, 1e-6, 2e-8])
    pairs = Eigenpairs(values, np.empty((0, 0)), np.full(6, residual), np.ones(6, bool), 9, "both")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = draw_eigenvalues(pairs)
        ax.get_figure().draw_without_rendering()
    assert ax.get_yscale() == scale


def test_a_watch_with_one_check_shows_loss_and_edge():
    history = examples.watched()
    one = replace(history, checks=history.checks[:1])
    ax = draw_watched(one)
    other = next(a for a in ax.figure.axes if a is not ax)
    assert [line.get_xydata().tolist() for line in other.lines if line.get_marker() != "None"] == [
        [[one.steps[0], one.losses[0]]]
    ]
    edge = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert edge.get_xydata().tolist() == [[0, one.edges("lambda_max")[0]], [1, one.edges("lambda_max")[0]]]


def test_one_epoch_is_a_point():
    (ax,) = draw_history({"a": {"train_loss": [0.5]}})
    assert [line.get_marker() for line in ax.lines] == ["o"]
