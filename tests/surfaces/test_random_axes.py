"""Random axes: the curvature that is expected along them, and the saddle that they hide."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from landscape.objective import Objective
from landscape.report import figure_slice
from landscape.report.page.surface_section import slice_entry
from landscape.results import RandomAxes, SliceCheck
from landscape.spectra import eigenpairs
from landscape.surfaces import (
    Direction,
    eigenvector_directions,
    forecast_surface,
    interpolation,
    line,
    orthogonal_to,
    plane,
    random_direction,
    store_directions,
    stored_directions,
)
from landscape.surfaces.axes.directions import mean_squares
from landscape.surfaces.checks.check_random_axes import check_random_axes, random_samples
from landscape.tasks.networks import build

KINDS = [
    ("none", ()),
    ("none", ("bias", "norm")),
    ("layer", ()),
    ("layer", ("bias",)),
    ("filter", ("bias", "norm")),
    ("filter", ()),
]


class Quadratic(nn.Module):
    """Half the sum of h_i (w_i - 1)^2, at its critical point w = 1."""

    def __init__(self, h):
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(h), 1))
        self.register_buffer("h", torch.as_tensor(h, dtype=torch.float32))

    def forward(self, x):
        return x + (self.h[:, None] * (self.w - 1) ** 2).sum() / 2


def quadratic(h, dtype="float64"):
    return Objective(Quadratic(h), lambda out, target: out.mean(), (torch.zeros(4, 1), torch.zeros(4, 1)), dtype=dtype)


def perceptron(seed=0):
    """A small network with biases and a LayerNorm, and its dense Hessian, by double backward with PyTorch's own operations."""
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(20, 3, generator=g, dtype=torch.float64), torch.randint(2, (20,), generator=g)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
    shapes = {n: p.shape for n, p in net.named_parameters()}

    def loss(flat):
        parts = flat.split([s.numel() for s in shapes.values()])
        state = {n: part.view(s) for (n, s), part in zip(shapes.items(), parts, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(net, state, (x,)), y)

    theta = torch.cat([p.detach().flatten() for p in net.parameters()])
    return (
        Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64"),
        torch.autograd.functional.hessian(loss, theta).numpy(),
        net,
    )


def variances(net, norm, fixed):
    """E d_i^2 by hand, parameter by parameter: ||w_g||^2 / n_g for every row of a matrix, or for a whole tensor."""
    out = []
    for module in net.modules():
        for kind, p in module.named_parameters(recurse=False):
            is_fixed = ("norm" if isinstance(module, nn.LayerNorm) else "bias" if kind == "bias" else "weight") in fixed
            square = p.detach() ** 2
            if norm == "none":
                each = torch.ones_like(square)
            elif norm == "filter" and square.ndim == 2:
                each = square.mean(1, keepdim=True).expand_as(square)
            else:
                each = square.mean().expand_as(square)
            out.append((each * (not is_fixed)).flatten().numpy())
    return np.concatenate(out)


@pytest.mark.parametrize(("norm", "fixed"), KINDS)
def test_the_expected_curvature_is_that_of_many_axes(norm, fixed):
    """The mean of d^T H d over 2,000 axes is sum_i E d_i^2 H_ii, with E d_i^2 by hand; the scatter is below its bound."""
    objective, hessian, net = perceptron()
    weights = variances(net, norm, fixed)
    assert mean_squares(objective, norm, fixed).numpy() == pytest.approx(weights, rel=1e-12)
    axes = np.stack([random_direction(objective, seed=s, norm=norm, zero=fixed).vector.numpy() for s in range(2000)])
    curvatures = ((axes @ hessian) * axes).sum(1)
    truth = weights @ hessian.diagonal()
    assert abs(curvatures.mean() - truth) < 4 * curvatures.std() / 2000**0.5
    scaled = np.sqrt(weights)[:, None] * hessian * np.sqrt(weights)
    assert curvatures.std() < 1.15 * 2**0.5 * np.linalg.norm(scaled)


@pytest.mark.parametrize(("norm", "fixed"), KINDS)
def test_measured_expected_and_eigenvalues_are_those_of_the_dense_hessian(norm, fixed):
    objective, hessian, net = perceptron(1)
    axes = tuple(random_direction(objective, seed=s, norm=norm, zero=fixed) for s in (5, 6))
    found = check_random_axes(objective, axes)
    d, values, weights = np.stack([a.vector.numpy() for a in axes]), np.linalg.eigvalsh(hessian), variances(net, norm, fixed)
    for i, (number, axis) in enumerate(found.axes.items()):
        assert number == f"{i + 1}"
        assert axis.measured == pytest.approx(d[i] @ hessian @ d[i], rel=1e-9)
        assert axis.expected.n == 16
        assert abs(axis.expected.value - weights @ hessian.diagonal()) < 5 * axis.expected.stderr
        assert axis.length == pytest.approx(np.sqrt(weights.sum()))
        scaled = np.sqrt(weights)[:, None] * hessian * np.sqrt(weights)
        assert axis.scatter == pytest.approx(2**0.5 * np.linalg.norm(scaled), rel=0.5)
    assert found.lambda_min.value == pytest.approx(values[0], abs=1e-9)
    assert found.lambda_max.value == pytest.approx(values[-1], rel=1e-9)
    basis = np.linalg.qr(d.T)[0]
    assert found.lowest == pytest.approx(np.linalg.eigvalsh(basis.T @ hessian @ basis)[0], rel=1e-9)


@pytest.mark.slow
def test_the_interval_of_the_expectation_covers_the_truth():
    """tr H of random symmetric matrices: the 95 % interval of 16 probes holds it about 19 times of 20."""
    g, inside = np.random.default_rng(0), 0
    for _ in range(200):
        a = g.standard_normal((12, 12))
        matrix = torch.from_numpy(a + a.T)

        class Form(nn.Module):
            def __init__(self, matrix=matrix):
                super().__init__()
                self.w = nn.Parameter(torch.ones(12, 1, dtype=torch.float64))
                self.register_buffer("matrix", matrix)

            def forward(self, x):
                return x + self.w.T @ self.matrix @ self.w / 2

        data = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1)
        objective = Objective(Form(), lambda out, target: out.mean(), data, dtype="float64")
        axis = check_random_axes(objective, (random_direction(objective, norm="none"),)).axes["1"]
        low, high = axis.expected.interval()
        inside += low <= float(matrix.trace()) <= high
    assert 180 <= inside <= 199


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [1, 2])
def test_a_saddle_of_many_rises_and_few_falls_looks_like_a_minimum(dim, dtype):
    """400 eigenvalues of 1 and 4 of -5: tr H / P > 0, so that random axes curve upwards; the check says what they hide."""
    objective = quadratic([1.0] * 400 + [-5.0] * 4, dtype)
    found = line(objective, grid=5) if dim == 1 else plane(objective, grid=5)
    assert found.values["loss"].min() == found.values["loss"][(2,) * dim], "a minimum in the picture"
    random = found.check.random
    assert random.hidden_saddle
    assert random.lowest > 0
    assert random.lambda_min.value == pytest.approx(-5, abs=1e-3)
    assert random.lambda_max.value == pytest.approx(1, abs=1e-3)
    assert all(a.expected.value / a.length**2 == pytest.approx(380 / 404, rel=1e-5) for a in random.axes.values())
    assert sum("A SADDLE LOOKS LIKE A MINIMUM" in text for text in found.check.lines()) == 1
    assert found.check.passed, "the picture is right; it only shows little"
    assert "lambda_min −5: A SADDLE LOOKS LIKE A MINIMUM" in figure_slice(found).get_supxlabel().replace("\n", " ")
    assert "a saddle looks like a minimum" in slice_entry(found)["check"]["words"]
    assert found.to_json()["check"]["random"]["hidden_saddle"] is True


ALL_IS_WELL = {
    "a minimum": [1.0] * 300,
    "a minimum with flat directions": [1.0] * 200 + [0.0] * 100,
    "rounding below 0": [1.0] * 299 + [-1e-6],
    "a saddle that shows": [1.0] * 100 + [-1.0] * 200,
    "a maximum": [-1.0] * 300,
}


@pytest.mark.parametrize("what", ALL_IS_WELL)
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_nothing_is_alarming_where_nothing_is_hidden(what, dtype):
    found = plane(quadratic(ALL_IS_WELL[what], dtype), grid=3)
    random = found.check.random
    assert not random.hidden_saddle
    assert random.lambda_min.value == pytest.approx(min(ALL_IS_WELL[what]), abs=1e-4)
    words = [*found.check.lines(), figure_slice(found).get_supxlabel(), slice_entry(found)["check"]["words"]]
    assert not any("saddle" in text.lower() for text in words)
    assert "expected curvature" not in figure_slice(found, caption=False).get_supxlabel()


def test_an_eigenvalue_below_its_residual_proves_nothing():
    found = plane(quadratic([1.0] * 400 + [-5.0] * 4), grid=3).check.random
    loose = replace(found, lambda_min=replace(found.lambda_min, value=-0.02, stderr=0.01))
    assert not loose.hidden_saddle
    assert replace(loose, lambda_min=replace(found.lambda_min, value=-0.04, stderr=0.01)).hidden_saddle
    assert not replace(loose, lambda_min=replace(found.lambda_min, value=-5e-5, stderr=0.0)).hidden_saddle


def test_axes_that_are_not_random_are_not_compared():
    objective = quadratic(np.linspace(-1, 3, 60))
    eigenvectors = eigenvector_directions(eigenpairs(objective, 2))
    for axes in (tuple(eigenvectors), (Direction("a", objective.theta), eigenvectors[0])):
        found = plane(objective, axes, grid=3)
        assert found.check.random is None
        assert not any("random" in text or "lambda_min" in text for text in found.check.lines())
        assert "expected" not in figure_slice(found).get_supxlabel()
        assert found.to_json()["check"]["random"] is None
    mixed = plane(objective, (eigenvectors[0], random_direction(objective, seed=3)), grid=3).check.random
    assert list(mixed.axes) == ["2"]
    assert plane(objective, grid=3, random_check=False).check.random is None


def test_two_kinds_of_random_axes_have_two_expectations():
    objective, hessian, net = perceptron(2)
    axes = random_direction(objective, norm="filter"), random_direction(objective, seed=1, norm="none", zero=())
    found = check_random_axes(objective, axes).axes
    for number, kind in (("1", ("filter", ("bias", "norm"))), ("2", ("none", ()))):
        truth = variances(net, *kind) @ hessian.diagonal()
        assert abs(found[number].expected.value - truth) < 5 * found[number].expected.stderr


def test_what_an_axis_is_stays_known_in_a_run_that_goes_on(tmp_path):
    objective = quadratic([1.0] * 50)
    first = random_direction(objective, norm="none", zero=())
    second = orthogonal_to(first, random_direction(objective, seed=1))
    store_directions(tmp_path, (first, second, Direction("other", objective.theta)))
    again = stored_directions(tmp_path, objective.theta)
    assert [d.fixed for d in again] == [(), ("bias", "norm"), None]
    whole = plane(objective, (first, second), grid=3, run=tmp_path / "run").check.random
    assert plane(objective, again[:2], grid=3, run=tmp_path / "run").check.random == whole


def test_it_survives_json():
    check = plane(quadratic([1.0] * 400 + [-5.0] * 4), grid=3).check
    again = SliceCheck.from_json(json.loads(json.dumps(check.to_json(), allow_nan=False)))
    assert again == check
    older = check.to_json()
    older.pop("random")
    assert SliceCheck.from_json(older).random is None
    none = replace(check, random=RandomAxes({}, reason="why"))
    assert SliceCheck.from_json(json.loads(json.dumps(none.to_json()))) == none


def test_statistics_that_move_and_networks_without_second_derivatives_have_a_reason():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 6, generator=g), torch.randint(3, (32,), generator=g)

    def network(activation):
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), activation, nn.Linear(8, 3)).eval()
        return Objective(net, nn.CrossEntropyLoss(), (x, y))

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad / ctx.saved_tensors[0].cosh() ** 2

    class Odd(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    smooth = network(nn.Tanh())
    found = plane(smooth, grid=3, batchnorm="recalibrate")
    batch = next(smooth.minibatches(32, torch.Generator().manual_seed(0))).batch_normalized()
    v = random_direction(smooth).vector
    assert found.check.random.axes["1"].measured == pytest.approx(float(v @ batch.hvp(v)), rel=1e-3)
    assert check_random_axes(smooth, (random_direction(smooth),), interpolated=True).reason.startswith("not compared")
    odd = line(network(Odd()), grid=3)
    assert odd.check.random.reason.startswith("could not be made")
    assert any(text.startswith("random axes: could not be made") for text in odd.check.lines())
    assert "expected" not in figure_slice(odd).get_supxlabel()
    assert not odd.check.random.hidden_saddle
    assert forecast_surface(network(Odd()), 9, random_axes=True).random_check == 0


def test_a_small_surface_of_a_convolving_network_is_compared_on_as_many_samples_as_take_as_long_as_its_points():
    x, y = torch.rand(300, 1, 8, 8), torch.zeros(300, dtype=torch.long)
    convolving = Objective(build("digits-cnn", channels=1), nn.CrossEntropyLoss(), (x, y))
    assert [random_samples(convolving, points) for points in (None, 2601, 250, 25, 3)] == [256, 256, 208, 20, 16]
    check = plane(convolving, grid=5).check
    assert check.random.samples == 20
    assert any("on 20 samples" in text for text in check.lines())
    flat = Objective(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.CrossEntropyLoss(), (x, y))
    assert random_samples(flat, 3) == 300


def test_many_samples_are_cut_and_it_says_so():
    x, y = torch.randn(1500, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1500, dtype=torch.long)
    objective = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (x, y))
    found = line(objective, grid=3).check
    assert found.random.samples == 1024
    assert sum("on 1,024 samples" in text and "random axis 1" in text for text in found.lines()) == 1
    v = random_direction(objective).vector
    assert found.random.axes["1"].measured == pytest.approx(float(v @ objective.subset(1024).hvp(v)), rel=1e-4)


def test_the_forecast_says_what_it_costs():
    objective = small()
    found = forecast_surface(objective, 9, random_axes=True)
    assert found.random_check > 0
    assert "the check of its random axes about" in found.line()
    assert "random" not in forecast_surface(objective, 9).line()
    assert found.memory > forecast_surface(objective, 9).memory


def test_a_path_has_no_random_axes():
    assert "random" not in interpolation(small(0), small(1), grid=3).to_json()["check"]


def small(seed=0):
    net = build("mlp", inputs=4, widths=[8], classes=3, seed=seed)
    return Objective(net, nn.CrossEntropyLoss(), (torch.ones(9, 4), torch.arange(9) % 3))
