import json

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_hessian
from torch import nn

from landscape.errors import MismatchError, UsageError
from landscape.objective import Objective
from landscape.results import Slice
from landscape.surfaces import (
    Direction,
    interpolation,
    line,
    orthogonal_to,
    plane,
    random_direction,
    toward,
    trajectory_directions,
)


def case_objective(index: int = 3, seed: int = 0, dtype: str = "float64") -> tuple[Objective, tuple]:
    parts = CASES[index].make(seed)
    return Objective(parts[0], parts[1], parts[2:], dtype=dtype), parts


def li_direction(model: nn.Module, direction: list[torch.Tensor]) -> torch.Tensor:
    """Li et al.'s filter normalization as their paper states it, tensor by tensor; shares nothing with ours."""
    out = []
    for p, d in zip(model.parameters(), direction, strict=True):
        d = d.clone()
        if p.dim() <= 1:
            d.zero_()
        else:
            for j in range(len(p)):
                d[j] *= p[j].detach().double().norm() / d[j].norm()
        out.append(d.reshape(-1))
    return torch.cat(out)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_filter_normalization_is_li_s(index):
    objective, (model, *_) = case_objective(index)
    raw = random_direction(objective, seed=7, norm="none", zero=()).vector
    pieces, start = [], 0
    for p in model.parameters():
        pieces.append(raw[start : start + p.numel()].reshape(p.shape))
        start += p.numel()
    torch.testing.assert_close(random_direction(objective, seed=7).vector, li_direction(model, pieces))


def test_layer_norm_and_everything_moving():
    objective, _ = case_objective()
    layer = objective.layout.unflatten(random_direction(objective, seed=1, norm="layer").vector)
    named = objective.layout.unflatten(objective.theta)
    assert float(layer["0.weight"].norm()) == pytest.approx(float(named["0.weight"].norm()))
    assert float(layer["0.bias"].norm()) == 0
    moving = objective.layout.unflatten(random_direction(objective, seed=1, zero=()).vector)
    for name in ("0.bias", "1.weight", "7.bias"):
        assert float(moving[name].norm()) == pytest.approx(float(named[name].norm()))


def test_a_zero_filter_gets_a_zero_direction():
    model, loss, x, y = CASES[0].make(0)
    with torch.no_grad():
        model[0].weight[2] = 0
    objective = Objective(model, loss, (x, y))
    d = objective.layout.unflatten(random_direction(objective).vector)["0.weight"]
    assert torch.equal(d[2], torch.zeros(5))
    assert torch.isfinite(d).all()


def test_transposed_convolution_has_its_filters_on_the_second_axis():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(27, 2))
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(4, 2, 2, 2), torch.tensor([0, 1, 0, 1])), dtype="float64")
    d = objective.layout.unflatten(random_direction(objective).vector)["0.weight"]
    w = objective.layout.unflatten(objective.theta)["0.weight"]
    torch.testing.assert_close(d.transpose(0, 1).flatten(1).norm(dim=1), w.transpose(0, 1).flatten(1).norm(dim=1))


def test_directions_do_not_depend_on_dtype():
    a, b = (random_direction(case_objective(dtype=t)[0], seed=3).vector.double() for t in ("float32", "float64"))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_orthogonal_to():
    objective, _ = case_objective()
    first, second = random_direction(objective, seed=0), random_direction(objective, seed=1)
    both = Direction("mixed", second.vector + 3 * first.vector)
    rest = orthogonal_to(first, both)
    assert abs(float(first.vector @ rest.vector)) < 1e-12 * float(first.vector.norm() * rest.vector.norm())
    with pytest.raises(UsageError, match="found parallel ones"):
        orthogonal_to(first, Direction("same", 2 * first.vector))


def quadratic() -> Objective:
    """L = mean (w . x)^2 at w = (1, -2, 3): its surface is known in closed form."""
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
    x = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]])
    return Objective(model, nn.MSELoss(), (x, torch.zeros(4, 1)), dtype="float64")


def test_plane_of_a_quadratic_is_the_closed_form_indexed_ij():
    objective = quadratic()
    d1 = Direction("e1", torch.tensor([1.0, 0, 0], dtype=torch.float64))
    d2 = Direction("e2", torch.tensor([0.0, 1, 0], dtype=torch.float64))
    result = plane(objective, (d1, d2), span=((-1, 2), (-3, 1)), grid=(4, 5))
    a, b = np.meshgrid(np.linspace(-1, 2, 4), np.linspace(-3, 1, 5), indexing="ij")
    w1, w2 = 1 + a, -2 + b
    expected = (w1**2 + (2 * w2) ** 2 + 81 + (w1 + w2 + 3) ** 2) / 4
    np.testing.assert_allclose(result.values["loss"], expected, rtol=1e-12)
    assert result.check.curvature["11"] == pytest.approx(2 * (1 + 1) / 4, rel=1e-3)
    assert result.check.curvature["22"] == pytest.approx(2 * (4 + 1) / 4, rel=1e-3)
    assert result.check.curvature["12"] == pytest.approx(2 / 4, rel=1e-3)
    assert result.check.symmetric is False
    assert "accuracy" not in result.values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_check_of_a_right_surface(dtype):
    objective, parts = case_objective(dtype=dtype)
    result = plane(objective, grid=5)
    check = result.check
    assert check.centre_is_exact is True
    assert result.values["loss"][2, 2] == objective.value().value
    assert check.symmetric
    for ratios in check.norm_ratio:
        assert ratios.smallest == pytest.approx(1, abs=1e-5)
        assert ratios.largest == pytest.approx(1, abs=1e-5)
    d = [random_direction(objective, seed=s).vector.double().numpy() for s in (0, 1)]
    assert check.cosine == pytest.approx(d[0] @ d[1] / np.linalg.norm(d[0]) / np.linalg.norm(d[1]), abs=1e-6)
    hessian = dense_hessian(*parts)
    for key, (i, j) in {"11": (0, 0), "22": (1, 1), "12": (0, 1)}.items():
        assert check.curvature_hvp[key] == pytest.approx(d[i] @ hessian @ d[j], rel=1e-4, abs=1e-5)
        assert check.curvature[key] == pytest.approx(check.curvature_hvp[key], rel=1e-2, abs=1e-3)
    assert any("equal to the bit" in text for text in check.lines())


def test_check_sees_a_wrong_centre():
    """A surface whose values were put in the wrong place is told apart."""
    from landscape.surfaces.checks.check_slice import check_slice
    from landscape.surfaces.grid import flat_chart

    objective, _ = case_objective()
    directions = (random_direction(objective, seed=0), random_direction(objective, seed=1))
    result = plane(objective, directions, grid=5)
    rolled = np.roll(result.values["loss"], 1, axis=0)
    chart = flat_chart(objective, directions, [(-1, 1)] * 2, [5, 5], "eval")
    check = check_slice(objective, directions, chart, rolled)
    assert check.centre_is_exact is False
    assert any("DIFFERENT" in text for text in check.lines())
    assert result.check.passed
    assert not check.passed
    wrong = (Direction("wrong", 1.01 * directions[0].vector, "filter"), directions[1])
    assert not check_slice(objective, wrong, chart, result.values["loss"]).passed


def test_even_grid_has_no_centre_and_says_so():
    objective, _ = case_objective(0)
    result = line(objective, grid=4)
    assert result.check.centre_is_exact is None
    assert any("0 is not on the grid" in text for text in result.check.lines())


def test_test_split_and_standard_errors():
    objective, (model, loss, *_) = case_objective(0)
    _, _, x, y = CASES[0].make(9)
    test = Objective(model, loss, (x, y), dtype="float64")
    result = line(objective, grid=3, test=test)
    assert result.values["test_loss"][1] == test.value().value
    assert result.stderr["test_loss"][1] == test.value().stderr
    assert result.values["accuracy"][1] == objective.evaluate().accuracy.value


def test_infinite_losses_stay_as_they_are():
    objective = quadratic()
    d = Direction("huge", torch.tensor([1e200, 0, 0], dtype=torch.float64))
    result = line(objective, d, grid=3)
    assert np.isinf(result.values["loss"][0])
    back = Slice.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)))
    assert np.isnan(back.values["loss"][0])
    assert back.values["loss"][1] == result.values["loss"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1}, "expected a grid of at least 2 points on each axis, found 1"),
        ({"grid": 0}, "found 0"),
        ({"span": (1.0, -1.0)}, "expected a span of two increasing finite numbers, found 1 to -1"),
        ({"span": (float("nan"), 1.0)}, "found nan to 1"),
    ],
)
def test_bad_grids(options, message):
    objective, _ = case_objective(0)
    with pytest.raises(UsageError, match=message):
        line(objective, **options)


def test_interpolation_ends_are_exact():
    start, (_, loss, x, y) = case_objective(3, 0)
    other = CASES[3].make(5)[0]
    end = Objective(other, loss, (x, y), dtype="float64")
    result = interpolation(start, end, grid=7)
    own = [start.evaluate(o.theta, o.recalibrated()).loss.value for o in (start, end)]
    assert [result.values["loss"][i] for i in (0, -1)] == own
    ends = sum(own) / 2
    assert result.barriers["loss"].height == pytest.approx(result.values["loss"].max() - ends)
    beyond = interpolation(start, end, span=(-3, 4), grid=9)
    assert np.isfinite(beyond.values["loss"]).all()
    with pytest.raises(MismatchError, match="expected two networks of one architecture"):
        interpolation(start, case_objective(0)[0])


def test_toward_ends_at_the_other_network():
    start, (_, loss, x, y) = case_objective(0, 0)
    end = Objective(CASES[0].make(5)[0], loss, (x, y), dtype="float64")
    result = line(start, toward(start, end.theta), span=(0, 1), grid=3)
    assert result.values["loss"][-1] == pytest.approx(end.value().value, rel=1e-12)


def test_trajectory_components_explain_their_share():
    objective, _ = case_objective(0)
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(objective.dim, 2, generator=g, dtype=torch.float64))[0].T
    points = [
        objective.theta + a * basis[0] + b * basis[1]
        for a, b in torch.randn(12, 2, generator=g, dtype=torch.float64) * torch.tensor([5.0, 1.0])
    ]
    first, second = trajectory_directions(objective, points)
    both = torch.stack((first.vector, second.vector))
    torch.testing.assert_close(both @ both.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(both.T @ (both @ (points[0] - objective.theta)), points[0] - objective.theta)
    with pytest.raises(UsageError, match="expected a trajectory that spans 2 dimensions, found 1 points"):
        trajectory_directions(objective, points[:1])


class Added(nn.Module):
    """A network that adds into a tensor made of a buffer, as interatomic potentials sum over atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = (x * self.scale).new_zeros(len(x), 3)
        return out.index_add_(0, torch.arange(len(x)), self.fc(x * self.scale))


def test_points_are_stacked_only_if_they_can_be_as_they_will_be_run():
    """With the buffers stacked vmap takes it, without them it does not: every point but the centre would fail."""
    torch.manual_seed(0)
    objective = Objective(Added(), nn.MSELoss(), (torch.randn(5, 4), torch.randn(5, 3)), dtype="float64")
    found = plane(objective, grid=7)
    assert objective.points_at_once > 1
    assert np.isfinite(found.values["loss"]).all()
