"""Measures of the function alone: closed forms on linear classifiers, finite differences, coverage, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscape as ls
from landscape.errors import UsageError
from landscape.measures import MEASURES, NotDefined, critical_sample_ratio, input_margin, logit_norm
from landscape.objective import Objective

CROSS_ENTROPY = nn.CrossEntropyLoss()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n: int, c: int, seed: int = 0) -> Tensor:
    return torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(seed))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    net = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(weight)
        net.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return net


def cnn(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)
        )
        net[1].running_var.uniform_(0.5, 2.0)
        net[1].running_mean.normal_()
        return net.double().eval()


# Logit norm.


def test_logit_norm_is_the_mean_length():
    x, y = drawn(17, 5), classes(17, 3)
    net = linear(drawn(3, 5, seed=1), drawn(3, seed=2))
    found = logit_norm(Objective(net, CROSS_ENTROPY, (x, y), dtype="float64", batch_size=4))
    lengths = np.linalg.norm(net(x).detach().numpy(), axis=1)
    assert found.value == pytest.approx(lengths.mean(), rel=1e-12)
    assert found.stderr == pytest.approx(lengths.std(ddof=1) / math.sqrt(17), rel=1e-12)
    assert (found.kind, found.n) == ("samples", 17)


def test_logit_norm_of_tokens_takes_all_of_a_sample():
    x, y = torch.randint(0, 7, (6, 5), generator=torch.Generator().manual_seed(0)), classes(30, 3).view(6, 5)
    net = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(1, 1)).double()

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).transpose(1, 2)  # (B, C, T)

    found = logit_norm(Objective(Tokens(), CROSS_ENTROPY, (x, y), dtype="float64"))
    assert found.value == pytest.approx(float(net(x).detach().flatten(1).norm(dim=1).mean()), rel=1e-12)
    assert MEASURES["logit_norm"].default


# Input margin.


def margins_of(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[float]:
    """Signed distance to the nearest of the hyperplanes between the target's class and each other one."""
    out = []
    for point, target in zip(x, y, strict=True):
        out.append(
            min(
                ((weight[target] - weight[j]) @ point + bias[target] - bias[j]) / np.linalg.norm(weight[target] - weight[j])
                for j in range(len(weight))
                if j != target
            )
        )
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_margin_of_a_linear_classifier_is_exact(dtype):
    x, y = drawn(23, 2, 3), classes(23, 5)
    weight, bias = drawn(5, 6, seed=1), drawn(5, seed=2)
    net = nn.Sequential(nn.Flatten(), linear(weight, bias))
    found = input_margin(Objective(net, CROSS_ENTROPY, (x, y), dtype=dtype, batch_size=7))
    truth = margins_of(weight.numpy(), bias.numpy(), x.flatten(1).numpy(), y.numpy())
    rel = 1e-12 if dtype == "float64" else 1e-5
    assert found.value == pytest.approx(np.mean(truth), rel=rel)
    assert found.stderr == pytest.approx(np.std(truth, ddof=1) / math.sqrt(23), rel=rel)
    assert (found.kind, found.n, found.reason) == ("samples", 23, None)


def test_margin_equals_finite_differences():
    net, x, y = cnn(), drawn(5, 1, 6, 6), classes(5, 4)
    truth = []
    for point, target in zip(x, y.tolist(), strict=True):
        steps = 1e-6 * torch.eye(36, dtype=torch.float64).view(36, 1, 6, 6)
        with torch.no_grad():
            slopes = (net(point + steps) - net(point - steps)) / 2e-6  # (36, C)
            f = net(point[None])[0]
        truth.append(
            min(float((f[target] - f[j]) / (slopes[:, target] - slopes[:, j]).norm()) for j in range(4) if j != target)
        )
    found = input_margin(Objective(net, CROSS_ENTROPY, (x, y), dtype="float64"))
    assert found.value == pytest.approx(np.mean(truth), rel=1e-6)


def test_fewer_classes_can_only_raise_the_margin():
    x, y = drawn(40, 6), classes(40, 12)
    objective = Objective(linear(drawn(12, 6, seed=1)), CROSS_ENTROPY, (x, y), dtype="float64")
    values = [input_margin(objective, others=k) for k in (1, 3, 9, 11, 100)]
    assert [v.value for v in values] == sorted((v.value for v in values), reverse=True)
    assert values[0].value > values[3].value == values[4].value
    assert values[0].reason == "over the 1 largest of 11 other outputs"
    assert values[3].reason is None
    with pytest.raises(UsageError, match="expected at least 1 other class, found 0"):
        input_margin(objective, others=0)


def test_margin_where_gradients_vanish():
    """f = (relu(x), 0): at x < 0 there is no slope, and no boundary to first order."""
    net = nn.Sequential(linear(torch.tensor([[1.0]])), nn.ReLU(), linear(torch.tensor([[1.0], [0.0]])))
    x, y = torch.tensor([[2.0], [-1.0], [4.0], [1.0]]), torch.tensor([0, 0, 0, -100])
    found = input_margin(Objective(net, CROSS_ENTROPY, (x, y), dtype="float64"))
    assert (found.value, found.n) == (3.0, 2)
    assert found.reason == "2 of 4 samples left out: no target or no gradient"
    # f = (0, 1, x) with target 0: no step changes 0 - 1, so that only the boundary with x counts, whatever class is ahead.
    ahead = linear(torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([0.0, 1.0, 0.0]))
    data = (torch.tensor([[-2.0]]), torch.tensor([0]))
    assert input_margin(Objective(ahead, CROSS_ENTROPY, data, dtype="float64")).value == 2.0
    flat = Objective(net, CROSS_ENTROPY, (-x.abs(), y.clamp(min=0)), dtype="float64")
    with pytest.raises(NotDefined, match="found a gradient of zero at every sample"):
        input_margin(flat)


# Critical sample ratio.


def threshold(at: float) -> nn.Module:
    """Class 0 above, class 1 below a number."""
    return linear(torch.tensor([[1.0], [-1.0]]), torch.tensor([-at, at]))


def test_critical_samples_of_a_threshold_are_those_within_the_radius():
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)[:, None] + 1e-4
    objective = Objective(threshold(0.5), CROSS_ENTROPY, (x, (x[:, 0] < 0.5).long()), dtype="float64")
    for radius in (0.3, 0.1, 1.0):
        truth = float(((x - 0.5).abs() <= radius).double().mean())
        found = critical_sample_ratio(objective, radius=radius, span=255.0)
        assert found.value == pytest.approx(truth, abs=1e-12)
        assert (found.kind, found.n) == ("proportion", 401)
        assert found.reason == "at least this share: a search of 20 steps"


def test_critical_samples_of_a_linear_classifier():
    """A sample is critical if and only if its lead is below r ||w||_1: none is found that is not, and few are missed."""
    w = drawn(20, seed=1)
    net = linear(torch.stack((w, -w)))
    x = drawn(500, 20, seed=2) / 5
    lead = (2 * x @ w).abs()
    objective = Objective(net, CROSS_ENTROPY, (x, classes(500, 2)), dtype="float64", batch_size=128)
    truth = float((lead <= 2 * 0.3 * w.abs().sum()).double().mean())
    near = float((lead <= 0.95 * 2 * 0.3 * w.abs().sum()).double().mean())
    small = critical_sample_ratio(objective, alpha=0.05, beta=0.04, radius=0.06, span=255.0).value
    found = critical_sample_ratio(objective, span=255.0).value
    assert near <= found <= truth
    assert small <= float((lead <= 2 * 0.06 * w.abs().sum()).double().mean())
    assert 0.05 < small < found


def test_the_noise_of_a_sample_depends_on_neither_batches_nor_calls():
    x, y = drawn(60, 1, 6, 6), classes(60, 4)
    whole = Objective(cnn(), CROSS_ENTROPY, (x, y), dtype="float64")
    cut = Objective(cnn(), CROSS_ENTROPY, (x, y), dtype="float64", batch_size=7)
    values = [critical_sample_ratio(o, radius=8.0, iterations=2, beta=6.0) for o in (whole, cut, cut)]
    assert 0.02 < values[0].value < 0.98
    assert values[0] == values[1] == values[2]
    others = {
        critical_sample_ratio(whole, radius=8.0, iterations=2, beta=6.0, generator=torch.Generator().manual_seed(s)).value
        for s in range(5)
    }
    assert len(others) > 1


def test_the_radius_follows_the_range_of_the_data():
    """The same images normalized otherwise, with a first layer that undoes it: the same ratio."""
    x, y = drawn(80, 8).abs(), classes(80, 3)
    weight, bias = drawn(3, 8, seed=1), drawn(3, seed=2)
    plain = Objective(linear(weight, bias), CROSS_ENTROPY, (x, y), dtype="float64")
    other = Objective(linear(weight / 7, bias + 2 / 7 * weight.sum(1)), CROSS_ENTROPY, (7 * x - 2, y), dtype="float64")
    settings = {"alpha": 4.0, "beta": 3.0, "radius": 5.0}
    value = critical_sample_ratio(plain, **settings).value
    assert 0.02 < value < 0.98
    assert critical_sample_ratio(other, **settings).value == value
    span = float(x.max() - x.min())
    assert critical_sample_ratio(plain, span=span, **settings).value == value
    assert critical_sample_ratio(plain, span=10 * span, **settings).value > value


def test_saturated_probabilities_do_not_blind_the_search():
    """Outputs a million times larger: softmax is exactly 0 and 1, in float32 its logarithm's gradient vanishes."""
    x, y, weight = drawn(100, 6), classes(100, 3), drawn(3, 6, seed=1)
    ratios = [
        critical_sample_ratio(
            Objective(linear(c * weight).float(), CROSS_ENTROPY, (x.float(), y)), radius=10.0, alpha=8.0
        ).value
        for c in (1.0, 1e6)
    ]
    assert 0.02 < ratios[0] == ratios[1]


def test_critical_sample_ratio_refuses_nonsense():
    objective = Objective(threshold(0.0), CROSS_ENTROPY, (drawn(4, 1), classes(4, 2)), dtype="float64")
    for settings, text in (
        ({"radius": 0.0}, "expected radius above 0, found 0"),
        ({"alpha": -1.0}, "expected alpha of at least 0, found -1"),
        ({"span": math.inf}, "expected span of at least 0, found inf"),
        ({"iterations": 0}, "expected at least 1 iteration, found 0"),
    ):
        with pytest.raises(UsageError, match=text):
            critical_sample_ratio(objective, **settings)
    same = Objective(threshold(0.0), CROSS_ENTROPY, (torch.ones(4, 1), classes(4, 2)), dtype="float64")
    with pytest.raises(NotDefined, match="expected inputs that differ, found the same number everywhere"):
        critical_sample_ratio(same)
    assert critical_sample_ratio(same, span=255.0).value == 0


# Both.


@pytest.mark.parametrize("function", [input_margin, critical_sample_ratio])
def test_what_is_no_classifier_has_none(function):
    def refused(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor, text: str) -> None:
        with pytest.raises(NotDefined, match=text):
            function(Objective(model, loss, (x, y), dtype="float64"))

    x = drawn(6, 3)
    words = torch.randint(0, 5, (6, 3), generator=torch.Generator().manual_seed(0))
    reader = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 3))
    refused(reader, CROSS_ENTROPY, words, classes(6, 3), "expected a model that takes one tensor of real numbers")
    refused(nn.Linear(3, 2), nn.MSELoss(), x, drawn(6, 2), r"expected class indices \(N,\) as targets, found float64 of shape")
    one = r"expected outputs \(N, C\) of two classes or more, found \(N, 1\)"
    refused(nn.Linear(3, 1), nn.MSELoss(), x, drawn(6, 1), one)
    tokens = r"expected outputs \(N, C\) of two classes or more, found \(N, 3, 4\)"
    speller = nn.Sequential(nn.Linear(12, 12), nn.Unflatten(1, (3, 4)))
    refused(speller, CROSS_ENTROPY, drawn(6, 12), classes(24, 3).view(6, 4), tokens)


def test_rescaling_changes_none_of_them():
    net, x, y = cnn(), drawn(12, 1, 6, 6), classes(12, 4)
    before = Objective(net, CROSS_ENTROPY, (x, y), dtype="float64")
    for node in (False, True):
        after = Objective(ls.rescale(net, 30.0, node=node, example=x), CROSS_ENTROPY, (x, y), dtype="float64")
        for name in ("logit_norm", "input_margin", "critical_sample_ratio:radius=12:alpha=9"):
            measure = ls.measures.chosen([name])[0]
            a, b = (measure(o, torch.Generator().manual_seed(0)) for o in (before, after))
            assert b.value == pytest.approx(a.value, rel=1e-9), name
            assert a.value > 0 or name == "input_margin"
            assert set(measure.invariant_to) >= {"layer", "node"}


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """95 % intervals on 400 fresh draws of 50 samples; the truths by integration over x uniform on [-1, 1]."""
    net = nn.Sequential(linear(torch.tensor([[1.0], [-1.0]])))  # f = (x, -x), target 0: length sqrt(2) |x|, margin x
    truths = {logit_norm: math.sqrt(2) / 2, input_margin: 0.0, critical_sample_ratio: 0.3}
    hits = dict.fromkeys(truths, 0)
    draws = [torch.rand(50, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in range(400)]
    x = 2 * torch.cat(draws) - 1
    whole = Objective(net, CROSS_ENTROPY, (x, torch.zeros(len(x), dtype=torch.int64)), dtype="float64")
    for objective in whole.chunks(50):  # what is prepared once for a network is shared by them
        for function, truth in truths.items():
            settings = {"span": 255.0, "iterations": 6} if function is critical_sample_ratio else {}
            low, high = function(objective, **settings).interval()
            hits[function] += low <= truth <= high
    for function, n in hits.items():
        assert 0.92 <= n / 400 <= 0.985, (function.__name__, n / 400)


def test_samples_that_the_loss_ignores_are_left_out():
    """An index beyond the classes, as in segmentation, and one of the classes itself."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 3), torch.randn(12, 3)
    y = torch.arange(12) % 3
    kept = input_margin(Objective(model, nn.CrossEntropyLoss(), (x[y != 2], y[y != 2]), dtype="float64"))
    for ignored in (2, 255):
        loss = nn.CrossEntropyLoss(ignore_index=ignored)
        found = input_margin(Objective(model, loss, (x, torch.where(y == 2, ignored, y)), dtype="float64"))
        assert found.value == pytest.approx(kept.value, rel=1e-12)
        assert found.n == 8
        assert not math.isnan(critical_sample_ratio(Objective(model, loss, (x, torch.where(y == 2, ignored, y)))).value)
