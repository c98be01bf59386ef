"""The check of a path between two networks: what it must pass, and what it must find."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_loss
from torch import nn

from landscape.objective import Objective
from landscape.report import figure_interpolation
from landscape.results import PathCheck, Slice
from landscape.surfaces import Curve, interpolation
from landscape.surfaces.checks.check_path import check_path

POLICIES = ("eval", "recalibrate", "interpolate")


def pair(index: int = 3, dtype: str = "float64") -> tuple[Objective, Objective]:
    """Two networks of one architecture on one data set."""
    model, loss, x, y = CASES[index].make(0)
    return tuple(Objective(m, loss, (x, y), dtype=dtype) for m in (model, CASES[index].make(5)[0]))


def curve_between(start: Objective, end: Objective, kind: str | None, bends: int = 2) -> Curve | None:
    """Bends off the straight line."""
    if kind is None:
        return None
    g = torch.Generator().manual_seed(0)
    between = [torch.lerp(start.theta, end.theta, i / (bends + 1)) for i in range(bends + 2)]
    noise = 0.1 * torch.randn(bends, start.dim, generator=g, dtype=torch.float64).to(start.theta)
    return Curve(kind, torch.stack([between[0], *(torch.stack(between[1:-1]) + noise), between[-1]]))


@pytest.mark.parametrize("kind", [None, "bezier", "polygon"])
@pytest.mark.parametrize("batchnorm", POLICIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_path_carries_its_check(kind, batchnorm, dtype):
    start, end = pair(dtype=dtype)
    found = interpolation(start, end, grid=7, batchnorm=batchnorm, curve=curve_between(start, end, kind))
    check = found.check
    assert check.passed, check.lines()
    assert check.exact == (True, True)
    own = start.value().value, end.value().value
    if batchnorm == "recalibrate":
        assert check.ends == tuple(o.evaluate(o.theta, o.recalibrated()).loss.value for o in (start, end))
        assert check.own_ends == own != check.ends
        for text, here, there in zip(check.lines(), check.ends, own, strict=False):
            assert f"checkpoint's loss {here:.6g} under re-estimated statistics (as stored: {there:.6g})" in text
    else:
        assert (check.ends, check.own_ends) == (own, None)
    assert 0 <= check.recomputed < 1e-4
    assert set(check.derivatives.values) == {"11"}
    assert bool(check.derivatives.products) is (batchnorm != "interpolate")
    told = " ".join(check.lines())
    assert ("not compared with products: the statistics vary along the path" in told) is (batchnorm == "interpolate")
    assert "start: checkpoint's loss" in told
    assert Slice.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))).check == check
    footer = figure_interpolation(found).get_supxlabel().replace("\n", " ")
    assert "path: values computed anew differ by" in told
    held = "checked: start, end, path, slopes, curvature"
    moving = "checked: start, end, path; NOT CHECKED: slopes and curvature (the statistics vary along the path)"
    assert footer.endswith(moving if batchnorm == "interpolate" else held)


@pytest.mark.parametrize("kind", [None, "bezier", "polygon"])
@pytest.mark.parametrize("index", [0, 5], ids=["mlp", "attention"])
def test_its_second_derivative_is_that_of_the_loss_along_the_path(index, kind):
    """By differentiating twice through t, with the weights from Bernstein's polynomials, or on a side of the polygon."""
    start, end = pair(index)
    curve = curve_between(start, end, kind)
    check = interpolation(start, end, grid=5, curve=curve).check
    function, _ = dense_loss(*CASES[index].make(0))
    t = torch.tensor(check.place, dtype=torch.float64, requires_grad=True)
    if kind == "bezier":
        w = curve.control
        weights = (1 - t) ** 3 * w[0] + 3 * t * (1 - t) ** 2 * w[1] + 3 * t**2 * (1 - t) * w[2] + t**3 * w[3]
    elif kind == "polygon":
        side = int(3 * check.place)
        weights = curve.control[side] + (3 * t - side) * (curve.control[side + 1] - curve.control[side])
        assert 3 * check.place - side == pytest.approx(0.5)
    else:
        weights = start.theta + t * (end.theta - start.theta)
    (first,) = torch.autograd.grad(function(weights), t, create_graph=True)
    (second,) = torch.autograd.grad(first, t)
    assert check.derivatives.products["11"] == pytest.approx(float(second), rel=1e-8)
    assert check.derivatives.second["11"] == pytest.approx(float(second), rel=0.02)
    assert check.passed


WRONG = {
    "the start": (lambda z: np.concatenate([[z[0] * (1 + 1e-15) + 1e-15], z[1:]]), "the start of the path differs"),
    "the end": (lambda z: np.concatenate([z[:-1], [z[-1] * (1 + 1e-15) + 1e-15]]), "the end of the path differs"),
    "inside, back to front": (lambda z: np.concatenate([z[:1], z[-2:0:-1], z[-1:]]), "values on the path differ"),
    "inside, one further": (lambda z: np.concatenate([z[:1], np.roll(z[1:-1], 1), z[-1:]]), "values on the path differ"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("grid", [4, 5, 8, 31])
def test_the_check_finds_wrong_values(wrong, grid):
    start, end = pair(0)
    change, words = WRONG[wrong]
    piece = interpolation(start, end, grid=grid)
    assert check_path(start, end, None, piece, "recalibrate").passed
    check = check_path(start, end, None, replace(piece, values={"loss": change(piece.values["loss"])}), "recalibrate")
    assert len(check.problems) == 1
    assert check.problems[0].startswith(words)
    assert any(text.startswith("WRONG: ") for text in check.lines())


@pytest.mark.parametrize("drawn", POLICIES)
def test_the_check_finds_other_statistics_and_another_curve(drawn):
    start, end = pair()
    curve, other = (curve_between(start, end, kind) for kind in ("bezier", "polygon"))
    piece = interpolation(start, end, grid=5, batchnorm=drawn, curve=curve)
    for said in POLICIES:
        assert check_path(start, end, curve, piece, said).passed is (said == drawn)
    assert not check_path(start, end, other, piece, drawn).passed
    assert not check_path(start, end, None, piece, drawn).passed


@pytest.mark.parametrize("kind", [None, "bezier"])
def test_the_check_finds_a_wrong_hessian_and_a_wrong_gradient(monkeypatch, kind):
    start, end = pair(1)
    curve = curve_between(start, end, kind)
    assert interpolation(start, end, grid=3, curve=curve).check.passed
    gradient, hvp = Objective.gradient, Objective.hvp
    monkeypatch.setattr(Objective, "hvp", lambda self, v: 2 * hvp(self, v))
    (problem,) = interpolation(start, end, grid=3, curve=curve).check.problems
    assert problem.startswith("curvatures of the surface differ from those of the Hessian")
    monkeypatch.setattr(Objective, "gradient", lambda self, theta=None: 2 * gradient(self, theta))
    assert interpolation(start, end, grid=3, curve=curve).check.problems == ["slopes of the surface differ from its gradients"]


def test_what_cannot_be_had_is_said():
    start, end = pair(0)
    short = interpolation(start, end, span=(0.2, 0.6), grid=4).check
    assert short.exact == (None, None)
    assert 0.2 < short.place < 0.6
    assert short.passed
    assert "end: checkpoint's loss" in short.lines()[1]
    assert short.lines()[1].endswith("not among the values of the path")
    far = end.at(torch.full_like(end.theta, 1e200))
    lost = interpolation(start, far, grid=3).check
    assert lost.derivatives.reason
    assert lost.exact == (True, True), "an end that is not finite is the same on both sides"
    assert lost.passed
    assert PathCheck.from_json(json.loads(json.dumps(lost.to_json(), allow_nan=False))).lines() == lost.lines()


def test_a_line_beyond_its_ends_and_two_points_only():
    start, end = pair(0)
    assert interpolation(start, end, span=(-1, 2), grid=7).check.passed
    both = interpolation(start, end, grid=2).check
    assert both.recomputed is None
    assert both.passed


@pytest.mark.parametrize("kind", [None, "bezier"])
def test_eigenvalues_along_a_path_are_those_of_the_dense_hessian(kind, tmp_path):
    start, end = pair(0)
    curve = curve_between(start, end, kind, bends=1)
    found = interpolation(start, end, grid=4, curve=curve, curvature=True, run=tmp_path)
    function, _ = dense_loss(*CASES[0].make(0))
    for k, t in enumerate(found.coordinates[0]):
        theta = torch.lerp(start.theta, end.theta, float(t)) if curve is None else curve.point(float(t))
        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(function, theta))
        assert found.values["lambda_max"][k] == pytest.approx(float(values[-1]), abs=2e-3 * float(values.abs().max()))
        assert found.values["lambda_min"][k] == pytest.approx(float(values[0]), abs=2e-3 * float(values.abs().max()))
    assert set(found.barriers) == {"loss", "accuracy"}
    again = interpolation(start, end, grid=4, curve=curve, curvature=True, run=tmp_path)
    assert again.to_json() == found.to_json()


def test_a_mean_over_other_samples_makes_no_difference_to_the_end():
    """The end's own loss is on the data of the start."""
    start, end = pair()
    model = CASES[3].make(5)[0]
    elsewhere = Objective(model, nn.CrossEntropyLoss(), CASES[3].make(7)[2:], dtype="float64")
    assert interpolation(start, elsewhere, grid=3).check == interpolation(start, end, grid=3).check


@pytest.mark.parametrize("batchnorm", POLICIES)
def test_other_buffers_move_with_the_place_under_every_policy(batchnorm):
    """InstanceNorm's statistics are interpolated whatever is done with BatchNorm's, and products would hold them."""

    def made(seed: int) -> Objective:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            norms = nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3)
            net = nn.Sequential(nn.Conv2d(1, 3, 2), *norms, nn.Flatten(), nn.Linear(12, 4))
            norms[0].running_mean.uniform_(-1, 1), norms[1].running_mean.uniform_(-1, 1)
        x = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        return Objective(net.eval(), nn.CrossEntropyLoss(), (x, torch.arange(6) % 4), dtype="float64")

    check = interpolation(made(0), made(1), grid=5, batchnorm=batchnorm).check
    assert check.passed, check.lines()
    assert check.recomputed < 1e-12
    assert check.derivatives.reason.startswith("the statistics vary along the path")
