"""Captions: what is drawn, on what, how it was checked; and figures for a paper, which have none."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
from test_drawn_comparisons import compared
from test_drawn_minima import valleys
from test_figure_files import visible_texts

from landscape.report import (
    figure_breakdown,
    figure_certificate,
    figure_correlations,
    figure_density,
    figure_effects,
    figure_eigenvalues,
    figure_history,
    figure_interpolation,
    figure_measures,
    figure_merge_tree,
    figure_separation,
    figure_slice,
    write_report,
)
from landscape.report.page.surface_section import slice_entry
from landscape.results import UNCONVERGED, Block, Derivatives, Estimate, NormRatios, Slice

SUBJECT = "final.pt · digits-mlp, train split · 1,347 samples"
WRONG_HESSIAN = "curvatures of the surface differ from those of the Hessian (or a kink lies in the weights themselves)"
# The parts of a derivative's check that hold.
RIGHT = {"loss": 0.012, "slope_error": 1e-9}


def caption(figure):
    """The paragraphs under a figure, each in one line again."""
    return figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "checked: axes, norm, centre, slopes, curvature"),
        (
            {"centre_is_exact": False},
            "FAILED: the centre differs from the checkpoint's loss; checked: axes, norm, slopes, curvature",
        ),
        ({"centre_is_exact": None}, "checked: axes, norm, slopes, curvature; NOT CHECKED: centre (0 is not on the grid)"),
        (
            {"recomputed": 0.5},
            "FAILED: values on the grid differ from those computed anew; checked: norm, centre, slopes, curvature",
        ),
        (
            {"recomputed": float("nan")},
            "FAILED: values on the grid differ from those computed anew; checked: norm, centre, slopes, curvature",
        ),
        ({"recomputed": None}, "checked: norm, centre, slopes, curvature; NOT CHECKED: axes (no value computed anew)"),
        (
            {"norm_ratio": (NormRatios("filter", 1.0, 1.0, 26), NormRatios("filter", 0.5, 1.0, 26, still=2))},
            "FAILED: axis 2 is not filter-normalized, axis 2: 2 of 26 filters that should move do not; "
            "checked: axes, norm of axis 1, centre, slopes, curvature",
        ),
        (
            {"norm_ratio": (NormRatios("filter", 1.0, 1.0, 26), NormRatios("filter", 0.9, 1.1, 26, orthogonalized=True))},
            "checked: axes, norm of axis 1, centre, slopes, curvature; NOT CHECKED: norm of axis 2 (orthogonalized)",
        ),
        ({"norm_ratio": (None, None)}, "checked: axes, centre, slopes, curvature"),
        (
            {"derivatives": Derivatives({"11": 8.0}, {"11": 16.0}, **RIGHT)},
            f"FAILED: {WRONG_HESSIAN}; checked: axes, norm, centre, slopes",
        ),
        (
            {"derivatives": Derivatives({"11": 8.0}, {"11": 8.0}, loss=0.012, slope_error=0.5)},
            "FAILED: slopes of the surface differ from its gradients; checked: axes, norm, centre, curvature",
        ),
        (
            {"derivatives": Derivatives({"11": 8.0}, {"11": 8.0}, loss=0.012)},
            "checked: axes, norm, centre, curvature; NOT CHECKED: slopes (no finite number)",
        ),
        (
            {"derivatives": Derivatives(reason="could not be made: NotImplementedError: no derivative of mish")},
            "checked: axes, norm, centre; NOT CHECKED: slopes and curvature (could not be made)",
        ),
        (
            {"derivatives": Derivatives({"11": 1e-9}, {"11": 2e-9}, resolution=1.0, **RIGHT)},
            "checked: axes, norm, centre, slopes; NOT CHECKED: curvature (too small to tell from rounding)",
        ),
        (
            {"centre_is_exact": False, "derivatives": Derivatives(reason="could not be made: why"), "recomputed": None},
            "FAILED: the centre differs from the checkpoint's loss; checked: norm; "
            "NOT CHECKED: axes (no value computed anew), slopes and curvature (could not be made)",
        ),
    ],
)
def test_a_caption_ends_with_the_check_in_one_line(changes, line):
    """What failed, what held and what was not checked; and the same says `passed`."""
    piece = examples.plane(9, 9)
    piece = replace(piece, check=replace(piece.check, **changes))
    assert caption(figure_slice(piece)) == f"{SUBJECT} {line}"
    assert piece.check.passed is ("FAILED" not in line)
    assert all(problem in line for problem in piece.check.problems)
    assert sum(text.startswith("WRONG: ") for text in piece.check.lines()) == len(piece.check.problems)
    assert figure_merge_tree(replace(valleys(), check=piece.check)).get_supxlabel().replace("\n", " ").endswith(line)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "checked: start, end, path, slopes, curvature"),
        (
            {"exact": (True, False)},
            "FAILED: the end of the path differs from its checkpoint's loss; checked: start, path, slopes, curvature",
        ),
        (
            {"exact": (None, True)},
            "checked: end, path, slopes, curvature; NOT CHECKED: start (not among the values of the path)",
        ),
        (
            {"recomputed": 0.1},
            "FAILED: values on the path differ from those computed anew; checked: start, end, slopes, curvature",
        ),
        ({"recomputed": None}, "checked: start, end, slopes, curvature; NOT CHECKED: path (no value computed anew)"),
    ],
)
def test_the_check_of_a_path_in_one_line(changes, line):
    piece = examples.interpolation()
    piece = replace(piece, check=replace(piece.check, **changes))
    assert caption(figure_interpolation(piece)) == f"±: 95 % over samples {SUBJECT} {line}"
    assert piece.check.passed is ("FAILED" not in line)


def test_an_unfinished_slice_says_that_nothing_was_checked():
    assert caption(figure_slice(examples.plane(9, 9, check=None))) == f"{SUBJECT} NOT CHECKED: unfinished"


def test_points_that_did_not_converge_and_slanting_axes_stay_named():
    piece = examples.plane(9, 9)
    status = np.full((9, 9), 1, np.int8)
    status[0, :3] = UNCONVERGED
    piece = replace(piece, status={"loss": status}, check=replace(piece.check, cosine=-0.4))
    said = caption(figure_slice(piece))
    assert said.startswith(f"axes not orthogonal: cosine −0.4; 3 of 81 points NOT converged: see the residuals {SUBJECT}")
    pairs = examples.eigenpairs()
    assert caption(figure_eigenvalues(pairs)) == "1 of 8 NOT converged; checked: residuals"
    assert caption(figure_eigenvalues(replace(pairs, converged=np.ones(8, bool)))) == "checked: residuals, all converged"


def test_barriers_that_no_panel_shows_and_that_are_not_known_stay_named():
    piece = examples.interpolation()
    barriers = piece.barriers | {
        "accuracy": replace(piece.barriers["accuracy"], height=np.nan, reason="2 of 41 points failed"),
        "test_loss": replace(piece.barriers["test_loss"], height=np.inf),
    }
    said = caption(figure_interpolation(replace(piece, barriers=barriers)))
    words = "test loss: barrier infinite, at 0.6; accuracy: barrier unknown: 2 of 41 points failed; ±: 95 % over samples"
    assert said.startswith(words)


def test_another_function_is_no_certificate():
    good = examples.certificate(5.0)
    bad = replace(good, same_function=False, max_delta_logit=3.0)
    assert "checked: the same function: max |Δlogit| = 3.20e-14" in caption(figure_certificate([(5.0, good)]))
    assert "FAILED: NOT THE SAME FUNCTION: max |Δlogit| = 3.00e+00" in caption(figure_certificate([(1.0, good), (5.0, bad)]))


def test_the_page_has_the_whole_check_and_the_whole_origin():
    piece = examples.plane(9, 9)
    entry = slice_entry(piece)
    assert entry["check"]["lines"] == piece.check.lines()
    assert any("equal to the bit" in text for text in entry["check"]["lines"])
    assert entry["facts"][-1] == f"{SUBJECT} · seed 0 · float32 · cpu · landscape 0.1.0 · torch 2.13.0"


def test_what_groups_have_in_common():
    assert caption(figure_measures(examples.groups())) == "12 checkpoints · digits-mlp, train split · 1,347 samples"
    assert caption(figure_measures({"final": [examples.sharpness()]}, measures=["trace"])) == SUBJECT


def test_the_legend_of_measures_names_the_marks_that_occur():
    def names(*arguments, **options):
        (above,) = [ax for ax in figure_measures(*arguments, **options).axes if not ax.axison]
        return [t.get_text().replace("\n", " ") for t in above.get_legend().get_texts()]

    wide = "sampling error: 95 %, or one standard deviation of a maximum"
    assert names({"final": [examples.sharpness()]}, measures=["trace"]) == ["error of the method: 95 %", wide]
    assert names({"final": [examples.sharpness()]}, measures=["keskar_subspace"]) == ["lower bound", "NOT converged"]
    assert names(compared(2).groups, comparison=compared(2)) == [
        "error of the method: 95 %",
        wide,
        "median of a group of 3 or more",
        "95 % bootstrap interval of the median",
        "lower bound",
        "NOT converged",
    ]


LAYERS = [Block(f"fc{i}", None, 30, Estimate(3.0, 0.1, "t", 9), Estimate(2.0, 0.1, "residual", 9)) for i in (1, 2)]
BOTH = [(a, replace(examples.certificate(a), symmetry=s)) for a in (2.0, 5.0) for s in ("layer", "node")]
# Every kind of figure, made with or without its caption.
FIGURES = {
    "density": lambda **c: figure_density(examples.density("log"), eigenpairs=examples.eigenpairs(), **c),
    "eigenvalues": lambda **c: figure_eigenvalues(examples.eigenpairs("both", 4), **c),
    "breakdown": lambda **c: figure_breakdown(LAYERS, **c),
    "line": lambda **c: figure_slice(examples.line(), **c),
    "contour": lambda **c: figure_slice(examples.plane(9, 9), **c),
    "3d": lambda **c: figure_slice(examples.plane(9, 9), view="3d", **c),
    "minima": lambda **c: figure_merge_tree(valleys(), **c),
    "interpolation": lambda **c: figure_interpolation(examples.interpolation(), ends=("small", "large"), **c),
    "certificate": lambda **c: figure_certificate([(a, examples.certificate(a)) for a in (0.2, 5.0)], **c),
    "certificate panels": lambda **c: figure_certificate(BOTH, **c),
    "measures": lambda **c: figure_measures(examples.groups(), **c),
    "effects": lambda **c: figure_effects(compared(2), **c),
    "correlations": lambda **c: figure_correlations(compared(3), **c),
    "history": lambda **c: figure_history(examples.history(), **c),
}


def drawn(figure):
    """Data, limits, labels and legends of every axes."""
    out = []
    for ax in figure.axes:
        legend = ax.get_legend()
        out.append((ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left"), ax.get_xlim(), ax.get_ylim()))
        out.append([t.get_text() for t in (legend.get_texts() if legend else [])] + [t.get_text() for t in ax.texts])
        out += [np.asarray(line.get_data(), float).tolist() for line in ax.lines]
        out += [[p.vertices.tolist() for p in c.get_paths()] for c in ax.collections if ax.name != "3d"]
    return repr(out)  # nan equals nan


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_for_a_paper_has_the_same_data_and_no_words_around_them(name):
    full, bare = FIGURES[name](), FIGURES[name](caption=False)
    assert full.get_suptitle()
    assert (bare.get_suptitle(), bare.get_supxlabel()) == ("", "")
    assert drawn(bare) == drawn(full)
    width, height = bare.get_size_inches()
    assert width == full.get_size_inches()[0]
    assert height < full.get_size_inches()[1]
    bare.dpi = 180
    bare.draw_without_rendering()
    for text, box in visible_texts(bare):
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= bare.bbox.x1 + 1, text
        assert box.y1 <= bare.bbox.y1 + 1, text


def test_plot_gives_bare_axes_unless_a_caption_is_asked_for():
    for result in (examples.plane(9, 9), examples.line(), examples.density(), examples.eigenpairs()):
        bare, full = (result.plot(caption=wanted).get_figure() for wanted in (False, True))
        assert result.plot().get_figure().get_suptitle() == bare.get_suptitle() == bare.get_supxlabel() == ""
        assert full.get_suptitle()
        assert full.get_supxlabel() or not isinstance(result, Slice)


def test_a_page_of_clean_pictures_has_the_same_words(tmp_path):
    pages = []
    for name, captions in (("full", True), ("clean", False)):
        page = write_report(tmp_path / f"{name}.html", title="t", slices=[examples.line()], captions=captions).read_text()
        start, end = page.index("data:image"), page.index('"', page.index("data:image"))
        pages.append((page[:start], page[start:end]))
    assert pages[0][0] == pages[1][0]
    assert pages[0][1] != pages[1][1]


def test_the_ends_of_a_path_have_their_names_in_check_caption_and_page():
    piece = examples.interpolation()
    named = replace(piece, provenance={**piece.provenance, "ends": ["small", "large"]})
    line = "checked: small, large, path, slopes, curvature"
    assert caption(figure_interpolation(named)).endswith(line)
    assert caption(figure_interpolation(piece, ends=("small", "large"))).endswith(line)
    lost = replace(named, check=replace(named.check, exact=(True, False)))
    entry = slice_entry(lost)["check"]
    assert entry["lines"][1].startswith("large: checkpoint's loss ")
    assert entry["words"] == "large, the end of the path, differs from its checkpoint's loss"
    assert not [text for text in entry["lines"] if "start" in text]
    twice = replace(piece, provenance={"ends": ["final", "final"]})
    assert caption(figure_interpolation(twice)).endswith("checked: final (start), final (end), path, slopes, curvature")


def test_a_figure_of_test_values_quotes_no_check_of_the_training_loss():
    piece = examples.plane(9, 9)
    piece = replace(piece, values={**piece.values, "test_loss": 2 * piece.values["loss"]})
    train, test = (figure_slice(piece, quantity=q).get_supxlabel() for q in ("loss", "test_loss"))
    assert "checked: " in train
    assert "checked: " not in test
    assert "test values" in test


def test_blocks_are_counted_and_shaded_only_where_filters_are_spread():
    one, filters = LAYERS[:1], [replace(LAYERS[0], filter=i) for i in range(1)]
    assert caption(figure_breakdown(one)) == "1 layer; all eigenvalues converged"
    assert caption(figure_breakdown(LAYERS, filters)).startswith("2 layers, 1 filter;")
    assert [len(ax.patches) for ax in figure_breakdown(LAYERS).axes] == [0, 0]
    assert [len(ax.patches) for ax in figure_breakdown(LAYERS, filters).axes] == [0, 2]


def test_the_lower_axis_of_the_blocks_starts_at_zero():
    blocks = [
        Block(f"l{i}", None, 9, Estimate(5.0 + i, 0.1, "t", 8), Estimate(2.0 + 0.3 * i, 1e-3, "residual", 8)) for i in range(4)
    ]
    for ax in figure_breakdown(blocks).axes:
        assert ax.get_ylim()[0] <= 0


@pytest.mark.parametrize("runs", [6, 3])
def test_bars_are_announced_where_they_are_drawn(runs):
    comparison = compared(3, runs)
    for figure in (figure_effects(comparison), figure_correlations(comparison), figure_separation(comparison)):
        drawn = any(str(line.get_gid()).startswith("interval") for ax in figure.axes for line in ax.lines)
        assert ("bars: 95 %" in figure.get_supxlabel()) is drawn
