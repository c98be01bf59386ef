"""Maps of lambda_max, lambda_min and their ratio, against the dense float64 Hessian at every point."""

import copy

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_hessian
from torch import nn

from landscape.objective import Objective
from landscape.spectra import eigenpairs
from landscape.surfaces import Direction, line, plane, random_direction, toward
from landscape.surfaces.grid import flat_chart
from landscape.surfaces.running.measurement import Extremes
from landscape.surfaces.running.run_directory import Run


def objective_of(index: int, dtype: str = "float64") -> tuple[Objective, tuple]:
    parts = CASES[index].make(0)
    return Objective(parts[0], parts[1], parts[2:], dtype=dtype), parts


def extremes_at(parts: tuple, theta: torch.Tensor, buffers: dict[str, torch.Tensor] | None = None) -> tuple[float, float]:
    """Smallest and largest eigenvalue of the dense Hessian of the network with these weights and buffers."""
    model, loss, x, y = parts
    net = copy.deepcopy(model).double()
    torch.nn.utils.vector_to_parameters(theta.double(), net.parameters())
    for name, value in (buffers or {}).items():
        net.get_buffer(name).copy_(value)
    values = np.linalg.eigvalsh(dense_hessian(net, loss, x, y))
    return values[0], values[-1]


def compare(found, truth: np.ndarray) -> None:
    """Values and the errors that they come with; truth is (..., 2), smallest first."""
    low, high = truth[..., 0], truth[..., 1]
    expected = {"lambda_min": low, "lambda_max": high, "lambda_ratio": np.abs(low / high)}
    for name, values in expected.items():
        error = np.abs(found.values[name] - values)
        assert (error <= found.stderr[name] + 1e-12 * np.abs(values)).all(), name
    # The errors are small as well as true: the tolerance is 10^-3 of the largest, and a Rayleigh quotient does better.
    size = np.abs(truth).max(axis=-1)
    for name in ("lambda_min", "lambda_max"):
        assert (found.stderr[name] <= 1e-3 * size).all()
        assert (np.abs(found.values[name] - expected[name]) <= 1e-4 * size).all()


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: CASES[i].name)
def test_a_line_has_the_eigenvalues_of_the_dense_hessian(index):
    objective, parts = objective_of(index)
    d = random_direction(objective, seed=1)
    found = line(objective, d, span=(-0.6, 0.6), grid=5, curvature=True)
    compare(found, np.array([extremes_at(parts, objective.theta + a * d.vector) for a in found.coordinates[0]]))


@pytest.mark.parametrize("batchnorm", ["eval", "recalibrate"])
@pytest.mark.parametrize("index", [0, 3], ids=["mlp", "cnn"])
def test_a_plane_has_the_eigenvalues_of_the_dense_hessian(index, batchnorm):
    objective, parts = objective_of(index)
    axes = random_direction(objective, seed=1), random_direction(objective, seed=2)
    found = plane(objective, axes, span=((-0.6, 0.6), (0.0, 0.5)), grid=(5, 4), curvature=True, batchnorm=batchnorm)
    truth = np.zeros((5, 4, 2))
    for i, a in enumerate(found.coordinates[0]):
        for j, b in enumerate(found.coordinates[1]):
            theta = objective.theta + a * axes[0].vector + b * axes[1].vector
            truth[i, j] = extremes_at(parts, theta, objective.recalibrated(theta) if batchnorm == "recalibrate" else None)
    compare(found, truth)


def test_interpolated_statistics_are_those_of_the_hessian_too():
    objective, parts = objective_of(3)
    end = Objective(CASES[3].make(5)[0], parts[1], parts[2:], dtype="float64")
    axis = toward(objective, end.theta, "end", end.buffers)
    found = line(objective, axis, span=(0, 1), grid=3, curvature=True, batchnorm="interpolate")
    truth = []
    for a in (0.0, 0.5, 1.0):
        buffers = {n: (1 - a) * b + a * end.buffers[n] for n, b in objective.buffers.items()}
        truth.append(extremes_at(parts, objective.theta + a * axis.vector, buffers))
    compare(found, np.array(truth))


def test_float32_is_as_good_as_it_says():
    objective, parts = objective_of(3, "float32")
    d = random_direction(objective, seed=1)
    found = line(objective, d, span=(-0.6, 0.6), grid=5, curvature=True)
    theta = [(objective.theta + float(a) * d.vector).double() for a in found.coordinates[0]]
    truth = np.array([extremes_at(parts, t) for t in theta])
    for i, name in enumerate(("lambda_min", "lambda_max")):
        assert (np.abs(found.values[name] - truth[:, i]) <= found.stderr[name] + 1e-5 * np.abs(truth).max(axis=1)).all()


class Separable(nn.Module):
    """L = sum_i c_i cosh(w_i): the Hessian is diagonal, and its eigenvectors are the axes wherever one is."""

    def __init__(self, c: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("c", c)
        self.w = nn.Parameter(torch.zeros(len(c)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.c * torch.cosh(self.w)).sum() + 0 * x


def test_eigenvalues_that_cross_are_followed_to_the_other_eigenvector():
    """The neighbour's eigenvector stays an exact one, while another eigenvalue overtakes its own: no residual shows that."""
    c = torch.cat([torch.linspace(-1.0, 1.0, 60, dtype=torch.float64), torch.tensor([2.0, 1.2, -1.1], dtype=torch.float64)])
    objective = Objective(Separable(c), lambda out, _: out.mean(), (torch.zeros(2, 1), torch.zeros(2, 1)), dtype="float64")
    d = torch.zeros(len(c), dtype=torch.float64)
    d[-2], d[0] = 1.0, 1.0  # 1.2 cosh(a) overtakes 2, and -1 cosh(a) falls below -1.1
    for grid in (7, 13, 21):
        found = line(objective, Direction("crossing", d), span=(-3, 3), grid=grid, curvature=True)
        growth = np.cosh(found.coordinates[0])
        high, low = np.maximum(2.0, 1.2 * growth), np.minimum(-1.1, -growth)
        assert (high == 2).any()
        assert (high > 2.5).any()
        # One that lies closer beyond the neighbour's than some per cent of the largest may be missed, as `Extremes` says.
        size = np.maximum(high, -low)
        assert (np.abs(found.values["lambda_max"] - high) <= 0.03 * size).all()
        assert (np.abs(found.values["lambda_min"] - low) <= 0.03 * size).all()
        assert found.values["lambda_max"][0] == pytest.approx(1.2 * np.cosh(3), rel=1e-5)
        assert found.values["lambda_min"][-1] == pytest.approx(-np.cosh(3), rel=1e-5)


def extremes_of(objective: Objective, axes, grid: int) -> Extremes:
    chart = flat_chart(objective, axes, [(-0.5, 0.5)] * len(axes), [grid] * len(axes), "eval")
    return Extremes(chart, objective, Run(None, {}))


@pytest.mark.parametrize("order", [pytest.param("backwards", marks=pytest.mark.slow), "shuffled", "alone"])
def test_values_do_not_depend_on_the_order_or_on_who_did_the_neighbour(order):
    objective, _ = objective_of(0)
    axes = random_direction(objective, seed=1), random_direction(objective, seed=2)
    part = extremes_of(objective, axes, 4)
    expected = {k: part((k,))[0] for k in part.order}
    numbers = list(reversed(part.order))
    if order == "shuffled":
        np.random.default_rng(0).shuffle(numbers)
    other = extremes_of(objective, axes, 4)
    for k in numbers if order != "alone" else (0, 5, 15):
        if order == "alone":  # nothing of any other point is known
            other = extremes_of(objective, axes, 4)
        assert other((k,))[0] == expected[k]


def test_every_point_waits_for_its_neighbour():
    objective, _ = objective_of(0)
    part = extremes_of(objective, (random_direction(objective),), 5)
    assert {k: part.wants(k) for k in range(5)} == {0: 1, 1: 2, 2: None, 3: 2, 4: 3}


def test_eigenvectors_are_let_go_once_nobody_starts_from_them():
    objective, _ = objective_of(0)
    part = extremes_of(objective, (random_direction(objective, seed=1), random_direction(objective, seed=2)), 5)
    most = 0
    for k in part.order:
        record = part((k,))[0]
        part.run.journal.write({f"{part.name}:{k}": record})
        most = max(most, len(part.run._memory))
    assert most <= 8  # the spine, and the half row at hand; not the 25 of the plane
    assert len(part.run._memory) <= 1


@pytest.mark.parametrize("index", [0, pytest.param(4, marks=pytest.mark.slow)], ids=["mlp", "residual"])
def test_a_warm_start_takes_fewer_products_than_a_cold_one(index):
    objective, _ = objective_of(index)
    axes = random_direction(objective, seed=1), random_direction(objective, seed=2)
    objective.preflight()
    part = extremes_of(objective, axes, 5)
    before = objective.spent.products
    for k in part.order:
        part((k,))[0]
    warm = (objective.spent.products - before) / len(part.order)
    before = objective.spent.products
    for k in part.order:
        eigenpairs(objective.at(*part.chart.at(part.chart.place(k))), 1, "both", tol=1e-3)
    cold = (objective.spent.products - before) / len(part.order)
    assert warm < 0.95 * cold, (warm, cold)
