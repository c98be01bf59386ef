"""Critical sharpness against a fine scan in float64 that shares no code with it, and against the quadratic's closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape.errors import UsageError
from landscape.measures import MEASURES, NotDefined, critical_sharpness, critical_sharpness_along
from landscape.objective import Objective
from landscape.watching import Watch
from tests.cases import CASES
from tests.reference import dense_hessian, dense_loss


def scanned(model: nn.Module, loss: nn.Module, x: torch.Tensor, y: torch.Tensor, direction: torch.Tensor, most: float) -> float:
    """The first of 1,000 steps at which the loss is above that at the start."""
    function, theta = dense_loss(model, loss, x, y)
    steps = torch.linspace(0, most, 1001, dtype=torch.float64)[1:]
    with torch.no_grad():
        above = next(s for s in steps if function(theta + s * direction) > function(theta))
    return float(above)


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_it_is_the_first_step_that_raises_the_loss(case):
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    gradient = objective.gradient()
    found = critical_sharpness(objective)
    low, high = found.interval()
    step = scanned(model, loss, x, y, -gradient, 4 / found.value)
    assert 2 / high * 0.998 <= step <= 2 / low * 1.002
    assert found.kind == "bracket"
    assert found.converged
    assert (high - low) / found.value < 0.07
    assert objective.spent.forwards >= found.n
    fine = critical_sharpness(objective, halvings=9)
    assert 2 / fine.value == pytest.approx(step, rel=4e-3)


def test_on_a_quadratic_it_is_the_curvature_along_the_direction():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 2), torch.randn(9, 4), torch.randn(9, 2)
    objective = Objective(model, nn.MSELoss(), (x, y), dtype="float64")
    hessian = dense_hessian(model, nn.MSELoss(), x, y)
    g = objective.gradient().numpy()
    curvature = g @ hessian @ g / (g @ g)
    found = critical_sharpness(objective, halvings=12)
    assert abs(found.value - curvature) <= found.stderr < 1e-3 * curvature
    top = np.linalg.eigvalsh(hessian)[-1]
    assert found.value < top
    scaled = torch.from_numpy(g / np.arange(1, 11))
    slope, bend = -float(scaled @ torch.from_numpy(g)), scaled.numpy() @ hessian @ scaled.numpy()
    other = critical_sharpness_along(objective, -scaled, slope=slope, start=123.0, halvings=12)
    assert abs(other.value - bend / -slope) <= other.stderr


class Counted(nn.Linear):
    """A linear map that counts the samples it sees, its copies too; passes of two samples try how a network is run."""

    samples = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Counted.samples += len(x) if len(x) > 2 else 0
        return super().forward(x)


def test_a_check_of_a_watch_takes_a_gradient_and_six_passes_and_the_first_one_about_two_more():
    torch.manual_seed(0)
    net, loss, batch = Counted(4, 2), nn.MSELoss(), (torch.randn(9, 4), torch.randn(9, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    watch = Watch(net, loss, batch, every=1, measures=["critical_sharpness"], optimizer=optimizer)
    found = []
    for step in range(3):
        Counted.samples = 0
        watch(step)
        found.append(Counted.samples / 9)
        optimizer.zero_grad()
        loss(net(batch[0]), batch[1]).backward()
        optimizer.step()
    assert found[1:] == [1 + 6, 1 + 6]
    assert found[0] <= 1 + 9
    assert [e.n for e in watch.history.estimates("critical_sharpness")] == [calls - 1 for calls in found]


def test_the_forecast_is_what_it_takes_on_average():
    taken = []
    for seed in (0, 1):
        for case in CASES:
            model, loss, x, y = case.make(seed)
            objective = Objective(model, loss, (x, y))
            objective.value_and_gradient()  # with the checks before a first derivative
            before = objective.spent
            found = critical_sharpness(objective)
            assert objective.spent.forwards - before.forwards == found.n
            assert objective.spent.gradients - before.gradients == 1
            taken.append(found.n)
    forecast = MEASURES["critical_sharpness"].work(objective, {"halvings": 4})["critical_sharpness"]
    assert forecast.gradients == 1
    assert abs(np.mean(taken) - forecast.forwards) < 0.5


def test_a_loss_that_is_known_is_not_evaluated_again():
    model, loss, x, y = CASES[0].make(1)
    objective = Objective(model, loss, (x, y))
    value, gradient = objective.value_and_gradient()
    settings = {"slope": -float(gradient.square().sum()), "start": 1e-3}
    without = critical_sharpness_along(objective, -gradient, **settings)
    known = critical_sharpness_along(objective, -gradient, value=value, **settings)
    assert known.n == without.n - 1
    assert known.value == without.value


def test_what_has_no_critical_step_is_said():
    model = nn.Linear(2, 1)
    batch = (torch.ones(3, 2), torch.ones(3, 1))
    objective = Objective(model, nn.MSELoss(), batch)
    gradient = objective.gradient()
    with pytest.raises(NotDefined, match="does not fall along"):
        critical_sharpness_along(objective, gradient, slope=float(gradient.square().sum()), start=1.0)
    with pytest.raises(UsageError, match="expected a first step > 0"):
        critical_sharpness_along(objective, -gradient, slope=-1.0, start=0.0)
    nn.init.zeros_(model.weight)
    nn.init.ones_(model.bias)
    assert "gradient is zero" in MEASURES["critical_sharpness"](Objective(model, nn.MSELoss(), batch), torch.Generator()).reason

    class Slope(nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (output + 0.0 * target).mean()

    endless = critical_sharpness(Objective(nn.Linear(2, 1), Slope(), batch))
    assert not endless.converged
    assert "falls at every step" in (endless.reason or "")
