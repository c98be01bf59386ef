"""v^T H_n v of every sample by forward mode, where it is faster and right, against dense Hessians of single samples."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from landscape.curvature.per_sample import pushed_curvatures, pushes, sample_curvatures
from landscape.objective import Objective


class Normalized(nn.Module):
    """A convolution before a LayerNorm, whose rule for forward over forward mode is wrong in torch 2.13."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3), nn.LayerNorm(18), nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x).flatten(1)))


def convolving() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


def objective_of(model: nn.Module, loss: nn.Module, dtype: str = "float64") -> tuple[Objective, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(7, 1, 5, 5, generator=g), torch.tensor([0, 1, 2, 1, 0, 2, 2])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return Objective(model, loss, (x, y), dtype=dtype, batch_size=3), x.double(), y


def dense(objective: Objective, model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """v^T H_n v from the dense Hessian of every sample's loss, in float64."""
    model = model.double()
    names = objective.layout.unflatten(objective.theta)

    def of(n: int) -> Callable[[Tensor], Tensor]:
        return lambda flat: loss(functional_call(model, objective.layout.unflatten(flat), (x[n : n + 1],)), y[n : n + 1])

    assert names.keys() == dict(model.named_parameters()).keys()
    # Not by torch.func: its Hessians of a LayerNorm are wrong (torch 2.13), forward over reverse and reverse over reverse.
    return torch.stack([v @ hessian(of(n), objective.theta.double()) @ v for n in range(len(x))])


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)])
@pytest.mark.parametrize("make", [convolving, Normalized])
def test_forms_of_a_convolving_network_are_those_of_each_sample(make, loss):
    torch.manual_seed(0)
    model = make()
    objective, x, y = objective_of(model, loss)
    v = torch.randn(objective.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = dense(objective, model, loss, x, y, v)
    torch.testing.assert_close(objective.sample_curvatures(v), exact, rtol=1e-9, atol=1e-11)


def test_forward_mode_is_taken_where_it_is_right_and_only_there():
    torch.manual_seed(0)
    for make, taken in ((convolving, True), (Normalized, False)):
        objective, _, _ = objective_of(make(), nn.CrossEntropyLoss())
        engine, theta = objective._engine, objective._theta
        v = torch.randn(objective.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert pushes(engine, theta) is taken
        same = torch.allclose(pushed_curvatures(engine, theta, v), sample_curvatures(engine, theta, v), rtol=1e-9, atol=1e-11)
        assert same is taken
        before = objective.spent.forwards
        objective.sample_curvatures(v)
        assert objective.spent.forwards - before == (9 if taken else 20)


class Scaled(nn.Module):
    """A convolution and a LayerNorm in a branch with a layer scale, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.LayerNorm(4)
        self.scale, self.head = nn.Parameter(torch.full((4,), 1e-6)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head((h + (self.norm(self.conv(h).permute(0, 2, 3, 1)) * self.scale).permute(0, 3, 1, 2)).mean((2, 3)))


def test_a_layer_scale_does_not_hide_a_layer_norm():
    torch.manual_seed(0)
    x, y = torch.rand(7, 1, 5, 5), torch.tensor([0, 1, 2, 1, 0, 2, 2])
    objective = Objective(Scaled(), nn.CrossEntropyLoss(), (x, y))
    v = torch.zeros(objective.dim)
    at = next(e for e in objective.layout if e.name == "conv.weight")
    v[at.start : at.stop] = torch.randn(at.stop - at.start, generator=torch.Generator().manual_seed(1))
    exact = objective.to("float64").sample_curvatures(v.double())
    torch.testing.assert_close(objective.sample_curvatures(v), exact, rtol=1e-2, atol=1e-3 * float(exact.abs().max()))


def test_a_perceptron_keeps_reverse_mode():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(7, 5, generator=g), torch.zeros(7, dtype=torch.long)
    objective = Objective(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), nn.CrossEntropyLoss(), (x, y))
    assert not pushes(objective._engine, objective._theta)
