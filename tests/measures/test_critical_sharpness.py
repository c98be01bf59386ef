"""Critical sharpness against a fine scan in float64 that shares no code with it, and against the quadratic's closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape.errors import UsageError
from landscape.measures import MEASURES, NotDefined, critical_sharpness, critical_sharpness_along
from landscape.objective import Objective
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


def test_a_warm_start_takes_seven_passes():
    model, loss, x, y = CASES[0].make(1)
    objective = Objective(model, loss, (x, y))
    gradient = objective.gradient()
    slope = -float(gradient.square().sum())
    first = critical_sharpness_along(objective, -gradient, slope=slope, start=1e-6)
    again = critical_sharpness_along(objective, -gradient, slope=slope, start=2 / first.value / 2**0.5)
    assert first.n > 7 >= again.n
    assert abs(first.value - again.value) <= first.stderr + again.stderr


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
