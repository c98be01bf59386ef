"""The check of a surface without derivatives, of a network that rounds more than its dtype, and of a loss of 0."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape.errors import NumericalError, UsageError
from landscape.objective import Objective
from landscape.report import figure_interpolation, figure_slice
from landscape.report.page.table_cells import check_verdict
from landscape.results import Slice
from landscape.surfaces import interpolation, line, plane
from landscape.surfaces.checks.check_derivatives import rounding_without_kinks


def data(samples: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(samples, 6, generator=g), torch.randint(0, 3, (samples,), generator=g)


def seeded(seed: int, make) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


class NoSecond(torch.autograd.Function):
    """The sine, whose derivative cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.cos()


class Sine(nn.Module):
    def forward(self, x):
        return NoSecond.apply(x)


def without_second(seed: int) -> Objective:
    net = seeded(seed, lambda: nn.Sequential(nn.Linear(6, 5), Sine(), nn.Linear(5, 3)))
    return Objective(net, nn.CrossEntropyLoss(), data())


def test_a_surface_needs_no_second_derivative():
    objective, other = without_second(0), without_second(1)
    with pytest.raises(NumericalError):
        objective.hvp(objective.theta)
    for found, figure in (
        (plane(objective, grid=3), figure_slice),
        (line(objective, grid=3), figure_slice),
        (interpolation(objective, other, grid=5), figure_interpolation),
    ):
        check = found.check
        assert check.passed, check.lines()
        assert "check passed" in repr(found)
        reason = check.derivatives.reason
        assert reason.startswith("could not be made: expected a ")
        assert check.derivatives.values == check.derivatives.products == {}
        assert sum(text.startswith("derivatives") and reason in text for text in check.lines()) == 1
        assert json.loads(json.dumps(found.to_json(), allow_nan=False))["check"]["derivatives"]["reason"] == reason
        assert Slice.from_json(found.to_json()).check == check
        assert "could not be made" in figure(found).get_supxlabel().replace("\n", " ")
        right, words = check_verdict(check)
        assert right
        assert words.endswith("curvatures are not compared")
    wave = plane(objective, grid=3).values["loss"]
    smooth = Objective(_sine(objective), nn.CrossEntropyLoss(), data())
    assert wave == pytest.approx(plane(smooth, grid=3).values["loss"])


def _sine(objective: Objective) -> nn.Module:
    """The same network with PyTorch's own sine."""

    class Plain(nn.Module):
        def forward(self, x):
            return x.sin()

    net = nn.Sequential(nn.Linear(6, 5), Plain(), nn.Linear(5, 3))
    with torch.no_grad():
        for p, value in zip(net.parameters(), objective.layout.unflatten(objective.theta).values(), strict=True):
            p.copy_(value)
    return net


@pytest.mark.parametrize(
    "error", [NumericalError("expected a derivative, found none"), UsageError("expected, found"), RuntimeError("no")]
)
def test_whatever_keeps_derivatives_away_is_said(monkeypatch, error):
    objective = Objective(seeded(0, lambda: nn.Linear(6, 3)), nn.CrossEntropyLoss(), data())

    def refuse(*_):
        raise error

    monkeypatch.setattr(Objective, "hvp", refuse)
    for check in (line(objective, grid=3).check, interpolation(objective, objective.at(2 * objective.theta), grid=3).check):
        assert check.passed
        assert str(error) in check.derivatives.reason


class Norm(nn.Module):
    """Root mean square, computed in another dtype whatever it is given."""

    def __init__(self, inside: torch.dtype | None) -> None:
        super().__init__()
        self.inside, self.scale = inside, nn.Parameter(torch.ones(8))

    def forward(self, x):
        h = x if self.inside is None else x.to(self.inside)
        return self.scale * (h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt()).to(x.dtype)


def inside(dtype: torch.dtype | None, seed: int) -> Objective:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), Norm(dtype), nn.Linear(8, 8), nn.Tanh(), Norm(dtype), nn.Linear(8, 3))

    return Objective(seeded(seed, make), nn.CrossEntropyLoss(), data())


@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_computes_in_float32_inside_passes(seed):
    """Steps for float64's rounding would see nothing but that of float32: curvatures of 60 for 0.2."""
    found, exact = (plane(inside(dtype, seed), grid=3, seed=seed) for dtype in (torch.float32, None))
    assert found.check.passed, found.check.lines()
    truth = exact.check.curvature_hvp
    size = max(map(abs, truth.values()))
    for key, value in truth.items():
        assert found.check.curvature[key] == pytest.approx(value, abs=0.02 * size)
        assert found.check.curvature_hvp[key] == pytest.approx(value, abs=1e-4 * size)
    assert not found.check.derivatives.unresolved
    one, other = inside(torch.float32, seed), inside(torch.float32, seed + 10)
    path = interpolation(one, other, grid=5)
    assert path.check.passed, path.check.lines()


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0])
def test_a_wrong_hessian_is_found_in_float32_inside_too(monkeypatch, factor):
    objective = inside(torch.float32, 0)
    assert plane(objective, grid=3).check.derivatives.products
    hvp = Objective.hvp
    monkeypatch.setattr(Objective, "hvp", lambda self, v: factor * hvp(self, v))
    assert not plane(objective, grid=3).check.passed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_computes_in_half_precision_inside_is_no_false_alarm(dtype, seed):
    """Its values are steps: no difference of them tells a curvature of 0.1."""
    check = plane(inside(dtype, seed), grid=3).check
    assert check.passed, check.lines()
    assert check.derivatives.reason.startswith("could not be made: ") or check.derivatives.unresolved


def test_kinks_and_float32_inside_are_no_false_alarm():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(512, 6, generator=g), torch.randint(0, 3, (512,), generator=g)

    def make() -> nn.Module:
        kinked = nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
        return nn.Sequential(nn.Linear(6, 8), Norm(torch.float32), *kinked, nn.Linear(64, 3))

    for seed in range(3):
        net = seeded(seed, make)
        check = plane(Objective(net, nn.CrossEntropyLoss(), (x, y)), grid=3, seed=seed).check
        assert check.passed, check.lines()


def test_rounding_is_that_of_the_network():
    for dtype, low, high in ((None, 1e-17, 1e-12), (torch.float32, 1e-9, 1e-5)):
        assert low < rounding_without_kinks(inside(dtype, 0).to("float64")) < high


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("height", [200.0, 40.0, 25.0, 12.0])
def test_a_loss_of_zero_or_almost_passes(dtype, height):
    """Values know nothing below a rounding error of 1, products know e^-200."""
    net = seeded(0, lambda: nn.Linear(6, 3))
    with torch.no_grad():
        net.bias.copy_(torch.tensor([height, 0.0, 0.0]))
    x, _ = data()
    objective = Objective(net, nn.CrossEntropyLoss(), (x, torch.zeros(len(x), dtype=torch.long)), dtype=dtype)
    for check in (plane(objective, grid=3).check, line(objective, grid=3).check):
        assert check.passed, check.lines()
        if height == 200.0:
            assert check.centre_value == 0
            assert check.derivatives.unresolved
            assert any("no difference counts below" in text for text in check.lines())
            assert check_verdict(check)[1].endswith("curvatures are too small to be compared")


def test_small_losses_are_still_judged(monkeypatch):
    """A loss of 10^-6 has curvatures that count."""
    objective = Objective(
        seeded(0, lambda: nn.Linear(6, 3)), lambda o, y: 1e-6 * F.cross_entropy(o, y), data(), dtype="float64"
    )
    assert plane(objective, grid=3).check.passed
    hvp = Objective.hvp
    monkeypatch.setattr(Objective, "hvp", lambda self, v: 2 * hvp(self, v))
    assert not plane(objective, grid=3).check.passed
