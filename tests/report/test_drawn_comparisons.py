"""Certificates, measures by group and training histories as drawn."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
from hypothesis import given
from hypothesis import strategies as st

from landscape.comparison import compare
from landscape.errors import UsageError
from landscape.report import (
    draw_certificate,
    draw_correlations,
    draw_effects,
    draw_history,
    draw_measures,
    draw_separation,
    figure_effects,
    figure_separation,
)
from landscape.report.figures.certificate import spread
from landscape.results import Comparison, Estimate, Evaluation, SignError

ALPHAS = (0.5, 1.0, 2.0, 10.0)


def curves(ax):
    """Measure -> (x, y) of its line."""
    return {line.get_gid().removeprefix("ratio "): line for line in ax.lines if (line.get_gid() or "").startswith("ratio ")}


def test_certificate_draws_every_ratio_on_log_axes():
    ax = draw_certificate([(a, examples.certificate(a)) for a in reversed(ALPHAS)])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    drawn = curves(ax)
    assert set(drawn) == set(examples.UNITS)
    np.testing.assert_array_equal(drawn["trace"].get_xdata(), ALPHAS)
    np.testing.assert_allclose(drawn["trace"].get_ydata(), [(3 / a**2 + 5 * a**2) / 8 for a in ALPHAS])
    np.testing.assert_allclose(drawn["adaptive_trace"].get_ydata(), 1, atol=1e-6)


def test_invariant_and_fakeable_have_one_style_each():
    drawn = curves(draw_certificate([(a, examples.certificate(a)) for a in ALPHAS]))
    styles = {name: (line.get_color(), line.get_linestyle()) for name, line in drawn.items()}
    invariant = {styles[n] for n in ("adaptive_trace", "adaptive_lambda_max", "relative_flatness")}
    fakeable = {s for n, s in styles.items() if n not in ("adaptive_trace", "adaptive_lambda_max", "relative_flatness")}
    assert len(invariant) == len(fakeable) == 1
    assert not invariant & fakeable


def test_a_broken_claim_has_a_style_of_its_own():
    ax = draw_certificate([(a, examples.certificate(a, "adaptive_trace")) for a in ALPHAS])
    drawn = curves(ax)
    assert drawn["adaptive_trace"].get_color() not in {line.get_color() for n, line in drawn.items() if n != "adaptive_trace"}
    assert "CLAIM BROKEN" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_every_measure_is_named_at_its_line():
    ax = draw_certificate([(a, examples.certificate(a)) for a in ALPHAS])
    named = " ".join(t.get_text() for t in ax.texts).replace("\n", " ").replace(",", " ").split()
    assert sorted(named) == sorted(examples.UNITS)


def test_invariant_measures_look_flat_even_alone():
    """Rounding of 1e-7 must not be blown up to the height of the axes."""
    certificates = []
    for a in ALPHAS:
        c = examples.certificate(a)
        certificates.append((a, replace(c, rows=tuple(r for r in c.rows if r.claimed))))
    low, high = draw_certificate(certificates).get_ylim()
    assert low <= 0.5
    assert high >= 2


def test_ratios_without_a_place_on_a_log_axis_are_counted():
    c = examples.certificate(2.0)
    flipped = replace(c.rows[1], after=Estimate(-c.rows[1].before.value))
    gone = replace(c.rows[2], after=Estimate(np.nan, reason="overflow"), verdict="not comparable")
    ax = draw_certificate([(1.0, examples.certificate(1.0)), (2.0, replace(c, rows=(c.rows[0], flipped, gone, *c.rows[3:])))])
    assert "2 ratios not positive or not finite: not drawn" in [t.get_text() for t in ax.texts]


def test_a_single_certificate_is_one_dot_a_measure():
    ax = draw_certificate([(5.0, examples.certificate(5.0))])
    assert [t.get_text() for t in ax.get_yticklabels()] == list(examples.UNITS)
    dots = [line.get_xydata()[0] for line in ax.lines if line.get_marker() not in ("", "None")]
    trace = next(x for x, y in dots if y == 2)
    assert trace == pytest.approx((3 / 25 + 125) / 8)
    assert ax.get_xlabel() == "measure after / before (ratio) at α = 5"


@pytest.mark.parametrize("bad", [[], [(0.0, examples.certificate(1.0))], [(-1.0, examples.certificate(1.0))]])
def test_certificate_wants_positive_factors(bad):
    with pytest.raises(UsageError, match="expected certificates with positive factors, found"):
        draw_certificate(bad)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.12)), min_size=1, max_size=8))
def test_spread_labels_never_overlap_and_stay_inside(labels):
    targets, heights = sorted(t for t, _ in labels), [h for _, h in labels]
    places = spread(targets, heights)
    for (a, ha), (b, hb) in zip(zip(places, heights, strict=True), list(zip(places, heights, strict=True))[1:], strict=False):
        assert b - hb / 2 >= a + ha / 2 - 1e-9
    assert places[0] - heights[0] / 2 >= -1e-9
    assert places[-1] + heights[-1] / 2 <= 1 + 1e-9


def test_measures_have_a_panel_each_and_a_point_each():
    groups = examples.groups()
    axes = draw_measures(groups)
    assert [ax.get_title(loc="left") for ax in axes] == ["loss", *examples.UNITS]
    trace = axes[3]
    marks = [c for c in trace.containers if c[0] is not None]  # the wide bars, of the samples, have none
    assert len(marks) == 12
    points = np.array([c[0].get_xydata()[0] for c in marks])
    assert set(np.round(points[:, 0])) == {0, 1, 2, 3}
    np.testing.assert_allclose(points[:, 1], [s["trace"].value for members in groups.values() for s in members])
    (bar,) = marks[0][2][0].get_segments()
    first = groups["clean, batch 16"][0]["trace"]
    np.testing.assert_allclose(bar[:, 1], first.interval())
    wide = next(c for c in trace.containers if c[0] is None)[2][0].get_segments()[0]
    np.testing.assert_allclose(wide[:, 1], first.data_interval())
    assert trace.get_ylabel() == "loss / weight²"


def test_measures_say_what_can_fake_them():
    marks = {ax.get_title(loc="left"): [t.get_text() for t in ax.texts] for ax in draw_measures(examples.groups())}
    assert "fakeable: layer, node" in marks["trace"]
    assert "survives all symmetries" in marks["adaptive_trace"]
    assert "fakeable: node" in marks["relative_flatness"]
    assert "1 not finite" in marks["frobenius"]


def test_bounds_have_arrows_and_unconverged_points_are_hollow():
    (keskar, subspace) = draw_measures(examples.groups(), measures=["keskar", "keskar_subspace"])
    assert sum(t.arrow_patch is not None for t in keskar.texts if hasattr(t, "arrow_patch")) == 12
    assert {c[0].get_markerfacecolor() for c in subspace.containers} == {"white"}
    assert "white" not in {c[0].get_markerfacecolor() for c in keskar.containers}


def test_measures_take_a_log_scale_where_the_range_asks():
    few, many = (
        draw_measures({"a": [examples.sharpness()], "b": [examples.sharpness("b", f)]}, measures=["trace"])[0]
        for f in (50, 300)
    )
    assert (few.get_yscale(), many.get_yscale()) == ("linear", "log")


def test_a_measure_that_some_lack_is_said_to_be_absent():
    short = examples.sharpness("short")
    short = replace(short, measures={"trace": short.measures["trace"]})
    ax = draw_measures({"a": [examples.sharpness()], "b": [short]}, measures=["keskar"])[0]
    assert "1 not measured" in [t.get_text() for t in ax.texts]


def test_measures_refuse_what_is_not_there():
    with pytest.raises(UsageError, match="expected at least one checkpoint, found none"):
        draw_measures({"a": []})
    with pytest.raises(UsageError, match="found 'sharpness'"):
        draw_measures({"a": [examples.sharpness()]}, measures=["sharpness"])
    with pytest.raises(UsageError, match="expected 10 axes, found 0"):
        draw_measures({"a": [examples.sharpness()]}, [])


def test_history_draws_train_and_test():
    loss, accuracy = draw_history(examples.history())
    assert loss.get_yscale() == "log"
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), 100 * examples.history()["clean"]["train_accuracy"])
    assert [line.get_linestyle() for line in loss.lines] == ["-", "--", "-", "--"]
    names = [t.get_text() for t in loss.get_figure().legends[0].get_texts()]
    assert names == ["clean", "random labels", "train", "test"]


def test_history_takes_the_records_of_a_training_run():
    records = [
        {"epoch": e, "train_loss": 1 / e, "train_accuracy": 0.5, "test_loss": None, "test_accuracy": None, "lr": 0.1}
        for e in (1, 5, 9)
    ]
    loss, accuracy = draw_history({"run": records})
    (curve,) = loss.lines
    np.testing.assert_allclose(curve.get_xydata(), [[1, 1], [5, 1 / 5], [9, 1 / 9]])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), 50)
    assert [t.get_text() for t in loss.get_figure().legends[0].get_texts()] == ["run", "train"]


def test_history_without_curves_is_refused():
    with pytest.raises(UsageError, match="expected a history with a loss or an accuracy, found neither"):
        draw_history({"run": {"epoch": [1, 2]}})


def compared(count: int = 2, runs: int = 6, with_test: bool = True) -> Comparison:
    """Groups of the examples, with accuracies on test data and one hyperparameter."""
    factors = dict(list({"clean, batch 16": 1.0, "clean, full batch": 4.0, "random labels": 9.0}.items())[:count])
    groups = {g: [examples.sharpness(f"{g}-{s}", f, s) for s in range(runs)] for g, f in factors.items()}
    test = {
        g: [
            Evaluation(Estimate(0.1 * f, 0.01, "samples", 450), Estimate(0.97 - 0.03 * f / (s + 3), 0.01, "proportion", 450))
            for s in range(runs)
        ]
        for g, f in factors.items()
    }
    settings = {g: [{"batch_size": f, "lr": s % 2} for s in range(runs)] for g, f in factors.items()}
    memorized = {g: [f == 9.0] * runs for g, f in factors.items()}
    return compare(groups, test=test if with_test else None, hyperparameters=settings, memorized=memorized, draws=300)


def drawn(ax, what: str) -> dict:
    """gid without its first word -> the line's data."""
    lines = {line.get_gid(): line for line in ax.lines if (line.get_gid() or "").startswith(what)}
    return {name.removeprefix(f"{what} "): line for name, line in lines.items()}


def test_effects_are_drawn_where_the_comparison_has_them():
    comparison = compared(3)
    left, right = draw_effects(comparison)
    values, intervals = drawn(left, "value"), drawn(left, "interval")
    assert len(values) == len(intervals) == len(comparison.differences) == 14 * 3
    for d in comparison.differences:
        name = f"{d.name}: {d.a} / {d.b}"
        assert values[name].get_xdata()[0] == d.delta
        np.testing.assert_array_equal(intervals[name].get_xdata(), [d.delta_low, d.delta_high])
        assert (values[name].get_markerfacecolor() == "white") == (not d.found)
    ratios = drawn(right, "value")
    assert {d.name for d in comparison.differences} - {name.split(":")[0] for name in ratios} == {"lambda_min"}
    assert right.get_xscale() == "log"
    assert "not all positive" in [t.get_text() for t in right.texts]
    assert [t.get_text() for t in left.get_yticklabels()][-1] == "gap"
    places = sorted(line.get_ydata()[0] for line in values.values())
    assert min(np.diff(places)) > 0.1, "no two marks on top of each other"
    assert len(left.get_legend().get_texts()) == 3


def test_effects_of_few_runs_have_no_bars():
    left, _ = draw_effects(compared(2, runs=3))
    assert drawn(left, "value")
    assert not drawn(left, "interval")


def test_the_labels_of_effects_do_not_run_into_each_other():
    figure = figure_effects(compared(2))
    renderer = figure.canvas.get_renderer()
    left, right = (ax.xaxis.label.get_window_extent(renderer) for ax in figure.axes)
    assert left.x1 < right.x0
    assert right.x1 <= figure.bbox.x1
    assert (
        figure.axes[0].get_legend().get_window_extent(renderer).x1 < figure.axes[1].get_legend().get_window_extent(renderer).x0
    )


def test_correlations_are_drawn_with_psi():
    comparison = compared(3)
    ax = draw_correlations(comparison)
    taus, psis, bars = drawn(ax, "value tau"), drawn(ax, "value psi"), drawn(ax, "interval tau")
    assert set(taus) == set(bars) == set(comparison.rank_correlation)
    for name, t in comparison.rank_correlation.items():
        assert taus[name].get_xdata()[0] == t.tau
        np.testing.assert_array_equal(bars[name].get_xdata(), [t.low, t.high])
        assert psis[name].get_xdata()[0] == comparison.granulated[name].psi


def test_partial_correlations_and_the_worst_environment_are_drawn_beside_tau():
    comparison = compared(3)
    worst = SignError(0.75, 0.6, 0.9, "lr 0 / 1", {"lr 0 / 1": 0.75}, 0)
    comparison = replace(comparison, sign_error={"trace": worst, "norm": replace(worst, worst=None, low=None, high=None)})
    ax = draw_correlations(comparison)
    partial, bars = drawn(ax, "value partial"), drawn(ax, "interval partial")
    assert set(partial) == set(comparison.partial) == set(comparison.rank_correlation)
    for name, r in comparison.partial.items():
        assert partial[name].get_xdata()[0] == r.rho
        assert (partial[name].get_markerfacecolor() == "white") == (r.q > 0.05)
        np.testing.assert_array_equal(bars[name].get_xdata(), [r.low, r.high])
    errors = drawn(ax, "value worst")
    assert set(errors) == {"trace"}
    assert errors["trace"].get_xdata()[0] == -0.5
    np.testing.assert_allclose(drawn(ax, "interval worst")["trace"].get_xdata(), [-0.8, -0.2])
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert "partial ρ at fixed lr, batch_size" in words
    heights = sorted(
        line.get_ydata()[0] for kind in ("tau", "psi", "partial", "worst") for line in drawn(ax, f"value {kind}").values()
    )
    assert min(np.diff(heights)) > 0.1, "no two marks on top of each other"


def test_the_auc_of_every_measure_is_drawn():
    comparison = compared(3)
    ax = draw_separation(comparison)
    values, bars = drawn(ax, "value auc"), drawn(ax, "interval auc")
    assert set(values) == set(comparison.memorization) == set(examples.UNITS)
    for name, d in comparison.memorization.items():
        assert values[name].get_xdata()[0] == d.auc
        assert (values[name].get_markerfacecolor() == "white") == (not d.found)
        np.testing.assert_array_equal(bars[name].get_xdata(), [d.auc_low, d.auc_high])
    texts = [t.get_text() for t in figure_separation(comparison).texts]
    assert any("6 runs that memorized, 12 others" in t for t in texts)


def test_measures_of_a_comparison_have_boxes_scores_and_q():
    comparison = compared(2)
    axes = draw_measures(comparison.groups, comparison=comparison)
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles[:5] == ["train loss", "train accuracy", "test loss", "test accuracy", "gap"]
    assert titles[5:] == list(examples.UNITS)
    trace = axes[titles.index("trace")]
    (box,) = [c for c in trace.collections if c.get_gid() == "box 1"]
    v = comparison.table["trace"]["clean, full batch"]
    y = box.get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == pytest.approx((v.low, v.high))
    q = next(d.q for d in comparison.differences if d.name == "trace")
    assert trace.get_xlabel() == f"q = {q:.2g}"
    gap = axes[4]
    points = [c[0].get_ydata()[0] for c in gap.containers if c[0] is not None]  # the wide bars have none
    np.testing.assert_allclose(points, [100 * g for runs in comparison.gaps.values() for g in runs])
    assert gap.get_ylabel() == "percentage points"


def test_comparisons_without_what_a_drawing_needs_are_refused():
    with pytest.raises(UsageError, match="found no differences"):
        draw_effects(compared(1))
    with pytest.raises(UsageError, match="expected rank correlations, found none"):
        draw_correlations(compared(2, with_test=False))
    with pytest.raises(UsageError, match="expected runs that memorized and others, found one kind"):
        draw_separation(compared(2))
    with pytest.raises(UsageError, match="expected 2 axes, found 0"):
        draw_effects(compared(2), [])


def test_the_interval_of_a_perfect_accuracy_can_be_drawn_at_any_number_of_samples():
    """Its upper end is 1 but for a rounding, which may fall below."""
    perfect = [replace(examples.sharpness(), accuracy=Estimate(1.0, 0.0, "proportion", n)) for n in range(250, 350)]
    (ax,) = draw_measures({"a": perfect}, measures=["accuracy"])
    markers, bars = ([c for c in ax.containers if (c[0] is None) is bar] for bar in (False, True))
    assert len(markers) == len(bars) == 100
    assert all(marker[2] == () for marker in markers)  # no thin bar: the interval is that of the samples
    for bar in bars:
        low, high = (y for _, y in bar[2][0].get_segments()[0])
        assert 95 < low < 100 - 0.5
        assert high == pytest.approx(100, abs=1e-6)
