"""Geodesic sharpness against the metrics as printed, their Christoffel symbols by autograd, and dense Hessians."""

import numpy as np
import pytest
import torch
from paired_networks import classified, conditioned, made, mixed, moved, pairs, rescaled
from reference import dense_hessian
from torch import Tensor, nn

from landscape.measures import MEASURES
from landscape.measures.perturbation.geodesic_sharpness import geodesic_sharpness, geodesic_trace, largest
from landscape.measures.perturbation.pair_metrics import Geometry, geometry_of
from landscape.measures.registry import NotDefined
from landscape.measures.running.shared_computations import operator, trace_of
from landscape.objective import Objective
from landscape.symmetry.mixing.mixtures import Mixing, Rows

METRICS = ("inv", "mix")


def gram(metric: str, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices X^T X and Y^T Y are multiplied by, as printed."""
    m, n = g.T @ g, h.T @ h
    return (torch.linalg.inv(m).contiguous(), torch.linalg.inv(n).contiguous()) if metric == "inv" else (n, m)


def length(metric: str, g: Tensor, h: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The squared length of a change (x, y), as printed."""
    first, second = gram(metric, g, h)
    return torch.trace(first @ x.T @ x) + torch.trace(second @ y.T @ y)


class Product(nn.Module):
    """x -> x G H^T, of two plain matrices."""

    def __init__(self, m: int = 4, n: int = 3, h: int = 2) -> None:
        super().__init__()
        self.g, self.h = nn.Parameter(torch.randn(m, h)), nn.Parameter(torch.randn(n, h))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.g @ self.h.T


def product(metric: str, seed: int = 0) -> tuple[Geometry, Tensor, Tensor, Objective]:
    """A `Product`, its geometry and its factors, float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, x, y = Product().double(), torch.randn(9, 4), torch.randint(3, (9,))
    g, h = model.g.detach(), model.h.detach()
    rows = [Rows(name, torch.arange(p.numel()).reshape(p.shape), name == "g") for name, p in model.named_parameters()]
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    return geometry_of(objective, (Mixing("g and h", 2, "general", tuple(rows)),), metric), g, h, objective


def split(flat: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """A vector of weights as (G, H)."""
    return flat[: g.numel()].reshape(g.shape), flat[g.numel() :].reshape(h.shape)


@pytest.mark.parametrize("metric", METRICS)
def test_coordinates_have_the_printed_length(metric: str) -> None:
    space, g, h, _ = product(metric)
    z = torch.randn(g.numel() + h.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert float(length(metric, g, h, *split(space.spread(z), g, h))) == pytest.approx(float(z @ z), rel=1e-10)
    other = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(2))
    assert float(space.spread(z) @ other) == pytest.approx(float(z @ space.gather(other)), rel=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_horizontal_directions_are_orthogonal_to_the_orbit(metric: str) -> None:
    space, g, h, _ = product(metric)
    z = torch.randn(g.numel() + h.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    flat = space.horizontal(z)
    torch.testing.assert_close(space.horizontal(flat), flat)
    first, second = gram(metric, g, h)
    x, y = split(space.spread(flat), g, h)
    removed, orbit = space.spread(z - flat), []
    for i in range(2):
        for j in range(2):
            w = torch.zeros(2, 2, dtype=torch.float64)
            w[i, j] = 1.0
            a, b = -g @ w, h @ w.T
            assert abs(float(torch.trace(first @ x.T @ a) + torch.trace(second @ y.T @ b))) < 1e-10
            orbit.append(torch.cat((a.flatten(), b.flatten())))
    assert np.linalg.matrix_rank(torch.stack([*orbit, removed]).numpy(), tol=1e-8) == 4  # nothing else is removed


@pytest.mark.parametrize("metric", METRICS)
def test_points_follow_the_geodesic_to_second_order(metric: str) -> None:
    """x'' = -Gamma(x', x') with Christoffel symbols from the derivatives of the metric's matrix."""
    space, g, h, _ = product(metric)
    at = torch.cat((g.flatten(), h.flatten()))
    z = space.horizontal(torch.randn(at.shape, dtype=at.dtype, generator=torch.Generator().manual_seed(1)))

    def matrix(flat: Tensor) -> Tensor:
        first, second = gram(metric, *split(flat, g, h))
        return torch.block_diag(torch.kron(torch.eye(len(g)).double(), first), torch.kron(torch.eye(len(h)).double(), second))

    slope = torch.func.jacrev(matrix)(at)  # [i, j, k] = d M_ij / d x_k
    velocity = space.spread(z)
    lowered = torch.einsum("ijk,j,k->i", slope, velocity, velocity) - torch.einsum("jki,j,k->i", slope, velocity, velocity) / 2
    acceleration = -torch.linalg.solve(matrix(at), lowered)
    step = 0.01
    torch.testing.assert_close(space.point(step * z) - at, step * velocity + step**2 / 2 * acceleration, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_trace_is_that_of_the_whole_hessian(metric: str) -> None:
    """Every pair's block by the printed metric, every other weight by |w|."""
    model = made()
    objective = classified(model)
    space = geometry_of(objective, pairs(), metric)
    _, loss, (x, y) = objective.plain()
    hessian, w = dense_hessian(model, loss, x, y), objective.theta
    inverse = torch.diag(w.square())
    start = {entry.name: entry.start for entry in objective.layout}
    for pair in pairs():
        sides = [torch.cat([start[r.name] + r.index for r in pair.rows if r.inverse == inv]) for inv in (True, False)]
        for at, factor in zip(sides, gram(metric, w[sides[0]], w[sides[1]]), strict=True):
            for row in at:
                inverse[row[:, None], row] = torch.linalg.inv(factor)
    truth = np.trace(inverse.numpy() @ hessian)
    units = space.coordinates()
    found = operator(objective, units)(torch.eye(units.dim, dtype=torch.float64))
    assert float(found.trace()) == pytest.approx(truth, rel=1e-8)
    low, high = trace_of(objective, 400, None, units).interval(0.9999)
    assert low <= truth <= high


@pytest.mark.parametrize("metric", METRICS)
def test_a_matrix_does_not_move_the_trace_and_neurons_do(metric: str) -> None:
    model = made()
    values = {
        name: trace_of(classified(net), 8, None, geometry_of(classified(net), pairs(), metric).coordinates()).value
        for name, net in {"here": model, **moved(model)}.items()
    }
    assert values["pair"] == pytest.approx(values["here"], rel=1e-8)
    assert values["both"] == pytest.approx(values["node"], rel=1e-8)
    assert abs(values["node"] - values["here"]) > 0.02 * abs(values["here"])
    assert MEASURES[f"geodesic_trace_{metric}"].invariant_to == MEASURES[f"geodesic_{metric}"].invariant_to == ("pair",)


def worst(net: nn.Module, metric: str, rho: float = 0.3) -> float:
    """The worst case on the pairs by hand, with few starts."""
    objective = classified(net)
    return largest(objective, geometry_of(objective, pairs(), metric), rho, 8, 0, torch.Generator().manual_seed(0)).value


@pytest.mark.parametrize("metric", METRICS)
def test_a_matrix_does_not_move_the_worst_case_and_neurons_do(metric: str) -> None:
    model = made()
    before = worst(model, metric)
    assert worst(mixed(model, conditioned(3), conditioned(4)), metric) == pytest.approx(before, rel=1e-6)
    assert abs(worst(rescaled(model), metric) - before) > 0.01 * before


@pytest.mark.parametrize("metric", METRICS)
def test_the_worst_case_is_at_least_what_random_directions_find(metric: str) -> None:
    space, g, h, objective = product(metric)
    found = largest(objective, space, 0.3, 20, 1, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(7)
    tried = []
    for _ in range(200):
        z = space.horizontal(torch.randn(g.numel() + h.numel(), generator=generator, dtype=torch.float64))
        tried.append(objective.value(space.point(0.3 * z / z.norm())).value - objective.value().value)
    assert 0 < max(tried) <= found.value
    assert found.kind == "lower bound"
    assert found.data_stderr > 0


def test_where_it_is_not_defined() -> None:
    plain = Objective(
        nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), nn.MSELoss(), (torch.rand(4, 3), torch.rand(4, 2))
    )
    for function in (geodesic_trace, geodesic_sharpness):
        with pytest.raises(NotDefined, match="a pair of linear maps with nothing between them, found none"):
            function(plain)
    objective = classified(made())
    with pytest.raises(NotDefined, match=r"among those that vary, found [kv]\.\w+ fixed"):
        geometry_of(objective.only("q.*", "o.*"), pairs(), "inv")
    with pytest.raises(NotDefined, match="found a weight in two"):
        geometry_of(objective, (*pairs(), pairs()[0]), "mix")
    zero = made()
    nn.init.zeros_(zero.o.weight)
    with pytest.raises(NotDefined, match="found one of lower rank in v and o"):
        geometry_of(classified(zero), pairs(), "inv")
