"""Many points at once against one at a time; how many that are; what is evaluated alone."""

import copy
import math

import numpy as np
import pytest
import torch
from cases import CASES
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.objective import Objective
from landscape.surfaces.running.settings import points_at_once

STACKED = [0, 1, 2, 5]  # without convolutions


class Normalized(nn.Sequential):
    """A multilayer perceptron with a BatchNorm that can be folded, and one that cannot."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3))


def objective_of(index: int, dtype: str = "float64", **options) -> Objective:
    model, loss, x, y = CASES[index].make(0)
    return Objective(model, loss, (x, y), dtype=dtype, batch_size=9, **options)


def points(objective: Objective, k: int = 5) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return objective.theta + 0.3 * torch.randn(k, objective.dim, generator=g, dtype=torch.float64).to(objective.dtype)


def by_hand(index: int, theta: Tensor) -> tuple[float, float]:
    """Loss and accuracy with weights set tensor by tensor in a module of PyTorch's, in float64."""
    model, loss, x, y = CASES[index].make(0)
    model, start = copy.deepcopy(model).double(), 0
    for p in model.parameters():
        p.data.copy_(theta[start : start + p.numel()].view_as(p))
        start += p.numel()
    target = y.double() if y.is_floating_point() else y
    with torch.no_grad():
        output = model(x.double())
        hits = math.nan if y.is_floating_point() else float((output.argmax(1) == y).double().mean())
        return float(copy.deepcopy(loss).double()(output, target)), hits


@pytest.mark.parametrize("index", STACKED, ids=lambda i: CASES[i].name)
def test_a_stack_has_the_losses_of_the_plain_network(index):
    objective = objective_of(index)
    theta = points(objective)
    for point, found in zip(theta, objective.evaluate_many(theta), strict=True):
        loss, hits = by_hand(index, point)
        assert found.loss.value == pytest.approx(loss, rel=1e-12)
        alone = objective.evaluate(point)
        for name, values in alone.each.items():
            assert found.each[name] == pytest.approx(values, rel=1e-10, abs=1e-12)
        assert found.loss.stderr == pytest.approx(alone.loss.stderr, rel=1e-10)
        if index in (0, 5):  # without class weights
            assert found.accuracy.value == pytest.approx(hits)


@pytest.mark.parametrize("index", STACKED, ids=lambda i: CASES[i].name)
def test_a_stack_in_float32_differs_by_rounding(index):
    objective = objective_of(index, "float32")
    for point, found in zip(theta := points(objective), objective.evaluate_many(theta), strict=True):
        assert found.loss.value == pytest.approx(by_hand(index, point.double())[0], rel=2e-6)


def test_buffers_go_with_their_points():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x, y = Normalized(), torch.randn(20, 5), torch.randint(0, 3, (20,))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    assert objective.arithmetic == "float64, 1 BatchNorm folded"
    theta = points(objective, 4)
    held = {n: torch.stack([b + 0.1 * i for i in range(4)]) for n, b in objective.buffers.items()}
    for i, found in enumerate(objective.evaluate_many(theta, held)):
        alone = objective.evaluate(theta[i], {n: b[i] for n, b in held.items()})
        assert found.loss.value == pytest.approx(alone.loss.value, rel=1e-12)
    assert points_at_once([objective], 1000, False) == 32
    assert points_at_once([objective], 1000, True) == 1, "statistics that are re-estimated take a pass for every point"


class Branching(nn.Module):
    """A network that looks at its weights, which no vectorization can."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if float(self.fc.weight.detach().sum()) > 0 else -self.fc(x)


class Sided(nn.Linear):
    """A layer whose output under vmap is another one."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return 2 * out if torch._C._functorch.is_batchedtensor(out) else out


def test_what_cannot_or_would_not_be_the_same_goes_one_by_one():
    _, loss, x, y = CASES[0].make(0)
    for model in (Branching(), Sided(5, 3)):
        objective = Objective(model, loss, (x, y))
        assert objective.points_at_once == 32
        assert points_at_once([objective], 1000, False) == 1
    assert points_at_once([objective_of(0, metric=lambda o, t: o[:, 0])], 1000, False) == 1
    model = CASES[0].make(0)[0]
    own = Objective(model, lambda output, target: F.cross_entropy(output, target), (x, y))
    assert points_at_once([own], 1000, False) == 1
    assert points_at_once([objective_of(3)], 1000, False) == 1, "a stack of convolutions is slow on a processor"
    assert objective_of(0, "float32").values_in("bfloat16").points_at_once == 1


@pytest.mark.parametrize(("points_of", "size"), [(1000, 32), (64, 32), (63, 16), (9, 4), (3, 1), (1, 1)])
def test_small_surfaces_have_small_stacks(points_of, size):
    assert points_at_once([objective_of(0)], points_of, False) == size


@pytest.mark.parametrize(("width", "samples", "size"), [(32, 256, 32), (128, 256, 32), (512, 256, 8), (32, 100_000, 16)])
def test_stacks_stay_in_the_cache_and_take_a_fraction_of_a_second(width, samples, size):
    net = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))
    objective = Objective(net, nn.CrossEntropyLoss(), (torch.zeros(samples, 2), torch.zeros(samples, dtype=torch.long)))
    assert objective.points_at_once == size


def test_an_infinite_point_leaves_the_others_alone():
    objective = objective_of(0, "float32")
    theta = points(objective, 4)
    whole = objective.evaluate_many(theta)
    theta[2] = 1e38
    found = objective.evaluate_many(theta)
    assert not math.isfinite(found[2].loss.value)
    for i in (0, 1, 3):
        assert np.array_equal(found[i].each["loss"], whole[i].each["loss"])
