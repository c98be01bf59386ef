"""Errors of a surface: over samples, and of the difference to the centre, every sample with itself."""

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn
from torch.nn import functional as F

from landscape.objective import Objective
from landscape.surfaces import line, plane, random_direction


def by_hand(model: nn.Module, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    """Every sample's own loss and hit in float64, one sample at a time."""
    named, start = {}, 0
    for name, p in model.named_parameters():
        named[name] = theta[start : start + p.numel()].reshape(p.shape)
        start += p.numel()
    out = {"loss": [], "accuracy": []}
    for i in range(len(x)):
        z = torch.func.functional_call(model, named, (x[i : i + 1],))
        out["loss"].append(float(F.cross_entropy(z, y[i : i + 1])))
        out["accuracy"].append(float(z.argmax(1) == y[i : i + 1]))
    return {name: np.array(values) for name, values in out.items()}


@pytest.mark.parametrize("index", [0, 3, 4], ids=lambda i: CASES[i].name)
def test_errors_are_those_of_the_samples_own_values(index):
    model, loss, x, y = CASES[index].make(0)
    _, _, u, v = CASES[index].make(9)
    model, x, u = model.double(), x.double(), u.double()
    objective = Objective(model, loss, (x, y), dtype="float64")
    test = Objective(model, loss, (u, v), dtype="float64", batch_size=4)
    axes = random_direction(objective, seed=1), random_direction(objective, seed=2)
    found = plane(objective, axes, grid=3, test=test)
    for prefix, data in (("", (x, y)), ("test_", (u, v))):
        centre = by_hand(model, objective.theta, *data)
        for i, a in enumerate((-1.0, 0.0, 1.0)):
            for j, b in enumerate((-1.0, 0.0, 1.0)):
                each = by_hand(model, objective.theta + a * axes[0].vector + b * axes[1].vector, *data)
                n = len(data[0])
                for name, values in each.items():
                    assert found.values[prefix + name][i, j] == pytest.approx(values.mean(), rel=1e-12)
                    assert found.stderr[prefix + name][i, j] == pytest.approx(values.std(ddof=1) / n**0.5, rel=1e-10)
                    by_pairs = (values - centre[name]).std(ddof=1) / n**0.5
                    assert found.paired[prefix + name][i, j] == pytest.approx(by_pairs, rel=1e-9, abs=1e-15)
        for name in ("loss", "accuracy"):
            assert found.paired[prefix + name][1, 1] == 0


def test_class_weights_weigh_the_differences():
    model, loss, x, y = CASES[2].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    d = random_direction(objective, seed=1)
    found = line(objective, d, grid=3)
    w = np.asarray(loss.weight, float)[y]
    each = []
    for a in (0.0, 1.0):
        net = nn.Sequential(*model).double()
        torch.nn.utils.vector_to_parameters(objective.theta + a * d.vector, net.parameters())
        z = net(x.double()).detach()
        log = F.log_softmax(z, 1)
        # Label smoothing 0.1 over three classes, each class with its own weight; PyTorch divides by the weights of the targets.
        smooth = 0.9 * loss.weight.double()[y] * log[torch.arange(len(y)), y] + 0.1 / 3 * (log * loss.weight.double()).sum(1)
        each.append((-smooth / loss.weight.double()[y]).numpy())
    assert found.values["loss"][2] == pytest.approx((w * each[1]).sum() / w.sum(), rel=1e-10)
    difference = each[1] - each[0]
    mean = (w * difference).sum() / w.sum()
    n = len(y)
    variance = ((w / w.sum()) ** 2 * (difference - mean) ** 2).sum() * n / (n - 1)
    assert found.paired["loss"][2] == pytest.approx(variance**0.5, rel=1e-9)


SAMPLES, DRAWS = 200, 500


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values on a population of 20,000, and values with both errors from each of many samples of 200 of it."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 4, generator=g, dtype=torch.float64)
    y = (
        x @ torch.randn(4, 3, generator=g, dtype=torch.float64) + torch.randn(20_000, 3, generator=g, dtype=torch.float64)
    ).argmax(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x[:2000]), y[:2000]).backward()
        optimizer.step()
    whole = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    d = random_direction(whole, seed=3)

    def on(objective: Objective) -> np.ndarray:
        # Values at every place, without the check, which is not looked at here.
        from landscape.surfaces.grid import flat_chart
        from landscape.surfaces.running.measurement import Losses

        part = Losses(flat_chart(objective, (d,), [(-0.5, 0.5)], [5], "eval"), objective, None)
        return np.array([[part((k,))[0]["values"][name] for k in range(5)] for name in ("loss", "accuracy")], float)

    truth = on(whole)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(DRAWS):
        rows = torch.from_numpy(rng.choice(len(x), SAMPLES, replace=False))
        found.append(on(Objective(model, nn.CrossEntropyLoss(), (x[rows], y[rows]), dtype="float64")))
    stacked = np.stack(found)  # draw, quantity, place, (value, stderr, paired)
    return (
        {name: truth[i, :, 0] for i, name in enumerate(("loss", "accuracy"))},
        {name: stacked[:, i] for i, name in enumerate(("loss", "accuracy"))},
    )


# 1.96 standard errors from 200 samples cover 94.8 % at best (Student's t), the population is finite (200 of 20,000: + 0.1 %),
# and 500 draws leave +- 1 % of their own (one sigma): 92.0 to 97.8 % is three sigma around 94.9 %.
LOW, HIGH = 0.920, 0.978


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 3, 4])
@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_the_paired_band_covers_the_true_difference(drawn, name, place):
    truth, found = drawn
    difference = found[name][:, place, 0] - found[name][:, 2, 0]
    inside = np.abs(difference - (truth[name][place] - truth[name][2])) <= 1.96 * found[name][:, place, 2]
    assert LOW <= inside.mean() <= HIGH


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_the_band_covers_the_true_value(drawn, name, place):
    truth, found = drawn
    inside = np.abs(found[name][:, place, 0] - truth[name][place]) <= 1.96 * found[name][:, place, 1]
    assert LOW <= inside.mean() <= HIGH


def test_pairs_tell_more_than_two_separate_bands(drawn):
    """Near the centre the samples' common part drops out; a band from `stderr` alone would be far too wide."""
    _, found = drawn
    paired, single = (found["loss"][:, 1, i].mean() for i in (2, 1))
    assert paired < 0.7 * single
    spread = (found["loss"][:, 1, 0] - found["loss"][:, 2, 0]).std()
    assert paired == pytest.approx(spread, rel=0.1)
    assert (found["loss"][:, 2, 2] == 0).all()
    assert (found["accuracy"][:, 2, 2] == 0).all()
