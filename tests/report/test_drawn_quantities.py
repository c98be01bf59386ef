"""What is drawn of each quantity: three reasons for a gap, two bands, eigenvalues with residuals and signs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
import torch
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from torch import nn

import landscape
from landscape.objective import Objective
from landscape.report import draw_interpolation, draw_measures, draw_slice, figure_slice
from landscape.report.exports.exported_variables import variables
from landscape.report.page.summary_section import summary
from landscape.report.quantities import quantity_label, states
from landscape.report.style import DIVERGING, FIELD
from landscape.results.surfaces.slice import DONE, FAILED, MISSING, NOT_FINITE

A = np.linspace(-1, 1, 21)


def line_of(quantity, values, **changes):
    """A line with one quantity."""
    return replace(examples.line(n=21), values={quantity: values}, **({"stderr": {}, "status": {}} | changes))


def plane_of(quantity, function, n=21):
    """A plane with one quantity."""
    piece = examples.plane(n, n, function=function)
    return replace(piece, values={quantity: piece.values["loss"]}, status={})


def test_the_loss_of_a_language_model_is_per_token():
    told = {"provenance": examples.PROVENANCE | {"loss_per": "token"}}
    line, plane = replace(examples.line(), **told), examples.plane(9, 9, **told)
    both = replace(line, values={name: line.values[name] for name in ("loss", "test_loss")}, status={})
    assert draw_slice(both).get_ylabel() == "loss (mean per token)"
    assert (
        next(a for a in draw_slice(plane).get_figure().axes if a.get_label() == "<colorbar>")
        .get_ylabel()
        .startswith("loss (mean per token)")
    )
    assert draw_slice(plane, view="3d").get_zlabel().startswith("loss (mean per token)")
    assert dict(variables(line).quantities[0].attributes)["long_name"] == "loss, mean per token"
    assert quantity_label("test_loss", "token") == "test loss (mean per token)"
    run = examples.sharpness()
    ours = replace(run, provenance=run.provenance | {"loss_per": "token"})
    assert [row["unit"] for row in summary([ours], ["a"])["rows"]][:1] == ["mean per token"]
    assert [row["unit"] for row in summary([ours, run], ["a", "b"])["rows"]][:1] == ["mean per sample or token"]
    assert "mean loss per token" in [ax.get_ylabel() for ax in draw_measures({"a": [ours]})]


def band(ax, gid):
    """(low, high) of a band at every point, in their order."""
    vertices = next(c for c in ax.collections if c.get_gid() == gid).get_paths()[0].vertices
    return np.array([[f(vertices[vertices[:, 0] == x, 1]) for f in (min, max)] for x in A]).T


def test_states_follow_the_status_and_the_values():
    values = np.ma.masked_array([1.0, np.nan, np.nan, np.nan, np.inf, 2.0], mask=[0, 0, 0, 0, 0, 1])
    piece = line_of("loss", values, status={"loss": np.array([DONE, MISSING, FAILED, NOT_FINITE, DONE, DONE])})
    assert states(piece, "loss").tolist() == [DONE, MISSING, FAILED, NOT_FINITE, NOT_FINITE, MISSING]


def test_three_reasons_for_a_cell_without_a_number_have_three_hatchings():
    piece = examples.plane(7, 7)
    for (i, j), status in {(0, 6): FAILED, (3, 0): MISSING, (6, 6): NOT_FINITE}.items():
        piece.status["loss"][i, j], piece.values["loss"][i, j] = status, np.nan
    ax = draw_slice(piece)
    boxes = {c.get_gid(): c for c in ax.collections if isinstance(c, PolyCollection) and c.get_hatch()}
    centres = {k: c.get_paths()[0].vertices[:4].mean(axis=0).round(9).tolist() for k, c in boxes.items()}
    assert centres == {"failed": [-1, 1], "not computed": [0, -1], "not finite": [1, 1]}
    assert len({c.get_hatch() for c in boxes.values()}) == 3
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["checkpoint", "1 of 49 not finite", "1 of 49 failed", "1 of 49 not computed"]
    deep = draw_slice(piece, view="3d").get_legend().get_texts()[-1].get_text()
    assert deep == "1 of 49 points not finite, 1 of 49 points failed, 1 of 49 points not computed (left out)"


def test_three_reasons_along_a_line_have_three_marks():
    status = np.full(21, DONE)
    status[[2, 5, 9]] = FAILED, MISSING, NOT_FINITE
    ax = draw_slice(line_of("loss", np.where(status == DONE, 1 + A**2, np.nan), status={"loss": status}))
    marks = {line.get_gid(): line for line in ax.lines if line.get_gid() in ("failed", "not computed", "not finite")}
    assert {k: m.get_xdata().tolist() for k, m in marks.items()} == {
        "failed": [A[2]],
        "not computed": [A[5]],
        "not finite": [A[9]],
    }
    assert len({m.get_marker() for m in marks.values()}) == 3


def test_the_darker_band_is_that_of_the_difference_to_the_checkpoint():
    paired = 0.1 * np.abs(A)
    piece = line_of("loss", 2 + A**2, stderr={"loss": np.full(21, 0.2)}, paired={"loss": paired})
    ax = draw_slice(piece)
    np.testing.assert_allclose(band(ax, "paired loss"), [2 + A**2 - 1.96 * paired, 2 + A**2 + 1.96 * paired])
    np.testing.assert_allclose(band(ax, "band loss"), [2 + A**2 - 0.392, 2 + A**2 + 0.392])
    light, dark = (next(c for c in ax.collections if c.get_gid() == gid) for gid in ("band loss", "paired loss"))
    assert dark.get_alpha() > light.get_alpha()
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["loss", "checkpoint", "95 % over samples", "95 % of the difference to the checkpoint"]
    assert "bands: 95 %" not in figure_slice(piece).get_supxlabel()


def test_accuracys_bands_are_in_percent_and_a_single_band_is_explained_in_the_legend():
    piece = line_of("accuracy", 0.5 + 0.2 * A, stderr={"accuracy": np.full(21, 0.01)})
    ax = draw_slice(piece, quantity="accuracy")
    np.testing.assert_allclose(band(ax, "band accuracy")[1], 50 + 20 * A + 1.96)
    assert "95 % over samples" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_a_path_between_minima_shows_the_difference_to_its_start():
    piece = examples.interpolation()
    ax = draw_interpolation(replace(piece, paired={"loss": np.full(41, 0.01)}))[0]
    assert any(c.get_gid() == "paired loss" for c in ax.collections)
    assert "95 % of the difference to the start" in [t.get_text() for t in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("quantity", "label"),
    [
        ("lambda_max", "lambda_max (loss / weight²)"),
        ("lambda_min", "lambda_min (loss / weight²)"),
        ("lambda_ratio", "|lambda_min / lambda_max|"),
        ("test_loss", "test loss (mean per sample)"),
        ("test_accuracy", "test accuracy (%)"),
        ("own_$x$", r"own_\$x\$"),
    ],
)
def test_labels_name_quantity_and_unit(quantity, label):
    assert quantity_label(quantity) == label
    assert draw_slice(line_of(quantity, 0.5 + A**2 / 4), quantity=quantity).get_ylabel() == label


def test_residuals_are_bars_where_they_can_be_seen():
    seen = line_of("lambda_max", 3 + A, stderr={"lambda_max": np.full(21, 0.1)})
    ax = draw_slice(seen, quantity="lambda_max")
    bars = next(c for c in ax.collections if c.get_gid() == "residual lambda_max").get_segments()
    np.testing.assert_allclose([s[:, 1] for s in bars], np.stack([2.9 + A, 3.1 + A], axis=1))
    assert "residual ‖Hv − λv‖" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert not any((c.get_gid() or "").startswith("band") for c in ax.collections)
    tiny = draw_slice(replace(seen, stderr={"lambda_max": np.full(21, 1e-6)}), quantity="lambda_max")
    assert not tiny.collections


def test_signed_eigenvalues_stay_linear_and_show_zero():
    ax = draw_slice(line_of("lambda_min", 1000 * A**3 + 1), quantity="lambda_min")
    assert ax.get_yscale() == "linear"
    assert any(line.get_gid() == "zero" for line in ax.lines)
    assert draw_slice(line_of("lambda_max", np.exp(6 * A)), quantity="lambda_max").get_yscale() == "log"


@pytest.mark.parametrize("view", ["contour", "3d"])
def test_signed_maps_diverge_from_zero(view):
    ax = draw_slice(plane_of("lambda_min", lambda u, v: 0.3 * u - 0.8 * v**2), quantity="lambda_min", view=view)
    field = next(c for c in ax.collections if c.get_cmap().name == DIVERGING)
    assert field.norm.vmin == -field.norm.vmax
    assert type(field.norm) is Normalize
    zero = next(c for c in ax.collections if c.get_gid() == "zero")
    assert zero is not None


def test_the_zero_line_runs_where_the_eigenvalue_is_zero():
    ax = draw_slice(plane_of("lambda_min", lambda u, v: 0.3 * u - 0.8 * v), quantity="lambda_min")
    zero = next(c for c in ax.collections if c.get_gid() == "zero").get_paths()[0].vertices
    assert len(zero) > 5
    np.testing.assert_allclose(0.3 * zero[:, 0], 0.8 * zero[:, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("quantity", "function"),
    [
        ("lambda_min", lambda u, v: -1 - u**2 - v**2),
        ("loss", lambda u, v: u + v),
        ("lambda_ratio", lambda u, v: 0.1 + u**2 + 0 * v),
    ],
)
def test_one_sign_or_no_meaning_of_zero_keeps_the_even_map(quantity, function):
    ax = draw_slice(plane_of(quantity, function), quantity=quantity)
    assert {c.get_cmap().name for c in ax.collections if getattr(c, "filled", False)} == {FIELD}
    assert not any(c.get_gid() == "zero" for c in ax.collections)


def test_ratio_maps_take_a_log_scale_where_the_range_asks():
    ax = draw_slice(plane_of("lambda_ratio", lambda u, v: 10.0 ** (2 * u + v - 3)), quantity="lambda_ratio")
    bar = next(a for a in ax.get_figure().axes if a is not ax)
    assert bar.get_ylabel() == "|lambda_min / lambda_max|, log scale"
    assert any(isinstance(c.norm, LogNorm) for c in ax.collections)
    title = figure_slice(plane_of("lambda_ratio", lambda u, v: 1 + u * v), quantity="lambda_ratio").get_suptitle()
    assert title == "Loss surface around clean-b16: |lambda_min / lambda_max|"


def test_the_treatment_of_batchnorm_stands_in_the_footer():
    piece = examples.plane(5, 5, provenance=examples.PROVENANCE | {"batchnorm": "recalibrate"})
    assert "BatchNorm: recalibrate" in figure_slice(piece).get_supxlabel()


@pytest.mark.parametrize(
    ("output", "target", "per"),
    [
        ((4, 3), torch.tensor([0, 1, 2, 0]), {}),
        ((4, 3, 5), torch.arange(20).reshape(4, 5) % 3, {"loss_per": "token"}),
        ((4, 3, 5), torch.softmax(torch.arange(60.0).reshape(4, 3, 5), 1), {"loss_per": "token"}),
        ((4, 3, 2, 5), torch.arange(40).reshape(4, 2, 5) % 3, {"loss_per": "pixel"}),
    ],
)
def test_a_loss_of_several_classes_a_sample_is_a_mean_over_their_places(output, target, per):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, math.prod(output[1:]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).reshape(-1, *output[1:])

    torch.manual_seed(0)
    x, net = torch.randn(4, 2), Net()
    objective = Objective(net, nn.CrossEntropyLoss(), (x, target))
    assert objective.counted == per
    piece = landscape.line(objective, grid=5)
    assert piece.provenance.get("loss_per") == per.get("loss_per")
    assert f"mean per {per.get('loss_per', 'sample')}" in draw_slice(piece).get_ylabel()
    assert Objective(net, lambda a, b: nn.functional.cross_entropy(a, b), (x, target)).counted == {}, "it may be anything"
