"""Maximised and averaged growth of the loss, against brute force and closed forms on networks small enough for both."""

import itertools
import math

import numpy as np
import pytest
import torch
from reference import dense_hessian, dense_loss
from scipy.optimize import brentq
from torch import nn

from landscape.errors import UsageError
from landscape.measures import (
    NotDefined,
    adaptive_average,
    adaptive_worst,
    adaptive_worst_m,
    asam,
    asam_published,
    first_order_adaptive_linf,
    keskar_relative,
    sam,
    sam_linf,
)
from landscape.measures.perturbation.adaptive_sharpness import normalized_logits
from landscape.objective import Objective


def regression(seed: int, n: int = 30):
    """A linear network under the squared error: the loss is a quadratic, away from its minimum, of eight weights."""
    torch.manual_seed(seed)
    model, loss = nn.Linear(3, 2), nn.MSELoss()
    x, y = torch.randn(n, 3), torch.randn(n, 2)
    return model, loss, x, y


def parts(model, loss, x, y):
    """Gradient, Hessian and weights, dense float64."""
    function, theta = dense_loss(model, loss, x, y)
    return torch.func.grad(function)(theta).numpy(), dense_hessian(model, loss, x, y), theta.numpy()


def in_ball(g, h, rho) -> float:
    """Maximum of g.y + y H y / 2 over ||y|| <= rho, H positive definite: on the sphere, (mu I - H) y = g with mu > max H."""
    values, vectors = np.linalg.eigh(h)
    c = vectors.T @ g

    def excess(mu):
        return np.sum((c / (mu - values)) ** 2) - rho**2

    mu = brentq(excess, values[-1] * (1 + 1e-12) + 1e-14, values[-1] + np.linalg.norm(g) / rho * 1.01 + 1e-9, xtol=1e-15)
    y = vectors @ (c / (mu - values))
    return g @ y + y @ h @ y / 2


def in_box(g, h, radius) -> float:
    """Maximum of a convex quadratic over |y_i| <= radius_i: the best of all corners."""
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=len(g)))) * radius
    return float((corners @ g + np.einsum("ni,ij,nj->n", corners, h, corners) / 2).max())


@pytest.mark.parametrize("seed", range(6))
def test_balls_and_boxes_of_a_quadratic(seed):
    model, loss, x, y = regression(seed)
    objective = Objective(model, loss, (x, y), dtype="float64")
    g, h, w = parts(model, loss, x, y)
    s = np.abs(w)
    assert sam(objective, rho=0.3).value == pytest.approx(in_ball(g, h, 0.3), rel=1e-6)
    assert asam(objective, rho=0.7).value == pytest.approx(in_ball(s * g, s[:, None] * h * s, 0.7), rel=1e-6)
    # APGD has 20 steps and no line search: it comes close, and stays below.
    truth = in_ball(s * g, s[:, None] * h * s, 0.7)
    assert truth * (1 - 2e-3) <= adaptive_worst(objective, rho=0.7).value <= truth * (1 + 1e-9)
    t = np.where([True] * 6 + [False] * 2, s + 0.01, 1.0)
    assert asam_published(objective, rho=0.7).value == pytest.approx(in_ball(t * g, t[:, None] * h * t, 0.7), rel=1e-6)
    assert sam_linf(objective, rho=0.1).value == pytest.approx(in_box(g, h, np.full(8, 0.1)), rel=1e-9)
    truth = in_box(g, h, 0.2 * s)
    assert truth * (1 - 2e-3) <= adaptive_worst(objective, rho=0.2, norm="linf").value <= truth * (1 + 1e-9)
    centre = objective.value().value
    assert keskar_relative(objective, eps=0.2).value == pytest.approx(100 * truth / (1 + centre), rel=1e-9)
    assert first_order_adaptive_linf(objective).value == pytest.approx(np.abs(g * w).sum(), rel=1e-12)


def test_published_asam_scales_what_is_called_weight():
    """The weights of norm layers too; every bias by 1."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([3.0, 0.2]))
    x, y = torch.randn(20, 2), torch.randn(20, 2)
    g, h, w = parts(model, nn.MSELoss(), x, y)
    t = np.abs(w) + 0.01
    t[[4, 5, 8, 9]] = 1.0
    found = asam_published(Objective(model, nn.MSELoss(), (x, y), dtype="float64"), rho=1e-3).value
    assert found == pytest.approx(in_ball(t * g, t[:, None] * h * t + 10 * np.eye(10), 1e-3) - 5e-6, rel=1e-2)


def test_m_sharpness_is_the_mean_of_maxima_over_batches():
    model, loss, x, y = regression(1, n=30)
    objective = Objective(model, loss, (x, y), dtype="float64", batch_size=7)
    truth = 0.0
    for rows in (slice(0, 12), slice(12, 24), slice(24, 30)):
        g, h, w = parts(model, loss, x[rows], y[rows])
        truth += len(x[rows]) / 30 * in_box(g, h, 0.2 * np.abs(w))
    found = adaptive_worst_m(objective, rho=0.2, m=12, norm="linf")
    assert found.value == pytest.approx(truth, rel=1e-9)
    assert found.data_stderr > 0
    assert found.value > adaptive_worst(objective, rho=0.2, norm="linf").value


def test_normalized_logits_do_not_see_the_scale_of_the_last_layer():
    """Two weights and a scan of the whole box; then the same network with weights ten times as large."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 1), torch.randint(0, 3, (20,))
    model, loss = nn.Linear(1, 3, bias=False), nn.CrossEntropyLoss()
    objective = Objective(model, loss, (x, y), dtype="float64")
    axis = torch.linspace(-1, 1, 41, dtype=torch.float64)
    corners = objective.theta * (1 + 0.3 * torch.cartesian_prod(axis, axis, axis))
    logits = x.double() * corners[:, None]  # (points, samples, classes)
    z = logits - logits.mean(2, keepdim=True)
    z /= z.square().mean(2, keepdim=True).sqrt()
    values = (z.logsumexp(2) - z[:, torch.arange(20), y]).mean(1)
    centre = float(values[len(values) // 2])
    found = adaptive_worst(objective, rho=0.3, norm="linf", normalized=True)
    plain = adaptive_worst(objective, rho=0.3, norm="linf")
    assert found.value >= (float(values.max()) - centre) * (1 - 1e-9)
    with torch.no_grad():
        model.weight.mul_(10)
    louder = Objective(model, loss, (x, y), dtype="float64")
    assert adaptive_worst(louder, rho=0.3, norm="linf", normalized=True).value == pytest.approx(found.value, rel=1e-9)
    assert adaptive_worst(louder, rho=0.3, norm="linf").value > 1.5 * plain.value


def test_equal_logits_normalize_to_zero_with_finite_gradients():
    logits = torch.tensor([[2.0, 2.0], [1.0, 3.0]], requires_grad=True)
    out = normalized_logits(logits)
    assert out.tolist() == [[0.0, 0.0], [-1.0, 1.0]]
    out.sum().backward()
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize(("norm", "law"), [("l2", 1.0), ("linf", 1 / 3)])
def test_average_covers_its_closed_form(norm, law, monkeypatch):
    """On a quadratic the mean growth is rho^2 / 2 * E z^2 * sum w_i^2 H_ii; eight weights are the hardest case."""
    model, loss, x, y = regression(2)
    objective = Objective(model, loss, (x, y), dtype="float64")
    _, h, w = parts(model, loss, x, y)
    truth = 0.1**2 / 2 * law * np.sum(w**2 * np.diag(h))
    by_objective = adaptive_average(objective, norm=norm)
    # 300 runs ask for the losses at 38,700 points: by their formula, which takes a hundredth of the time.
    rows, targets, centre = x.double(), y.double(), objective.theta

    def losses(theta=centre):
        return (rows @ theta[:6].view(2, 3).T + theta[6:] - targets).square().mean(1)

    monkeypatch.setattr(objective, "losses", losses)
    by_formula = adaptive_average(objective, norm=norm)
    assert by_formula.value == pytest.approx(by_objective.value, rel=1e-9)
    assert by_formula.stderr == pytest.approx(by_objective.stderr, rel=1e-9)
    hits = 0
    for seed in range(300):
        low, high = adaptive_average(objective, norm=norm, generator=torch.Generator().manual_seed(seed)).interval()
        hits += low <= truth <= high
    assert 0.90 <= hits / 300 <= 0.985, hits


def test_radii_are_checked():
    objective = Objective(*regression(0)[:2], regression(0)[2:], dtype="float64")
    for function in (sam, sam_linf, asam, asam_published, adaptive_average, adaptive_worst, adaptive_worst_m):
        with pytest.raises(UsageError, match="expected a positive rho, found -1"):
            function(objective, rho=-1.0)
    with pytest.raises(NotDefined, match="expected cross-entropy of class logits"):
        adaptive_average(objective, normalized=True)


def test_an_average_that_overflows_says_so():
    model, loss, x, y = regression(0)
    objective = Objective(model, loss, (x, y))
    found = adaptive_average(objective, rho=1e25, pairs=4)
    assert math.isinf(found.value)
    assert found.reason == "the loss overflows for 4 of 4 draws"
