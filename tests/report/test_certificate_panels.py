"""Certificates of many measures and both symmetries as drawn."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples

from landscape.errors import UsageError
from landscape.report import figure_certificate
from landscape.report.figures.certificate import STYLES
from landscape.report.figures.certificate_panels import draw_certificate_panels, left_out
from landscape.results import Estimate

ALPHAS = (0.2, 0.5, 2.0, 5.0)


def pairs(broken=None, alphas=ALPHAS):
    """Both symmetries; relative flatness moves when neurons do."""
    layer = [(a, examples.certificate(a, broken)) for a in alphas]
    node = []
    for a in alphas:
        c = examples.certificate(a**0.5)
        rows = [
            replace(r, claimed=False, verdict="moved", after=Estimate(r.before.value * (1 + a)))
            if r.name == "relative_flatness"
            else r
            for r in c.rows
        ]
        node.append((a, replace(c, symmetry="node", rows=tuple(rows))))
    return layer + node


def panel(axes, name):
    return next(ax for ax in axes if ax.get_title(loc="left").replace("\n", "") == name)


def line(axes, name, symmetry):
    return next(one for one in panel(axes, name).lines if one.get_gid() == f"ratio {symmetry} {name}")


def test_every_measure_has_a_panel_and_both_lines_through_one():
    axes = draw_certificate_panels(pairs())
    assert {ax.get_title(loc="left").replace("\n", "") for ax in axes} == set(examples.UNITS)
    drawn = line(axes, "trace", "layer")
    np.testing.assert_allclose(drawn.get_xdata(), [0.2, 0.5, 1, 2, 5])
    np.testing.assert_allclose(drawn.get_ydata(), [1 if a == 1 else (3 / a**2 + 5 * a**2) / 8 for a in drawn.get_xdata()])
    np.testing.assert_allclose(line(axes, "trace", "node").get_ydata()[-1], (3 / 5 + 25) / 8)


def test_all_panels_share_one_log_scale_so_that_flat_looks_flat():
    axes = draw_certificate_panels(pairs())
    assert len({(ax.get_xlim(), ax.get_ylim(), ax.get_xscale(), ax.get_yscale()) for ax in axes}) == 1
    low, high = axes[0].get_ylim()
    assert axes[0].get_yscale() == "log"
    assert low < 0.5
    assert high > 15.6
    only = [(a, replace(c, rows=tuple(r for r in c.rows if r.claimed))) for a, c in pairs()]
    assert draw_certificate_panels(only)[0].get_ylim()[1] > 2


def test_groups_run_from_invariant_to_fakeable_in_their_colours():
    axes = draw_certificate_panels(pairs())
    words = [t for ax in axes[0].get_figure().axes for t in ax.texts if t.get_fontweight() == "bold"]
    assert [t.get_text() for t in words] == [
        "Invariant, as claimed",
        "Neuron-wise rescaling can change these",
        "Both rescalings can change these",
    ]
    warning, calm = STYLES["fakeable"]["color"], STYLES["invariant"]["color"]
    assert [t.get_color() for t in words] == [calm, warning, warning]
    flat = [line(axes, "relative_flatness", s).get_color() for s in ("layer", "node")]
    assert flat == [calm, warning]
    assert line(axes, "trace", "layer").get_linestyle() != line(axes, "trace", "node").get_linestyle()


def test_a_broken_claim_comes_first_and_is_black():
    axes = draw_certificate_panels(pairs("adaptive_trace"))
    assert axes[0].get_title(loc="left") == "adaptive_trace"
    assert line(axes, "adaptive_trace", "layer").get_color() == STYLES["CLAIM BROKEN"]["color"]


def test_how_far_a_line_goes_stands_in_words():
    axes = draw_certificate_panels(pairs())
    said = {name: " ".join(t.get_text() for t in panel(axes, name).texts) for name in examples.UNITS}
    assert said["trace"].startswith("layer ×16  node ×3.")
    assert said["relative_flatness"] == "node ×6"
    assert said["adaptive_trace"] == ""


def test_what_is_not_defined_or_has_no_place_is_listed_in_words():
    gone = []
    for a, c in pairs():
        rows = list(c.rows)
        rows[0] = replace(
            rows[0], before=Estimate(np.nan, reason="no"), after=Estimate(np.nan, reason="no"), verdict="not defined"
        )
        rows[1] = replace(rows[1], after=Estimate(-1.0))
        gone.append((a, replace(c, rows=tuple(rows))))
    names = {ax.get_title(loc="left") for ax in draw_certificate_panels(gone)}
    assert not {"lambda_max", "lambda_min"} & names
    assert left_out(gone) == ["not defined for this network: lambda_max", "no positive ratio: lambda_min"]
    footer = figure_certificate(gone).get_supxlabel().replace("\n", " ")
    assert "not defined for this network: lambda_max" in footer


def test_unconverged_values_are_hollow():
    axes = draw_certificate_panels(pairs(alphas=(2.0, 10.0)))
    faces = {m.get_markerfacecolor() for m in panel(axes, "keskar").lines if m.get_marker() == "o"}
    assert "white" in faces


def test_a_single_factor_is_a_line_from_the_network_itself():
    axes = draw_certificate_panels(pairs(alphas=(5.0,)))
    np.testing.assert_allclose(line(axes, "trace", "layer").get_xydata(), [[1, 1], [5, 15.64]])


def test_few_measures_of_one_symmetry_share_one_pair_of_axes_and_others_do_not():
    one = [(a, examples.certificate(a)) for a in ALPHAS]
    assert len(figure_certificate(one).axes) == 1
    assert len(figure_certificate(pairs()).axes) > len(examples.UNITS)
    many = [(a, replace(c, rows=tuple(replace(r, name=f"{r.name}{i}") for i in (1, 2) for r in c.rows))) for a, c in one]
    assert len(figure_certificate(many).axes) > 2 * len(examples.UNITS)
    nothing = [(a, replace(c, rows=(replace(c.rows[0], after=Estimate(np.nan, reason="x")),))) for a, c in pairs()]
    assert len(figure_certificate(nothing).axes) == 1


@pytest.mark.parametrize("bad", [[], [(-1.0, examples.certificate(1.0))]])
def test_panels_want_positive_factors(bad):
    with pytest.raises(UsageError, match="expected certificates with positive factors"):
        draw_certificate_panels(bad)
